"""Which operations of torch a pass of a module takes: such as differentiate as often as asked."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

_OF_PROCESS = threading.RLock()  # torch's choice of kernels belongs to the process


@contextmanager
def kernels(model: nn.Module, twice: bool) -> Iterator[None]:
    """Choose operations that differentiate as often as is asked for.

    Args:
        model: A module.
        twice: Whether its outputs will be differentiated twice.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with ExitStack() as stack:
        if twice or recurrent:
            stack.enter_context(_OF_PROCESS)
        if twice:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if recurrent:
            stack.enter_context(_unfused_recurrence())
        yield


@contextmanager
def sparse_lookups(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Have the gradients of tables of which rows are read in memory for those rows alone.

    Args:
        model: A module, which a call in another thread must not use meanwhile.
        device: Where it is: not all devices have sparse gradients, the CPU has.
    """
    found = (m for m in model.modules() if type(m) is nn.Embedding and not m.scale_grad_by_freq)
    tables = list(found) if device.type == "cpu" else []
    for table in tables:
        table.sparse = True
    try:
        yield
    finally:
        for table in tables:
            table.sparse = False


@contextmanager
def _unfused_recurrence() -> Iterator[None]:
    """Compute recurrent layers by plain operations: the fused ones differentiate only once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration")
        with torch.backends.mkldnn.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
            yield
