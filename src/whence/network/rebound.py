"""Functions that a module holds, such as hooks and replaced forward passes, made those of its copy.

Training libraries replace `forward` of one module by a function that calls the one it had, and
modules hold functions made where they are, `self.scale = lambda x: self.layer(x)`. What a function
encloses is not copied with the module: the copy would compute with the original.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import singledispatch
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import nn

_CHECKPOINTING = "make_inputs_require_grads"  # of the transformers library


def rebind(model: nn.Module, copies: dict[int, Any]) -> None:
    """Have the functions that modules hold call the copies of what they enclose.

    Modules of the transformers library get the method of their class back, and what the library
    accelerate replaced for a training in mixed precision is undone: derivatives are computed in the
    precision of the parameters. Hooks that gradient checkpointing needs in training are removed.

    Args:
        model: A copy of a module, which is changed.
        copies: The copy of each copied object by the id of the original, as deepcopy notes it.
    """
    for module in [module for module in model.modules() if "forward" in vars(module)]:
        own = vars(module)
        own["forward"] = own.pop("_original_forward", own["forward"])
        if type(module).__module__.startswith("transformers."):
            del own["forward"]
    for module in model.modules():
        own = vars(module)
        own.update({name: _rebound(value, copies) for name, value in own.items()})
        hooks = module._forward_hooks
        for key in [key for key, hook in hooks.items() if _names(hook) == _CHECKPOINTING]:
            del hooks[key]


def _names(hook: Any) -> str:
    """Return the name of a function; of any other callable none."""
    return getattr(hook, "__name__", "")


def _rebound(value: Any, copies: dict[int, Any]) -> Any:
    """Return the copy of something, or itself where it has none."""
    return copies[id(value)] if id(value) in copies else _moved(value, copies)


@singledispatch
def _moved(value: Any, copies: dict[int, Any]) -> Any:
    """Return something with the copies of what it holds, or itself where nothing has one."""
    return value


@_moved.register
def _of_dict(value: dict, copies: dict[int, Any]) -> Any:  # type: ignore[type-arg]
    moved = {key: _rebound(each, copies) for key, each in value.items()}
    if _same(moved.values(), value.values()):
        return value
    found = copy.copy(value)
    found.update(moved)
    return found


@_moved.register
def _of_list(value: list, copies: dict[int, Any]) -> Any:  # type: ignore[type-arg]
    moved = [_rebound(each, copies) for each in value]
    return value if _same(moved, value) else moved


@_moved.register
def _of_tuple(value: tuple, copies: dict[int, Any]) -> Any:  # type: ignore[type-arg]
    moved = [_rebound(each, copies) for each in value]
    return value if _same(moved, value) or type(value) is not tuple else tuple(moved)


@_moved.register
def _of_method(value: MethodType, copies: dict[int, Any]) -> Any:
    owner = copies.get(id(value.__self__), value.__self__)
    return MethodType(_rebound(value.__func__, copies), owner)


@_moved.register
def _of_function(value: FunctionType, copies: dict[int, Any]) -> Any:
    if not (value.__closure__ or value.__defaults__ or value.__kwdefaults__):
        return value
    cells = value.__closure__ or ()
    own = [CellType() for _ in cells]
    found = FunctionType(
        value.__code__, value.__globals__, value.__name__, None, tuple(own) if cells else None
    )
    copies[id(value)] = found  # it may enclose itself
    changed = False
    for cell, mine in zip(cells, own, strict=True):
        try:
            held = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        mine.cell_contents = _rebound(held, copies)
        changed |= mine.cell_contents is not held
    found.__defaults__ = _rebound(value.__defaults__, copies)
    found.__kwdefaults__ = _rebound(value.__kwdefaults__, copies)
    changed |= found.__defaults__ is not value.__defaults__
    changed |= found.__kwdefaults__ is not value.__kwdefaults__
    found.__dict__.update(vars(value))
    copies[id(value)] = found if changed else value
    return copies[id(value)]


def _same(moved: Iterable[Any], held: Iterable[Any]) -> bool:
    """Return whether things are the very same, one by one."""
    return all(new is old for new, old in zip(moved, held, strict=True))
