"""Tests with their tensors and networks on another device: `python -m tests.on_device [file ...]`.

The device is WHENCE_TEST_DEVICE, `cuda` by default. What a test makes lies on the device, and what
it reads as an array comes back; whence itself gets no such help, so that what it leaves on the CPU
meets tensors of the device and fails. `far` is the pretended device of `tests.far_device`, for
machines without another. Files that ask nothing of a processor are run if none are named.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_map

from tests import far_device

FILES = (
    "tests/linalg",
    "tests/curvature",
    "tests/network",
    "tests/training",
    "tests/methods",
    "tests/index",
)
_TESTS, _TORCH = str(Path(__file__).parent), str(Path(torch.__file__).parent)
_MADE = {*_device_constructors(), torch.as_tensor, torch.tensor}
_READ = {Tensor.numpy, Tensor.__array__}


def asked_by_a_test() -> bool:
    """Whether the first caller outside torch is a file of the tests."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name != __file__ and not name.startswith(_TORCH):
            return name.startswith(_TESTS)
        frame = frame.f_back
    return False


def there(made: Any, device: str) -> Any:
    """Return what was made on the device; a leaf stays a leaf."""
    if not isinstance(made, Tensor) or made.device.type == device:
        return made
    return made.detach().to(device).requires_grad_(made.requires_grad)


def here(value: Any) -> Any:
    """Return tensors on the CPU, all else as it is."""
    return value.cpu() if isinstance(value, Tensor) else value


class OnDevice(TorchFunctionMode):
    """Tensors that tests make lie on a device, and those that they read come back."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        if function in _MADE and options.get("device") is None and asked_by_a_test():
            return there(function(*args, **options), self.device)
        if function in _READ and asked_by_a_test():
            args = tree_map(here, args)
        return function(*args, **options)


def placing(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    """Return a maker that torch does not tell modes about."""

    @wraps(function)
    def placed(*args: Any, **kwargs: Any) -> Any:
        made = function(*args, **kwargs)
        return there(made, device) if asked_by_a_test() else made

    return placed


def comparing(function: Callable[..., None]) -> Callable[..., None]:
    """Return a comparison of numbers, wherever they lie."""

    @wraps(function)
    def compared(actual: Any, expected: Any, **options: Any) -> None:
        function(tree_map(here, actual), tree_map(here, expected), **options)

    return compared


def pytest_configure(config: pytest.Config) -> None:
    """Begin before any test is read: some make tensors as they are imported."""
    device = os.environ.get("WHENCE_TEST_DEVICE", "cuda")
    if device == "far":
        config.stash[pytest.StashKey[Any]()] = far_device.register()
        torch.autograd.set_multithreading_enabled(False).__enter__()
        torch.ones(3).to(device).requires_grad_().sum().backward()
    elif device == "cuda" and not torch.cuda.is_available():
        pytest.exit("Expected a GPU for WHENCE_TEST_DEVICE=cuda. Got none.", returncode=0)
    OnDevice(device).__enter__()
    torch.from_numpy = placing(torch.from_numpy, device)
    torch.testing.assert_close = comparing(torch.testing.assert_close)


def main() -> int:
    """Run the files, and return how pytest ended."""
    given = sys.argv[1:] or list(FILES)
    # pytest-benchmark, where it is installed, warns beside xdist, and a warning is an error here.
    plugins = ["-p", "no:benchmark", "-p", "no:cacheprovider", "-p", "tests.on_device"]
    return int(pytest.main(["-q", *plugins, *given]))


if __name__ == "__main__":
    sys.exit(main())
