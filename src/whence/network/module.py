"""A torch module as a function of some of its parameters: (θ, x) ↦ f_θ(x), θ flat or by name.

The copy of a module holds no values of the selected parameters: each call brings them. They are
NaN in the copy, in no memory, so that a module that reads a parameter by another way than its own
name, such as a list of tensors made once, is found out at its first call and not differentiated as
if it were constant.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, singledispatch
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from whence.errors import IncompleteCoverage, InvalidInput, UnsupportedModel
from whence.network.attention import by_layers
from whence.network.autodiff import Leaf
from whence.network.kernels import as_trained, kernels, sparse_lookups
from whence.network.readers import Reader, readers_of
from whence.network.rebound import rebind

Selection = Collection[str] | Callable[[str, nn.Parameter], bool]

_HALF_PRECISION = (torch.bfloat16, torch.float16)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class FunctionalModule:
    """A torch module as a function of its selected parameters and an input.

    Calls replace the parameters of the module for their duration, and watch its layers by hooks:
    `lock` makes those of several threads follow each other. Backward passes do not need it.

    Attributes:
        model: A copy of the user's module. The selected parameters are NaN; the others are
            constants.
        shapes: Name and shape of each selected parameter, in the order of θ.
        constants: Values of other parameters that are NaN in the copy.
        lock: Held during a forward pass.
        notes: What a reader of results must know about the copy, a sentence each.
    """

    model: nn.Module
    shapes: Mapping[str, torch.Size]
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    notes: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled and copied: all but the lock."""
        with self.lock:
            own = {*self.shapes, *self.constants}
            named = self.model.named_parameters()
            memo: dict[int, Any] = {id(value): value for name, value in named if name in own}
            model = copy.deepcopy(self.model, memo)
        return {
            "model": model,
            "shapes": dict(self.shapes),
            "constants": {name: value.clone() for name, value in self.constants.items()},
            "notes": self.notes,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore, with a lock of its own."""
        self.__dict__.update(state, lock=threading.RLock())

    def __call__(
        self, parameters: Mapping[str, Tensor], inputs: Any, *, twice: bool = False
    ) -> Tensor:
        """Return the outputs: model(x), model(*x) for a tuple, model(**x) for a dict.

        Args:
            parameters: θ by name; a use of one of its pieces may have a value of its own.
            inputs: x of a batch.
            twice: Whether the outputs will be differentiated twice: by operations that allow it.

        Returns:
            The outputs, [b, ...].

        Raises:
            UnsupportedModel: If the module does not return one tensor.
        """
        values = {**self.constants, **parameters}
        given = {use: values[use if use in values else n] for use, n in self.uses.items()}
        with self.lock, kernels(self.model, twice):
            value = functional_call(self.model, given, *_arguments(inputs), tie_weights=False)
        if not isinstance(value, Tensor):
            raise UnsupportedModel(
                f"Expected a model that returns one tensor. Got {type(value).__name__}. "
                "Wrap it in a module that returns the logits; models of the transformers library "
                "are wrapped by whence.from_transformers."
            )
        # Some modules compute in a precision of their own, and some of those answer in it.
        return value.to(next(iter(parameters.values())).dtype)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """The slice of θ of each selected parameter."""
        places, start = {}, 0
        for name, shape in self.shapes.items():
            places[name] = slice(start, start + shape.numel())
            start += shape.numel()
        return places

    @cached_property
    def uses(self) -> dict[str, str]:
        """Each name that the module has for what calls replace, with its first name: that in θ."""
        with self.lock:  # a call in another thread replaces parameters
            named = dict(self.model.named_parameters())
            known = {id(named[name]): name for name in (*self.shapes, *self.constants)}
            every = self.model.named_parameters(remove_duplicate=False)
            return {use: known[id(p)] for use, p in every if id(p) in known}

    @cached_property
    def owners(self) -> dict[nn.Module, list[tuple[str, str]]]:
        """The modules that hold selected parameters: their own name for each, and its name in θ."""
        owners: dict[nn.Module, list[tuple[str, str]]] = {}
        with self.lock:  # a call in another thread replaces parameters
            named = dict(self.model.named_parameters())
            known = {id(named[name]): name for name in self.shapes}
            for module in self.model.modules():
                held = module.named_parameters(recurse=False, remove_duplicate=False)
                for own, parameter in held:
                    if id(parameter) in known:
                        owners.setdefault(module, []).append((own, known[id(parameter)]))
        return owners

    @cached_property
    def readers(self) -> list[Reader]:
        """The modules within it that use what others hold."""
        return readers_of(self.model)

    def fixed(self) -> tuple[Tensor, ...]:
        """Return what the module holds besides θ, by name: other parameters, and buffers."""
        with self.lock:
            named = dict(self.model.named_parameters())
            placeholders = {id(named[name]) for name in (*self.shapes, *self.constants)}
            state = {**self.model.state_dict(keep_vars=True), **self.constants}
        held = (state[name] for name in sorted(state))
        return tuple(x for x in held if torch.is_tensor(x) and id(x) not in placeholders)

    def split(self, params: Tensor) -> dict[str, Tensor]:
        """Return θ [p] by name, as views; their common backward pass writes θ's gradient once."""
        sizes = [shape.numel() for shape in self.shapes.values()]
        pieces = torch.split(params, sizes)
        return {
            name: piece.view(shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def leaves(self, params: Tensor) -> dict[str, Tensor]:
        """Return θ [p] by name, each piece a leaf of its own to differentiate in."""
        return {name: piece.requires_grad_() for name, piece in self.split(params.detach()).items()}

    def differentiated(
        self, params: Tensor, inputs: Any, *, twice: bool
    ) -> tuple[Tensor, list[Leaf]]:
        """Return the outputs at θ as a function of leaves, each with its place in θ.

        Differentiated once on a CPU, each use of a tied weight is a leaf of its own, and rows of a
        table that are looked up have sparse gradients: what a backward pass holds beside θ's
        gradient is then one layer's. Elsewhere such sums would not repeat to the last bit.

        Args:
            params: θ, [p].
            inputs: x of a batch.
            twice: Whether the outputs will be differentiated twice.
        """
        with torch.enable_grad():
            if twice or params.device.type != "cpu":
                leaves = self.leaves(params)
                outputs = self(leaves, inputs, twice=True)
            else:
                outputs, leaves = self.apart(self.split(params.detach()), self.shapes, inputs)
        return outputs, [(self.slices[self.uses[use]], leaf) for use, leaf in leaves.items()]

    def apart(
        self,
        values: Mapping[str, Tensor],
        names: Collection[str],
        inputs: Any,
        *,
        twice: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the outputs as a function of a leaf for each use of some parameters, and these.

        On a CPU rows of a table that are looked up have sparse gradients, which differentiate once.

        Args:
            values: θ by name.
            names: Those to differentiate in.
            inputs: x of a batch.
            twice: Whether by operations that can be differentiated twice.
        """
        uses = ((use, name) for use, name in self.uses.items() if name in names)
        leaves = {use: values[name].detach().requires_grad_() for use, name in uses}
        device = next(iter(values.values())).device
        with self.lock, sparse_lookups(self.model, leaves, device):
            return self({**values, **leaves}, inputs, twice=twice), leaves

    def narrowed(self, params: Tensor, names: Collection[str]) -> FunctionalModule:
        """Return the module as a function of some of its selected parameters, the others at θ.

        Args:
            params: θ, [p].
            names: Those that stay selected.
        """
        pieces = self.split(params.detach())
        fixed = {name: piece for name, piece in pieces.items() if name not in names}
        return FunctionalModule(
            model=self.model,
            shapes={name: shape for name, shape in self.shapes.items() if name in names},
            constants={**self.constants, **fixed},
            lock=self.lock,
            notes=self.notes,
        )

    def filled(self, params: Tensor) -> nn.Module:
        """Return a module of the user's class that holds the values of the selected parameters.

        Args:
            params: θ, [p].
        """
        values = {**self.constants, **self.split(params.detach())}
        with self.lock:
            named = dict(self.model.named_parameters())
            memo: dict[int, Any] = {
                id(named[name]): nn.Parameter(value.clone(), requires_grad=name in self.shapes)
                for name, value in values.items()
            }
            copied = copy.deepcopy(self.model, memo)
        rebind(copied, memo)
        return copied


def functional(
    model: nn.Module, params: Selection | None = None, dtype: torch.dtype | None = None
) -> tuple[FunctionalModule, Tensor]:
    """Return a module as a function of its parameters, and their values.

    Args:
        model: Any module; it is copied, except for the values of the selected parameters.
        params: Names of the selected parameters, or a function (name, parameter) -> bool; all that
            require a gradient if `None`.
        dtype: What all floating-point values are converted to; as they are if `None`, with float32
            in place of bfloat16 and float16.

    Returns:
        The function, and θ flat, [p].

    Raises:
        IncompleteCoverage: If a selected parameter does not exist or is not floating-point.
        InvalidInput: If parameters have no values, or values that are not finite.
        UnsupportedModel: If the module cannot be copied.
    """
    kinds = {type(module) for module in model.modules()}
    if kinds & {nn.DataParallel, nn.parallel.DistributedDataParallel}:
        raise UnsupportedModel(
            "Expected the module itself. Got DataParallel, which divides its batches among "
            "devices. Pass model.module."
        )
    selected = _selected(model, params)
    own = next(iter(selected.values())).dtype
    chosen = dtype or (torch.float32 if own in _HALF_PRECISION else own)
    flat = torch.cat([parameter.detach().flatten() for parameter in selected.values()]).to(chosen)
    if not torch.isfinite(flat.sum()) and not torch.isfinite(flat).all():
        raise InvalidInput("Expected finite parameters. Got NaN or infinity: the training failed.")
    unknown = torch.full((), torch.nan, dtype=chosen, device=flat.device)
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(unknown.expand(parameter.shape), requires_grad=False)
        for parameter in selected.values()
    }
    try:
        copied: nn.Module = copy.deepcopy(model, memo)
        copied.requires_grad_(False)
    except (RuntimeError, TypeError) as error:
        raise UnsupportedModel(
            f"Expected a module that copy.deepcopy copies. Got one of which it says: {error}. "
            "Detach the tensors that it stores; remove hooks such as torch.nn.utils.weight_norm; "
            "pass the module itself, not what torch.jit made of it."
        ) from error
    rebind(copied, memo)
    by_layers(copied)
    as_trained(copied)
    if chosen != own:
        copied.to(chosen)
    for module in copied.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.sparse = False  # dense gradients have the same values
    shapes = {name: parameter.shape for name, parameter in selected.items()}
    notes = []
    if dtype is None and chosen != own:
        notes.append(
            f"The parameters came in {own}; outputs, gradients and curvature are computed in "
            f"{chosen} from the same values."
        )
    return FunctionalModule(model=copied, shapes=shapes, notes=tuple(notes)), flat


@singledispatch
def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a module is called with: one argument, several, or several by name."""
    return (inputs,), {}


@_arguments.register(tuple)
@_arguments.register(list)
def _by_position(inputs: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(inputs), {}


@_arguments.register
def _by_name(inputs: Mapping) -> tuple[tuple[Any, ...], dict[str, Any]]:  # type: ignore[type-arg]
    return (), dict(inputs)


def _selected(model: nn.Module, params: Selection | None) -> dict[str, nn.Parameter]:
    """Return the selected parameters in the model's order, or say what is wrong with them."""
    lazy = [name for name, p in model.named_parameters() if is_lazy(p)]
    if lazy:
        raise InvalidInput(
            f"Expected parameters with values. Got {lazy[0]!r} of a lazy module, which gets its "
            "shape at the first call. Call the model on a batch first."
        )
    named = dict(model.named_parameters())
    if params is None:
        chosen = {name for name, parameter in named.items() if parameter.requires_grad}
    elif callable(params):
        chosen = {name for name, parameter in named.items() if params(name, parameter)}
    else:
        chosen = _named(model, [params] if isinstance(params, str) else list(params))
    if not chosen:
        raise IncompleteCoverage(
            "Expected at least one selected parameter. Got none. Pass params= that matches some, "
            "or set requires_grad: trainable are those with requires_grad=True."
        )
    selected = {name: parameter for name, parameter in named.items() if name in chosen}
    for name, parameter in selected.items():
        if not parameter.is_floating_point():
            raise IncompleteCoverage(
                f"Expected floating-point parameters. Got {name!r} of {parameter.dtype}. "
                "Dequantize it, or leave it out with params=."
            )
    devices = {str(parameter.device) for parameter in named.values()}
    if len(devices) > 1 or "meta" in devices:
        raise InvalidInput(
            f"Expected all parameters on one device, with values. Got {', '.join(sorted(devices))}."
            " Move the model with .to(device); the data follow it."
        )
    if len({parameter.dtype for parameter in selected.values()}) > 1:
        raise InvalidInput(
            "Expected one dtype for all selected parameters. Got several. Convert the model, for "
            "example with .float(), or select fewer with params=."
        )
    return selected


def _named(model: nn.Module, wanted: list[str]) -> set[str]:
    """Return the model's own names of the parameters with some names, of which tied ones have two.

    Args:
        model: The module.
        wanted: Names as the user knows them.
    """
    aliases = dict(model.named_parameters(remove_duplicate=False))
    unknown = [name for name in wanted if name not in aliases]
    if unknown:
        raise IncompleteCoverage(
            f"Expected names of parameters. Got {unknown[0]!r}, which the model does not have; it "
            f"has {', '.join(list(aliases)[:8])}, ..."
        )
    asked = {id(aliases[name]) for name in wanted}
    return {name for name, parameter in model.named_parameters() if id(parameter) in asked}
