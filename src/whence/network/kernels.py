"""Which operations of torch a pass of a module takes: such as differentiate as often as asked."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from whence.errors import UnsupportedModel

_OF_PROCESS = threading.RLock()  # torch's choice of kernels belongs to the process


@contextmanager
def kernels(model: nn.Module, twice: bool) -> Iterator[None]:
    """Choose operations that differentiate as often as is asked for.

    Args:
        model: A module.
        twice: Whether its outputs will be differentiated twice.
    """
    recurrent = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    with ExitStack() as stack:
        if twice or recurrent:
            stack.enter_context(_OF_PROCESS)
        if twice:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if recurrent:
            stack.enter_context(_unfused_recurrence())
        for module in recurrent:
            stack.callback(module.register_forward_pre_hook(_begun, with_kwargs=True).remove)
        yield


def as_trained(model: nn.Module) -> None:
    """Have layers of bitsandbytes in 4 bits compute on a CPU as they do in training.

    In eval mode they pack their weights for an operation that has no derivative.

    Args:
        model: A copy of the user's module, which is changed.

    Raises:
        UnsupportedModel: If the weights are packed already.
    """
    module: Any
    for module in model.modules():
        if not hasattr(module, "support_avx512bf16_for_cpu"):
            continue
        module.support_avx512bf16_for_cpu = False
        state = getattr(module.weight, "quant_state", None)
        if getattr(state, "packing_format_for_cpu", False):
            raise UnsupportedModel(
                f"Expected weights of {type(module).__name__} as they are in training. Got weights "
                "that a call in eval mode packed for inference, which has no derivative. Load the "
                "model anew, and pass it before it is called."
            )


@contextmanager
def sparse_lookups(
    model: nn.Module, names: Collection[str], device: torch.device
) -> Iterator[None]:
    """Have the gradients of tables of which rows are read in memory for those rows alone.

    Args:
        model: A module, which a call in another thread must not use meanwhile.
        names: The parameters that are differentiated in. A frozen table is left as it is: adapters
            of it look up what they compute of their own parameters in its way.
        device: Where it is: not all devices have sparse gradients, the CPU has.
    """
    tables = [
        module
        for name, module in model.named_modules()
        if type(module) is nn.Embedding
        and not module.scale_grad_by_freq
        and device.type == "cpu"
        and f"{name}.weight".lstrip(".") in names
    ]
    for table in tables:
        table.sparse = True
    try:
        yield
    finally:
        for table in tables:
            table.sparse = False


def _begun(
    module: nn.RNNBase, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Have a recurrent layer begin with a state that is made of its input.

    Zeros and constants are in no mapped batch (`torch.func.vmap`), in which it then adds to them in
    place.
    """
    x, state = (*given, named.get("hx"))[:2]
    if named.keys() - {"hx"} or not torch.is_tensor(x):
        return None
    if state is None:
        several = () if x.ndim == 2 else (x.shape[0 if module.batch_first else 1],)
        layers = module.num_layers * (2 if module.bidirectional else 1)
        state = x.new_zeros(layers, *several, module.proj_size or module.hidden_size)
        if module.mode == "LSTM":
            state = state, x.new_zeros(layers, *several, module.hidden_size)
    return (x, tree_map(lambda part: part + x.new_zeros(part.shape), state)), {}


@contextmanager
def _unfused_recurrence() -> Iterator[None]:
    """Compute recurrent layers by plain operations: the fused ones differentiate only once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration")
        with torch.backends.mkldnn.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
            yield
