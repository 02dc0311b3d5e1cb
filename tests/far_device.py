"""Networks on a device that is not the CPU: `python -m tests.far_device [--device cuda]`.

Each call must give what it gives on the CPU. On a machine without another device there is `far`:
its tensors keep their numbers in the memory of the CPU, but torch treats them as those of a GPU:
`.numpy()` fails, and so does any operation with a tensor of another device. One process asks all,
since a device is registered once.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.utils.backend_registration import (  # type: ignore[attr-defined]
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

import whence

_KEY = "PrivateUse1"
_NUMBER = re.compile(r"-?\d+(?:\.\d+(?:e[-+]?\d+)?|e[-+]?\d+)")
# Numbers by the storage that a tensor shares with its shallow copies.
_NUMBERS: dict[int, Tensor] = {}
_SHAPES = {"squeeze_", "unsqueeze_", "t_", "transpose_", "swapdims_", "swapaxes_"}
_VIEWS = {"view.default", "_unsafe_view.default", "_reshape_alias.default"}
# Positions may lie on the CPU, as for a GPU.
_POSITIONS = ("index", "_index", "_unsafe_index")


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class Far(Tensor):
    """A tensor of the device whose numbers are those of a tensor on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        made = torch._C._acc.create_empty_tensor(near.shape, near.dtype)
        made.__class__ = cls
        return made  # type: ignore[no-any-return]

    def __init__(self, near: Tensor) -> None:
        _NUMBERS[self.untyped_storage()._cdata] = near


