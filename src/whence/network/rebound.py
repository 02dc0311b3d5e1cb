"""Forward passes that another library replaced on a module, brought along to its copy.

Training libraries replace `forward` of one module by a function that calls the one it had. What a
function encloses is not copied with the module: the copy would compute with the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import nn

_CHECKPOINTING = "make_inputs_require_grads"  # of the transformers library


def rebind(model: nn.Module, copies: Mapping[int, Any]) -> None:
    """Have the functions that replace methods of modules call the copies of what they enclose.

    Modules of the transformers library get the method of their class back, and what the library
    accelerate replaced for a training in mixed precision is undone: derivatives are computed in the
    precision of the parameters. Hooks that gradient checkpointing needs in training are removed.

    Args:
        model: A copy of a module, which is changed.
        copies: The copy of each copied object by the id of the original, as deepcopy notes it.
    """
    for module in [module for module in model.modules() if "forward" in vars(module)]:
        own = vars(module)
        own["forward"] = _rebound(own.pop("_original_forward", own["forward"]), copies)
        if type(module).__module__.startswith("transformers."):
            del own["forward"]
    for module in model.modules():
        hooks = module._forward_hooks
        for key in [key for key, hook in hooks.items() if _names(hook) == _CHECKPOINTING]:
            del hooks[key]


def _names(hook: Any) -> str:
    """Return the name of a function; of any other callable none."""
    return getattr(hook, "__name__", "")


@singledispatch
def _rebound(value: Any, copies: Mapping[int, Any]) -> Any:
    """Return the copy of something, or itself where it has none."""
    return copies.get(id(value), value)


@_rebound.register
def _of_method(value: MethodType, copies: Mapping[int, Any]) -> Any:
    owner = copies.get(id(value.__self__), value.__self__)
    return MethodType(_rebound(value.__func__, copies), owner)


@_rebound.register
def _of_function(value: FunctionType, copies: Mapping[int, Any]) -> Any:
    if value.__closure__ is None:
        return value
    held = [cell.cell_contents for cell in value.__closure__]
    moved = [_rebound(each, copies) for each in held]
    if all(new is old for new, old in zip(moved, held, strict=True)):
        return value
    found = FunctionType(
        value.__code__,
        value.__globals__,
        value.__name__,
        value.__defaults__,
        tuple(CellType(each) for each in moved),
    )
    found.__kwdefaults__ = value.__kwdefaults__
    found.__dict__.update(vars(value))
    return found
