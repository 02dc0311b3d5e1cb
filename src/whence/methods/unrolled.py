r"""Differentiation through a training, cut into segments of constant curvature.

Gradient descent for K steps of rate η on a quadratic of curvature H is, for small η H, the flow of
duration τ = η K: what entered before it is multiplied by S = exp(−τ H), and a gradient gᵢ that acts
throughout moves the end by −F gᵢ, F = (I − exp(−τ H)) H⁻¹. So the change at the end of L segments
when example i takes no part is

```
Δθ_T = (wᵢ/n) Σ_l S_L ⋯ S_{l+1} F_l gᵢ(θ_l)
```

Both are functions of one symmetric H, and it is the query's gradient that they are applied to, from
right to left: one block of columns for all training examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.checked import checked, written
from whence.curvature.exact import GGN
from whence.curvature.kronecker import EKFAC
from whence.errors import InvalidInput, UnsupportedModel
from whence.linalg.spectral import Spectral
from whence.methods.attribution import Attribution
from whence.methods.metagradient import recorded_run
from whence.methods.method import Method
from whence.methods.prediction import Indices, MeasureLike
from whence.methods.subsets import Positions
from whence.network.objective import ModuleObjective
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.trained import Data, Examples, Trained
from whence.progress import progress
from whence.scores import Diagnostics, Scores
from whence.training.run import Run


def ekfac(objective: ModuleObjective) -> Spectral:
    """Return the EKFAC approximation of the curvature, with no rounding to bfloat16.

    Args:
        objective: R at θ_l.

    Returns:
        The curvature, [p, p], penalty included.
    """
    return EKFAC(rtol=1e-6).approximate(GGN(objective)).operator


@final
@checked
@dataclass(frozen=True, kw_only=True)
class Unrolled(Method):
    r"""Score training examples by segments of a recorded training (SOURCE).

    score[q, i] = (wᵢ/n) ∇m_q(θ_T)ᵀ Σ_l S_L ⋯ S_{l+1} F_l gᵢ(θ_l).

    Args:
        segments: L >= 1, stretches of as many steps each; at most as many as recorded states.
        curvature: From the objective at θ_l to H_l as an operator that knows its spectrum; EKFAC
            by default.

    Cost:
        Per segment one EKFAC, once; then one product of the training gradients with [p, q].

    References:
        Bae et al. (2024), section 3.

    Examples:
        >>> import torch, whence
        >>> data = torch.randn(50, 4), torch.arange(50) % 3
        >>> recipe = whence.Recipe(learning_rate=0.1, batch_size=10, epochs=6, momentum=0.9)
        >>> run = whence.train(torch.nn.Linear(4, 3), whence.CrossEntropy(), data, recipe)
        >>> whence.Unrolled(segments=2).fit(run).scores(data).values.shape
        (50, 50)
    """

    segments: int = 3
    curvature: Callable[[ModuleObjective], Spectral] = ekfac

    def __repr__(self) -> str:
        """Return the options, a function by its name."""
        return written(self)

    def attribution(self, trained: Trained) -> Attribution:
        """Return the segments of a training, each with its curvature."""
        run = recorded_run(trained, "whence.Unrolled")
        return _InSegments(run, self._segments(run))

    def _segments(self, run: Run) -> tuple[Segment, ...]:
        """Return the segments of a training, each with its curvature."""
        recipe = run.recipe
        if recipe.optimizer != "sgd" or recipe.clip_norm is not None:
            raise UnsupportedModel(
                "Expected a training by SGD without clipping, whose steps are the learning rate "
                f"times the gradient. Got optimizer={recipe.optimizer!r}, "
                f"clip_norm={recipe.clip_norm}. Use whence.metagradient, which differentiates the "
                "steps as they were."
            )
        recorded = [start for start, _ in run.segments()]
        if not 1 <= self.segments <= len(recorded):
            raise InvalidInput(
                f"Expected 1 to {len(recorded)} segments, as many as recorded states. "
                f"Got {self.segments}."
            )
        groups = [group.tolist() for group in np.array_split(np.array(recorded), self.segments)]
        ends = [group[0] for group in groups[1:]] + [run.steps]
        segments = []
        for group, end in zip(groups, ends, strict=True):
            objective = run.objective().at(_mean_params(run, group))
            duration = sum(run.rates[group[0] : end]) / (1 - recipe.momentum)
            curvature = self.curvature(objective)
            segments.append(Segment(objective=objective, curvature=curvature, duration=duration))
        return tuple(segments)


@final
@dataclass(frozen=True, eq=False)
class _InSegments(Attribution):
    """A training as segments of constant curvature.

    Args:
        trained: The training.
        segments: The segments, in the order of the training.
    """

    trained: Run
    segments: tuple[Segment, ...]

    @property
    def words(self) -> str:
        """How many segments, and how long they are."""
        count = len(self.segments)
        durations = ", ".join(f"{segment.duration:.3g}" for segment in self.segments)
        return (
            f"unrolled in {count} segment{'s' if count > 1 else ''} of {self.trained.steps} steps "
            f"(Bae et al. 2024), durations {durations}"
        )

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the changes at the end of the training, [q, k]."""
        run = self.trained
        cotangents = run.objective().gradient_columns(queries, measure)
        values = unroll(self.segments, cotangents) * (run.weights / len(run.weights))
        return values[:, where], Diagnostics(notes=run.notes)