def near(value: Any) -> Any:
    """Return a tensor of the device as one on the CPU with the same numbers, all else as it is."""
    if isinstance(value, Tensor) and value.device.type == "far":
        return _NUMBERS[value.untyped_storage()._cdata]
    return value


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Return what an operation is given or returns, each value in it changed.

    The 280,000 operations make torch's own walk through nested containers half of all time.
    """
    if isinstance(value, list | tuple):
        return type(value)([mapped(change, part) for part in value])
    return change(value)


def compute(operation: Any, *given: Any, **options: Any) -> Any:
    """Do any operation of torch on the numbers, as a device would that has its own memory."""
    name = operation.__name__
    if name.startswith("_to_copy"):
        device = torch.device(options.pop("device", None) or given[0].device)
        copied = operation(near(given[0]), **options)
        return Far(copied) if device.type == "far" else copied
    if name.startswith("_copy_from"):
        near(given[1]).copy_(near(given[0]))
        return given[1]
    here, there = [], []

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.device.type == "far":
                there.append(value)
            elif value.dim():
                here.append(value)
        return near(value)

    moved_given = mapped(moved, given)
    moved_options = {key: mapped(moved, value) for key, value in options.items()}
    if here and there and not name.startswith(("copy_", *_POSITIONS)):
        raise RuntimeError(f"Expected all tensors of {name} on one device.")
    if options.get("device") is not None:
        moved_options["device"] = torch.device("cpu")
    if name in _VIEWS:
        return Far(near(given[0]).reshape(given[1]))
    found = operation(*moved_given, **moved_options)
    inside = name.split(".")[0]
    if inside in _SHAPES:
        given[0].data = Far(near(given[0]))
    if operation._schema.is_mutable and (inside.endswith("_") or "out" in options):
        return options.get("out", given[0])
    return mapped(lambda value: Far(value) if isinstance(value, Tensor) else value, found)


@functools.cache
def register() -> list[torch.library.Library]:
    """Let torch know the device; it does as long as what is returned lives."""
    _setup_privateuseone_for_python_backend("far", _Module())
    every, named = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(compute, _KEY)
    for full in torch._C._dispatch_get_all_op_names():
        known = functools.partial(torch._C._dispatch_has_kernel_for_dispatch_key, full)
        # torch's own form of these shares memory between tensors, which the device does not.
        if full.startswith("aten::") and known("CompositeExplicitAutograd"):
            packet, _, overload = full.removeprefix("aten::").partition(".")
            operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
            named.impl(full.removeprefix("aten::"), functools.partial(compute, operation), _KEY)
    return [every, named]


# What is asked, of one model of each kind on each device


def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


class Convolving(nn.Module):
    """Layers of each kind that has a factored rule."""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv1d(1, 3, 2)
        self.norm = nn.LayerNorm(9)
        self.group = nn.GroupNorm(3, 9)
        self.top = nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.convolve(x[:, None]).flatten(1).tanh()
        return self.top(self.group(self.norm(hidden)))


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(24, 4, generator=generator, dtype=torch.float64), torch.arange(24) % 2


def made(build: Callable[[], nn.Module], device: str, dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    return build().to(dtype).to(device)


@functools.cache
def objective(device: str, build: Callable[[], nn.Module] = layers) -> Any:
    return whence.from_torch(made(build, device), whence.CrossEntropy(), data(), l2=0.1)


@functools.cache
def convex(device: str) -> Any:
    model = made(lambda: nn.Linear(4, 2), device)
    return whence.from_torch(model, whence.CrossEntropy(), data(), l2=0.1, convex=True)


def queries() -> tuple[Tensor, Tensor]:
    x, y = data()
    return x[:2] + 0.1, y[:2]


def trained(device: str, directory: str | None = None) -> Any:
    recipe = whence.Recipe(learning_rate=0.1, batch_size=6, epochs=2, momentum=0.5)
    model = made(layers, device)
    return whence.train(model, whence.CrossEntropy(), data(), recipe, directory=directory)


@functools.cache
def run(device: str) -> Any:
    return trained(device)


def language_model(device: str) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=12, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=1
    )
    config._attn_implementation = "eager"
    texts = [{"input_ids": [2, 3, 4, 3]}, {"input_ids": [5, 6]}, {"input_ids": [7, 8, 9]}]
    model = GPT2LMHeadModel(config).double().to(device).eval()
    model.tie_weights()  # which the way to another kind of tensor undoes
    return whence.from_transformers(model, texts)


# Its answers by different methods, of one objective.
asked_model = functools.cache(language_model)


def index(device: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        built = whence.Index.build(objective(device), folder)
        built.append(data())
        return built.query(queries(), k=3).to_frame()["score"].to_numpy()


def recorded(device: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        found = [whence.metagradient(trained(device, folder), queries()).values for _ in range(2)]
        return np.stack(found)


def page(device: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        whence.explain(objective(device), queries()[0][:1], k=2).report(path)
        return path.read_text(encoding="utf-8")


def many(device: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        whence.report(run(device), queries(), path, k=2)
        return path.read_text(encoding="utf-8")


def selected(device: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        built = whence.Index.build(objective(device), folder)
        return whence.select(built, queries(), k=4).ids


def attacked(device: str) -> Any:
    x, y = data()
    images = (x / 4).clamp(-1, 1).reshape(-1, 1, 2, 2)
    top = LogisticRegression(tol=1e-10).fit(images.flatten(1), y)
    extractor = made(nn.Flatten, device)
    frozen = whence.from_frozen(extractor, top, images, y)
    return whence.attacks.attack(frozen, (images[:1], y[:1]), steps=1).losses


def influence(solver: Any, damping: float | None = 0.1, **options: Any) -> Callable[[str], Any]:
    return lambda device: whence.influence(
        objective(device), queries(), solver=solver, damping=damping, **options
    )


ASKED: dict[str, Callable[[str], Any]] = {
    "influence": influence(None, None),
    "EKFAC": influence(whence.EKFAC(), None),
    "KFAC": influence(whence.KFAC(), None),
    "CG": influence(whence.CG()),
    "CG from EKFAC": influence(whence.CG(preconditioner=whence.EKFAC())),
    "Cholesky": influence(whence.linalg.Cholesky()),
    "LiSSA": influence(whence.LiSSA(depth=4), 0.5),
    "Arnoldi": influence(whence.linalg.Arnoldi(rank=4)),
    "Nystrom": influence(whence.linalg.Nystrom(rank=4)),
    "newton": influence(whence.EKFAC(), None, order="newton"),
    "layers of each kind": lambda device: whence.influence(
        objective(device, Convolving), queries(), solver=whence.EKFAC()
    ),
    "self_influence": lambda device: whence.self_influence(
        objective(device), solver=whence.EKFAC()
    ),
    "projected": lambda device: whence.projected(objective(device), queries(), size=8),
    "tracin": lambda device: whence.tracin(objective(device), queries()),
    "hidden states": lambda device: whence.HiddenCosine().fit(objective(device)).scores(queries()),
    "perturbation": lambda device: whence.perturbation(
        objective(device), [1, 2], tuple(part[:1] for part in queries()), solver=whence.EKFAC()
    ),
    "edit": lambda device: whence.edit(
        objective(device), 3, data()[0][4], 1, queries(), solver=whence.EKFAC()
    ),
    "group_effect": lambda device: whence.group_effect(
        objective(device), [1, 2], queries(), solver=whence.EKFAC()
    ),
    "diagnose": lambda device: str(whence.diagnose(objective(device), iterations=5)),
    "explain": lambda device: str(whence.explain(objective(device), queries()[0][:1], k=2)),
    "label errors": lambda device: whence.find_label_errors(objective(device), k=3).scores,
    "held-out labels": lambda device: str(
        whence.find_label_errors(objective(device), k=3, method="held_out_loss")
    ),
    "leave_one_out": lambda device: whence.leave_one_out(convex(device), [0, 3], queries()),
    "KNN-Shapley": lambda device: whence.KNNShapley().fit(convex(device)).scores(queries()),
    "Retrained": lambda device: whence.Retrained(fits=20).fit(run(device)).scores(queries()),
    "retrain": lambda device: whence.retrain(run(device), np.ones((2, 24))),
    "metagradient": lambda device: whence.metagradient(run(device), queries()),
    "metagradient of states on disk": recorded,
    "unrolled": lambda device: whence.unrolled(run(device), queries(), segments=2),
    "index": index,
    "select": selected,
    "page": page,
    "page of many": many,
    "attack": attacked,
    "verify": lambda device: whence.explain(run(device), queries()[0][:1], k=2).verify(3).actual,
    "evaluate": lambda device: whence.evaluate(run(device), queries(), subsets=4).mean,
    "removal_curve": lambda device: str(
        whence.removal_curve(run(device), data(), fractions=(0.1,), method=whence.TracIn())
    ),
    "stability": lambda device: str(
        whence.stability([objective(device), objective(device)], queries(), k=2)
    ),
    "compare_influence": lambda device: str(
        whence.compare_influence(
            objective(device), objective(device, Convolving), tuple(p[:1] for p in queries())
        )
    ),
    "average": lambda device: whence.average([influence(None, None)(device)] * 2),
    "language model": lambda device: whence.influence(
        asked_model(device), [{"input_ids": [2, 3, 4]}], solver=whence.EKFAC()
    ),
    "influence by token": lambda device: (
        whence.influence_by_token(
            asked_model(device), [{"input_ids": [2, 3, 4]}], solver=whence.EKFAC()
        ).values
    ),
}


def numbers(found: Any) -> Any:
    """Return what can be compared: numbers, names or words."""
    values = found.values if hasattr(found, "values") and not callable(found.values) else found
    return values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def same(found: Any, expected: Any) -> bool:
    """Whether two answers agree but for rounding: numbers, and those that stand in a text."""
    if expected.dtype.kind in "fc":
        scale = np.abs(expected).max()
        return np.allclose(found, expected, rtol=1e-6, atol=1e-9 * scale)
    if expected.dtype.kind == "U":
        texts = [str(text) for text in (found, expected)]
        here, there = (np.array(_NUMBER.findall(text), dtype=float) for text in texts)
        words, wanted = (_NUMBER.sub("", text) for text in texts)
        return words == wanted and np.allclose(here, there, rtol=1e-3, atol=1e-6)
    return bool((found == expected).all())


def differences(device: str) -> Iterator[tuple[str, str]]:
    """Yield each call with what is wrong with it on a device, empty if nothing is."""
    if device == "far":
        register()
    x = torch.ones(3).to(device)
    # The engine starts the device's thread here; Python errors in it need the calling thread.
    x.requires_grad_().sum().backward()
    for name, ask in ASKED.items():
        expected = numbers(ask("cpu"))
        try:
            with torch.autograd.set_multithreading_enabled(device != "far"):
                found = numbers(ask(device))
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            place = [
                frame
                for frame in frames
                if "/whence/" in frame.filename or "tests" in frame.filename
            ][-1]
            yield name, f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
            continue
        yield name, "" if same(found, expected) else f"{found} for {expected}"[:1000]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="far", help="a device of torch; else the pretended one")
    device = parser.parse_args().device
    wrong = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, what in differences(device):
            print(f"{name}: {what or 'the same'}", flush=True)
            wrong += bool(what)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
