r"""A training run as a function: the model, loss and data that its steps differentiate.

θ is one flat vector [p] of the model's trainable parameters. A step takes the batch loss
L(θ, w) = (1/b) Σ wᵢ ℓᵢ(θ), whose divisor is the batch size, not the sum of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import groupby, islice
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad, grad_and_value, vjp, vmap
from torch.utils._pytree import tree_leaves, tree_structure, tree_unflatten

from whence.errors import InvalidInput
from whence.network.checks import (
    check_accepted,
    check_losses,
    check_repeatable,
    refuse_random_modules,
)
from whence.network.examples import Encoder, ModuleExamples
from whence.network.links import linked
from whence.network.module import FunctionalModule, functional
from whence.network.transformers import Logits, Rows, task_of
from whence.objective.derived_losses import CallableLoss
from whence.objective.losses import Loss
from whence.objective.measures import OutputFunction
from whence.storage import digest
from whence.training.tracing import Traced

# Different numbers of examples to which batches of one size, less those left out, are rounded up.
_SHAPES = 16
_AHEAD = 256  # batches that are sorted at a time


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Program:
    """The loss of a training step as a function of θ and w, with its derivatives.

    Attributes:
        module: The user's module as a function of its trainable parameters, in the dtype of the
            training.
        start: θ before the first step, [p].
        loss: ℓ.
        train: The training examples.
        encoder: Reads a user's data.
        notes: What a reader of results must know, a sentence each.
    """

    module: FunctionalModule
    start: Tensor
    loss: Loss
    train: ModuleExamples
    encoder: Encoder
    notes: tuple[str, ...] = ()
    _gradient: Traced = field(init=False, repr=False)
    _gradients: Traced = field(init=False, repr=False)
    _pullback: Traced = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Bind the transformed functions."""
        object.__setattr__(self, "_gradient", Traced(self._plain_gradient))
        object.__setattr__(self, "_gradients", Traced(self._plain_gradients))
        object.__setattr__(self, "_pullback", Traced(self._plain_pullback))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the constructor arguments: transformed functions cannot be pickled."""
        given = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return partial(Program, **given), ()

    def identity(self) -> dict[str, str]:
        """Return digests of architecture, starting point, data and loss, by name."""
        module, inputs = self.module, self.train.inputs
        held = dict(module.model.named_parameters())
        fixed = [value for name, value in held.items() if name not in module.shapes]
        shapes = [(name, list(shape)) for name, shape in module.shapes.items()]
        return {
            "architecture": f"{module.model!r} {shapes}",
            "start": digest(self.start, *fixed, *module.model.buffers()),
            "data": digest(*tree_leaves(inputs), self.train.targets, str(tree_structure(inputs))),
            "loss": _name(self.loss),
        }

    def parameters(self) -> Tensor:
        """Return the parameters that the model starts from, [p]."""
        return self.start

    def named(self, params: Tensor) -> dict[str, Tensor]:
        """Return θ [p] cut into the parameters of the model."""
        return self.module.split(params)

    def examples(self, data: Any) -> ModuleExamples:
        """Check and encode a user's queries."""
        if isinstance(data, ModuleExamples):
            return data
        found = self.encoder(data, self.train)
        check_accepted(lambda x: self.outputs(self.start, x), found, self.train)
        return found

    def check_targets(self, examples: ModuleExamples) -> None:
        """Raise `InvalidInput` unless the targets of queries fit the loss; one row tells."""
        with torch.no_grad():
            one = self.outputs(self.start, examples.subset(np.arange(1)).inputs)
        self.loss.check_targets(one.expand(len(examples), *one.shape[1:]), examples.targets)

    def outputs(self, params: Tensor, inputs: Any, *, twice: bool = False) -> Tensor:
        """Return f_θ(x), [b, c], to be differentiated once or twice."""
        return self.module(self.named(params), inputs, twice=twice)

    def losses(self, params: Tensor, inputs: Any, targets: Tensor) -> Tensor:
        """Return ℓ of each example, [b]."""
        return self.loss(self.outputs(params, inputs), targets)

    def gradient(self, params: Tensor, batch: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return ∇L(θ, w) [p] and L, for the examples at positions `batch` [b]."""
        pieces = list(self.named(params.detach()).values())
        ((rows, scaled),) = _counted(batch[None], weights[None])
        gradient, value = self.gradient_by_parameter(pieces, rows, scaled)
        return torch.cat([piece.flatten() for piece in gradient]), value

    def gradient_by_parameter(
        self, params: Sequence[Tensor], rows: Tensor, scaled: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Return ∇L(θ, w) and L, with θ and its gradient cut into the model's parameters.

        Args:
            params: θ, in the order of `module.shapes`.
            rows: Positions of the examples that count, as `counted` gives them.
            scaled: wᵢ/b of each.
        """
        *gradient, value = self._gradient(*params, scaled, *self._batch(rows))
        return gradient, value

    def gradients(self, params: Tensor, batch: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return ∇L [k, p] and L [k] of k trainings, for params [k, p] and weights [k, b]."""
        gradients, values = self._gradients(params, weights, *self._batch(batch))
        return gradients, values

    def pullback(
        self, params: Tensor, batch: Tensor, weights: Tensor, cotangents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the vector-Jacobian products of g = ∇L(θ, w) in θ and in w.

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
        of_params, of_weights = self._pullback(params, weights, cotangents, *self._batch(batch))
        return of_params, of_weights

    def _batch(self, rows: Tensor) -> list[Tensor]:
        """Return the targets and the tensors of the inputs of some training examples."""
        parts = [self.train.targets, *tree_leaves(self.train.inputs)]
        return [part.index_select(0, rows) for part in parts]

    def _losses(
        self, parameters: Mapping[str, Tensor], batch: Sequence[Tensor], *, twice: bool
    ) -> Tensor:
        """Return ℓ of each example of a batch, to be differentiated once or twice."""
        targets, *leaves = batch
        inputs = tree_unflatten(leaves, tree_structure(self.train.inputs))
        return self.loss(self.module(parameters, inputs, twice=twice), targets)

    def _mean(self, params: Tensor, weights: Tensor, *batch: Tensor) -> Tensor:
        """Return L(θ, w)."""
        losses = self._losses(self.named(params), batch, twice=True)
        return (weights * losses).sum() / len(losses)

    def _plain_gradient(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return ∇ Σ wᵢ ℓᵢ by parameter, and the sum last; here the weights hold the divisor."""
        count = len(self.module.shapes)
        params, weights, batch = tensors[:count], tensors[count], tensors[count + 1 :]
        with torch.enable_grad():
            leaves = [piece.detach().requires_grad_() for piece in params]
            named = dict(zip(self.module.shapes, leaves, strict=True))
            value = (weights * self._losses(named, batch, twice=False)).sum()
            gradient = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
        return *gradient, value.detach()

    def _plain_gradients(
        self, params: Tensor, weights: Tensor, *batch: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients and values of several trainings on one batch."""
        dims = (0, 0, *[None] * len(batch))
        found: tuple[Tensor, Tensor] = vmap(grad_and_value(self._mean), in_dims=dims)(
            params, weights, *batch
        )
        return found

    def _plain_pullback(
        self, params: Tensor, weights: Tensor, cotangents: Tensor, *batch: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Differentiate the gradient once more in reverse, all cotangents together."""

        def gradient(params: Tensor, weights: Tensor) -> Tensor:
            return grad(self._mean)(params, weights, *batch)  # type: ignore[no-any-return]

        transpose = vjp(gradient, params, weights)[1]
        of_params, of_weights = vmap(transpose)(cotangents)
        return of_params, of_weights


def _name(loss: Any) -> str:
    """Return a name of a loss without memory addresses: the same in every process."""
    inner = getattr(loss, "function", None)
    if inner is not None:
        return f"{type(loss).__name__} of {_name(inner)}"
    return getattr(loss, "__qualname__", None) or repr(loss)


def counted(batches: Sequence[Tensor], weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the examples of each batch that count, and their wᵢ/b; the others are not computed.

    Their number is rounded up to a multiple of a sixteenth of the batch, so that few shapes occur
    and the FX trace of each is used often. The fill is the first of them, with weight zero: an
    example left out might have an infinite loss.

    Args:
        batches: Positions of the examples of each step, T tensors [b].
        weights: wᵢ, [n].
    """
    for _, same in groupby(batches, len):
        while some := list(islice(same, _AHEAD)):
            rows = torch.stack(some)
            yield from _counted(rows, weights[rows])


def _counted(rows: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what `counted` does, for batches [t, b] of one size and their weights."""
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
    model: nn.Module, loss: Loss | OutputFunction, dataset: Any, dtype: torch.dtype | None
) -> Program:
    """Check that a training can be repeated exactly, and bind its parts.

    Args:
        model: A module in the mode in which it is to be trained.
        loss: A `Loss`, or a function of (outputs, targets) giving one loss per example.
        dataset: Training data in any form that `Encoder` reads.
        dtype: Of parameters and of floating-point data; the model's own if `None`.

    Returns:
        The program.

    Raises:
        InvalidInput: If data and model do not fit each other.
        NotDeterministic: If the model or the data set answers differently when asked twice.
        UnsupportedModel: If the outputs or the loss of an example depend on the rest of its batch.
    """
    refuse_random_modules(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InvalidInput(
            "Expected a model with trainable parameters. Got none with requires_grad=True."
        )
    task = task_of(model)
    rows = None if task is None else Rows.of(model, task)
    module, start = functional(model if task is None else Logits(model, task), dtype=dtype)
    encoder = Encoder(dtype=start.dtype, device=start.device, rows=rows)
    program = Program(
        module=module,
        start=start,
        loss=loss if isinstance(loss, Loss) else CallableLoss(loss),
        train=encoder(dataset),
        encoder=encoder,
    )
    few = program.train.subset(np.arange(min(8, len(program.train))))
    outputs = check_repeatable(lambda x: program.outputs(start, x), few.inputs)
    check_losses(program.loss, outputs, program.train)
    found, notes = linked(program.loss, outputs, program.train.targets)
    return replace(program, loss=found, notes=(*module.notes, *notes))