@checked
def unrolled(
    run: Trained,
    queries: Data,
    *,
    segments: int = 3,
    measure: MeasureLike = "loss",
    indices: Indices | None = None,
    curvature: Callable[[ModuleObjective], Spectral] = ekfac,
) -> Scores:
    r"""Score training examples by segments of a recorded training, without replaying its steps.

    score[q, i] = (wᵢ/n) ∇m_q(θ_T)ᵀ Σ_l S_L ⋯ S_{l+1} F_l gᵢ(θ_l), S_l = exp(−τ_l H_l) and
    F_l = (I − S_l) H_l⁻¹, with θ_l the mean of the recorded parameters of segment l, H_l the
    curvature there (weight decay included) and τ_l the sum of its learning rates over 1 − momentum.
    No damping: the duration takes its place, since F_l is at most τ_l.

    Args:
        run: A training recorded by `whence.train` with SGD.
        queries: (x, y) of q queries, or of one.
        segments: L >= 1, stretches of as many steps each; at most as many as recorded states.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        indices: Positions of the candidates in the training data; all n if `None`.
        curvature: From the objective at θ_l to H_l as an operator that knows its spectrum; EKFAC by
            default.

    Returns:
        Scores with values [q, k]: a predicted change of the measure on removal, 1/n included.

    Raises:
        InvalidInput: If queries or segments do not fit the run.
        UnsupportedModel: If the optimizer is not SGD, or gradients were clipped.
        CorruptFile: If a recorded state cannot be read.

    Cost:
        Per segment one EKFAC and one product of the training gradients with [p, q].

    References:
        Bae et al. (2024), "Training Data Attribution via Approximate Unrolled Differentiation",
        section 3; the mean of the parameters for that of gradients and curvature is its section
        on a faster form (FAST-SOURCE).

    Examples:
        >>> import torch, whence
        >>> data = torch.randn(50, 4), torch.arange(50) % 3
        >>> recipe = whence.Recipe(learning_rate=0.1, batch_size=10, epochs=6, momentum=0.9)
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(),
        ...                           torch.nn.Linear(8, 3))
        >>> run = whence.train(net, whence.CrossEntropy(), data, recipe)
        >>> whence.unrolled(run, (data[0][:2], data[1][:2])).values.shape
        (2, 50)
    """
    method = Unrolled(segments=segments, curvature=curvature)
    return method.fit(run).scores(queries, measure=measure, indices=indices)


def _mean_params(run: Run, steps: list[int]) -> Tensor:
    """Return the mean of the parameters before some recorded steps, [p]."""
    total = torch.zeros_like(run.params)
    for step in steps:
        total += run.checkpoints.read(step)[0][0]
    return total / len(steps)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """A stretch of a training.

    Args:
        objective: R at the parameters θ_l that stand for the segment.
        curvature: H_l, penalty included, by its spectrum.
        duration: τ_l, the sum of the learning rates of its steps, momentum counted in.
    """

    objective: Objective
    curvature: Spectral
    duration: float


def unroll(segments: Sequence[Segment], cotangents: Tensor) -> Tensor:
    """Return Σ_l (S_L ⋯ S_{l+1} v)ᵀ F_l gᵢ(θ_l) for gradients v at the end of the training.

    Args:
        segments: The L segments, in the order of the training.
        cotangents: V, a measure per column, [p, q].

    Returns:
        The sums, [q, n]; times wᵢ/n they are the changes of the measures on removal.
    """
    total = cotangents.new_zeros(cotangents.shape[1], len(segments[0].objective.train))
    for segment in progress(segments[::-1], desc="unrolling"):
        objective = segment.objective
        acting = segment.curvature.map_spectrum(partial(_acting, segment.duration))
        products = objective.gradient_dot(
            objective.train, objective.loss, acting.matmat(cotangents)
        )
        total += products.T
        lasting = segment.curvature.map_spectrum(partial(_lasting, segment.duration))
        cotangents = lasting.matmat(cotangents)
    return total


def _lasting(duration: float, x: Tensor) -> Tensor:
    """Return exp(−τ x)."""
    return torch.exp(-duration * x)


def _acting(duration: float, x: Tensor) -> Tensor:
    """Return (1 − exp(−τ x))/x, which is τ at zero."""
    return torch.where(x == 0, duration, -torch.expm1(-duration * x) / x)
