r"""A training run as a function: the model, loss and data that its steps differentiate.

θ is one flat vector [p] of the model's trainable parameters. A step sees the batch loss
L(θ, w) = (1/b) Σ wᵢ ℓᵢ(θ), whose divisor is the batch size, not the sum of the weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import groupby, islice
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vjp, vmap
from torch.utils.data import Dataset, default_collate

from whence.errors import InvalidInput, NotDeterministic, UnsupportedModel
from whence.network.checks import check_repeatable, refuse_random_modules
from whence.objective.derived_losses import CallableLoss
from whence.objective.losses import Loss
from whence.objective.measures import OutputFunction
from whence.training.tracing import Traced

# Different numbers of examples to which batches of one size, less those left out, are rounded up.
_SHAPES = 16
_AHEAD = 256  # batches that are sorted at a time


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Program:
    """What the steps of a training differentiate.

    Attributes:
        model: A copy of the user's module, in the dtype of the recipe; never trained in place.
        loss: ℓ.
        inputs: x of the training examples, [n, ...].
        targets: y of the training examples, [n] or [n, ...].
        shapes: Name and shape of each trainable parameter, in the order of θ.
    """

    model: nn.Module
    loss: Loss
    inputs: Tensor
    targets: Tensor
    shapes: tuple[tuple[str, torch.Size], ...]
    _gradient: Traced = field(init=False, repr=False)
    _gradients: Traced = field(init=False, repr=False)
    _pullback: Traced = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Bind the transformed functions."""
        batched = vmap(grad_and_value(self._mean), in_dims=(0, None, None, 0))
        object.__setattr__(self, "_gradient", Traced(self._plain_gradient))
        object.__setattr__(self, "_gradients", Traced(batched))
        object.__setattr__(self, "_pullback", Traced(self._plain_pullback))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made of: the transformed functions cannot be."""
        given = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return partial(Program, **given), ()

    def parameters(self) -> Tensor:
        """Return the parameters that the model starts from, [p]."""
        parameters = dict(self.model.named_parameters())
        return torch.cat([parameters[name].detach().flatten() for name, _ in self.shapes])

    def named(self, params: Tensor) -> dict[str, Tensor]:
        """Return θ [p] cut into the parameters of the model."""
        pieces = torch.split(params, [shape.numel() for _, shape in self.shapes])
        return {
            name: piece.view(shape)
            for (name, shape), piece in zip(self.shapes, pieces, strict=True)
        }

    def outputs(self, params: Tensor, inputs: Tensor) -> Tensor:
        """Return f_θ(x), [b, c]."""
        value = functional_call(self.model, self.named(params), (inputs,))
        if not isinstance(value, Tensor):
            raise UnsupportedModel(
                f"Expected a model that returns one tensor. Got {type(value).__name__}. "
                "Wrap it in a module that returns the logits."
            )
        return value

    def losses(self, params: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ of each example, [b]."""
        return self.loss(self.outputs(params, inputs), targets)

    def gradient(self, params: Tensor, batch: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return ∇L(θ, w) [p] and L, for the examples at positions `batch` [b]."""
        pieces = list(self.named(params.detach()).values())
        ((rows, scaled),) = _kept(batch[None], weights[None])
        gradient, value = self.gradient_by_parameter(pieces, rows, scaled)
        return torch.cat([piece.flatten() for piece in gradient]), value

    def gradient_by_parameter(
        self, params: Sequence[Tensor], rows: Tensor, scaled: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Return ∇L(θ, w) and L, with θ and its gradient cut into the model's parameters.

        Args:
            params: θ, in the order of `shapes`.
            rows: Positions of the examples that count, as `kept` gives them.
            scaled: wᵢ/b of each.
        """
        inputs, targets = self.inputs.index_select(0, rows), self.targets.index_select(0, rows)
        *gradient, value = self._gradient(*params, inputs, targets, scaled)
        return gradient, value

    def gradients(self, params: Tensor, batch: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return ∇L [k, p] and L [k] of k trainings, for params [k, p] and weights [k, b]."""
        gradients, values = self._gradients(
            params, self.inputs[batch], self.targets[batch], weights
        )
        return gradients, values

    def pullback(
        self, params: Tensor, batch: Tensor, weights: Tensor, cotangents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what g = ∇L(θ, w) passes back to θ and to w.

        Args:
            params: θ, [p].
            batch: Positions of the examples, [b].
            weights: Their weights, [b].
            cotangents: V, cotangents of g as rows, [k, p].

        Returns:
            ∇²L V, [k, p], and ∂(gᵀV)/∂wᵢ = ∇ℓᵢᵀV/b, [k, b].

        Cost:
            One forward and one backward pass, shared, and about four passes per row.
        """
        of_params, of_weights = self._pullback(
            params, self.inputs[batch], self.targets[batch], weights, cotangents
        )
        return of_params, of_weights

    def _mean(self, params: Tensor, inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Return L(θ, w)."""
        losses = self.losses(params, inputs, targets)
        return (weights * losses).sum() / len(losses)

    def _plain_gradient(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return ∇ Σ wᵢ ℓᵢ by parameter, and the sum last; here the weights hold the divisor."""
        *params, inputs, targets, weights = tensors
        with torch.enable_grad():
            leaves = [piece.detach().requires_grad_() for piece in params]
            named = {name: leaf for (name, _), leaf in zip(self.shapes, leaves, strict=True)}
            outputs = functional_call(self.model, named, (inputs,))
            value = (weights * self.loss(outputs, targets)).sum()
            gradient = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
        return *gradient, value.detach()

    def _plain_pullback(
        self, params: Tensor, inputs: Tensor, targets: Tensor, weights: Tensor, cotangents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Differentiate the gradient once more in reverse, all cotangents together."""

        def gradient(params: Tensor, weights: Tensor) -> Tensor:
            return grad(self._mean)(params, inputs, targets, weights)  # type: ignore[no-any-return]

        pull = vjp(gradient, params, weights)[1]
        of_params, of_weights = vmap(pull)(cotangents)
        return of_params, of_weights


def kept(batches: Sequence[Tensor], weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the examples of each batch that count, and their wᵢ/b; the others are not computed.

    Their number is rounded up to a multiple of a sixteenth of the batch, so that few shapes occur
    and the recording of each is used often. The fill is the first of them, with weight zero: an
    example left out might have an infinite loss.

    Args:
        batches: Positions of the examples of each step, T tensors [b].
        weights: wᵢ, [n].
    """
    for _, same in groupby(batches, len):
        while some := list(islice(same, _AHEAD)):
            rows = torch.stack(some)
            yield from _kept(rows, weights[rows])


def _kept(rows: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what `kept` does, for batches [t, b] of one size and their weights."""
    size = rows.shape[1]
    zero = weights == 0
    weights = weights / size
    order = zero.to(torch.uint8).argsort(dim=1, stable=True)
    first = rows.gather(1, order[:, :1])
    rows = torch.where(zero, first, rows)
    few, own = rows.gather(1, order), weights.gather(1, order)
    unit = math.ceil(size / _SHAPES)
    for step, left in enumerate(zero.sum(1).tolist()):
        room = max(math.ceil((size - left) / unit), 1) * unit
        if room < size:
            yield few[step, :room], own[step, :room]
        else:
            # In the order of all, so that a training without one example is rounded as with it.
            yield rows[step], weights[step]


def prepare(
    model: nn.Module, loss: Loss | OutputFunction, dataset: Any, dtype: torch.dtype
) -> Program:
    """Check that a training can be repeated exactly, and bind its parts.

    Args:
        model: A module in the mode in which it is to be trained.
        loss: A `Loss`, or a function of (outputs, targets) giving one loss per example.
        dataset: (x, y), or a map-style `torch.utils.data.Dataset` of such pairs.
        dtype: Of parameters and of floating-point data.

    Returns:
        The program.

    Raises:
        InvalidInput: If data and model do not fit each other.
        NotDeterministic: If the model or the data set answers differently when asked twice.
        UnsupportedModel: If the outputs of an example depend on the rest of its batch.
    """
    refuse_random_modules(model)
    bound = copy.deepcopy(model).to(dtype)
    shapes = tuple((name, p.shape) for name, p in bound.named_parameters() if p.requires_grad)
    if not shapes:
        raise InvalidInput(
            "Expected a model with trainable parameters. Got none with requires_grad=True."
        )
    device = next(bound.parameters()).device
    bound.requires_grad_(False)
    inputs, targets = (_cast(part, dtype, device) for part in _stacked(dataset))
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise InvalidInput(
            f"Expected as many targets as inputs, at least one. Got {len(inputs)} inputs and "
            f"{len(targets)} targets."
        )
    if not torch.isfinite(inputs).all():
        raise InvalidInput(
            "Expected finite inputs. Got NaN or infinity; impute or drop those rows."
        )
    program = Program(
        model=bound,
        loss=loss if isinstance(loss, Loss) else CallableLoss(loss),
        inputs=inputs,
        targets=targets,
        shapes=shapes,
    )
    _probe(program)
    return program


def queries_of(program: Program, queries: Any) -> tuple[Tensor, Tensor]:
    """Return a user's queries (x, y) as tensors that the program's model takes."""
    like = program.inputs
    inputs, targets = (_cast(part, like.dtype, like.device) for part in _stacked(queries))
    if inputs.shape[1:] != like.shape[1:] or len(inputs) != len(targets):
        raise InvalidInput(
            f"Expected queries (x, y) with x of shape [q, {', '.join(map(str, like.shape[1:]))}] "
            f"and q targets. Got x of shape {list(inputs.shape)} and {len(targets)} targets."
        )
    return inputs, targets


def check_targets(program: Program, params: Tensor, inputs: Tensor, targets: Tensor) -> None:
    """Raise `InvalidInput` unless all targets fit the loss and the shape of the outputs."""
    with torch.no_grad():
        one = program.outputs(params, inputs[:1])
    # Only the shape of the outputs counts, and one row tells it.
    program.loss.check_targets(one.expand(len(targets), *one.shape[1:]), targets)


def _stacked(dataset: Any) -> tuple[Any, Any]:
    """Return x and y of a data set whole."""
    if isinstance(dataset, tuple | list) and len(dataset) == 2:
        return dataset[0], dataset[1]
    if not isinstance(dataset, Dataset) or not isinstance(dataset, Sized):
        raise InvalidInput(
            "Expected (x, y) or a map-style torch Dataset of such pairs. "
            f"Got {type(dataset).__name__}."
        )
    columns = default_collate([dataset[i] for i in range(len(dataset))])
    again = default_collate([dataset[0]])
    if len(columns) != 2:
        raise InvalidInput(f"Expected a data set of pairs (x, y). Got items of {len(columns)}.")
    if not all(torch.equal(one[:1], two) for one, two in zip(columns, again, strict=True)):
        raise NotDeterministic(
            "Expected a data set that gives the same example when asked twice. Got two different "
            "ones for index 0. Remove random augmentation, or store its outcome."
        )
    return columns[0], columns[1]


def _cast(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor on the device, in the dtype if it is floating-point."""
    tensor = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    tensor = tensor.detach().to(device)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _probe(program: Program) -> None:
    """Raise if outputs change from call to call, or with the company in the batch."""
    inputs, params = program.inputs[:8], program.parameters()
    outputs = check_repeatable(lambda x: program.outputs(params, x), inputs)
    if len(outputs) != len(inputs):
        raise InvalidInput(
            f"Expected outputs of shape [{len(inputs)}, c]. Got {list(outputs.shape)}. "
            "Return one row per example, with c = 1 for a single output."
        )
    check_targets(program, params, program.inputs, program.targets)
