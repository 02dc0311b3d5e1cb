"""The random subspace of projected gradients: its projection, and the training examples in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor

from whence.errors import UnsupportedModel
from whence.methods.features import Damped, blockwise, of_rows
from whence.methods.prediction import MeasureLike, measure_name
from whence.methods.projections import Factored, Unprojected, Whole, layerwise
from whence.objective.losses import measure_of
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.trained import Examples

Projection = Literal["factored", "dense"]
Features: TypeAlias = Whole | Factored | Unprojected

_AGREEMENT = 1e-3  # in float32; a loss is a function of f or far from it


@final
@dataclass(frozen=True)
class Plan:
    """What is projected, and how.

    Args:
        output: f.
        projection: "factored" or "dense".
        size: Numbers per side, or of the whole.
        seed: Of P.
        rtol: The relative error that scores may have beside that of P.
    """

    output: MeasureLike
    projection: Projection
    size: int
    seed: int
    rtol: float

    def features(self, objective: Objective) -> Features:
        """Return P of an objective, in the precision of its passes."""
        # Neither the training gradients nor those of the queries are exact then.
        seen = objective.within(self.rtol / 2)
        if self.projection == "dense":
            return Whole(seen, self.size, self.seed)
        return layerwise(seen, self.size, self.seed)

    def project(self, objective: Objective) -> Subspace:
        """Return the projected gradients of the output function at the training examples."""
        function = measure_of(objective.loss, self.output)
        slopes = slopes_of(objective, function, objective.train)
        features = self.features(objective)
        rows = features(objective.train, function)
        return Subspace(project=features, rows=rows, slopes=slopes)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Subspace:
    """The projected gradients of a model's training examples.

    Args:
        project: P, from examples and a measure to projected gradients [b, d].
        rows: φᵢ, [n, d].
        slopes: ∂ℓ/∂f of each training example, [n], so that P gᵢ = slopeᵢ φᵢ.
    """

    project: Features
    rows: Tensor
    slopes: Tensor

    def inverse(
        self, groups: Sequence[slice], weights: Tensor, damping: float | None, penalty: float
    ) -> Damped:
        """Return (K + (l2 + λ) I)⁻¹, of which the groups of columns are the diagonal blocks.

        Without groups nothing is inverted.
        """
        if not groups:
            return Damped(lambda columns: columns, 0.0)
        moments = [of_rows(self.rows[:, where], weights, damping, penalty) for where in groups]
        return blockwise(groups, moments)


def slopes_of(objective: Objective, function: Measure, examples: Examples) -> Tensor:
    """Return ∂ℓ/∂f where the loss is a function of f.

    Args:
        objective: R at θ̂.
        function: f.
        examples: b examples.

    Returns:
        The derivatives, [b].

    Raises:
        UnsupportedModel: If the loss is not a function of f.
    """
    if function == objective.loss:
        return objective.params.new_ones(len(examples))
    outputs = objective.outputs(examples)
    of_loss = objective.loss.gradient(outputs, examples.targets).flatten(1)
    of_output = function.gradient(outputs, examples.targets).flatten(1)
    squares = of_output.square().sum(1)
    slopes = (of_loss * of_output).sum(1) / squares.clamp_min(torch.finfo(squares.dtype).tiny)
    gap = (of_loss - slopes.unsqueeze(1) * of_output).norm()
    if not float(gap) <= _AGREEMENT * float(of_loss.norm()):
        raise UnsupportedModel(
            "Expected an output function that decides the loss, as the margin of one prediction "
            f"does. Got {measure_name(function)}, whose gradients leave {float(gap):.1e} of the "
            "loss's. For sequences and several outputs leave output='loss'."
        )
    return slopes
