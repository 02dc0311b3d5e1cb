r"""Influence in a random subspace: gradients projected once, and cached.

With P a projection of gradients to d numbers, E PᵀP = I, and φᵢ = P ∇f(zᵢ) for an output f,

```
score[q, i] = (wᵢ/n) (P ∇m_q)ᵀ (K + λ I)⁻¹ (P gᵢ),    K = (1/n) Σ wᵢ φᵢ φᵢᵀ
```

f = ℓ makes K the projected empirical Fisher (LoGra); f = the margin, of which ℓ is a function so
that gᵢ = ∂ℓ/∂f φᵢ, makes it TRAK's. Layers multiply, so their gradients Σ_t δ_t a_tᵀ can be
projected before the product: (P_out δ_t)(P_in a_t)ᵀ; no gradient of an example is then ever formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from whence.checked import checked, written
from whence.errors import InvalidInput
from whence.linalg.solver import Solver
from whence.methods.attribution import Attribution
from whence.methods.directed import Directed
from whence.methods.feature_attribution import FeatureAttribution
from whence.methods.features import Block, Damped, FeatureMap, Side, places
from whence.methods.mapped import Mapped
from whence.methods.method import Method
from whence.methods.preconditioned import Preconditioned
from whence.methods.prediction import ORDERS, Indices, MeasureLike, measure_name
from whence.methods.subsets import Positions
from whence.methods.subspace import Features, Plan, Projection, Subspace, slopes_of
from whence.methods.tracin import points_of
from whence.objective.cache import cached
from whence.objective.losses import measure_of
from whence.objective.measures import Measure
from whence.objective.objective import Objective, objective_of
from whence.objective.trained import Data, Examples, Trained
from whence.scores import Diagnostics, Scores

Moment = Literal["joint", "layers", "none"]

_SIDE, _WHOLE = 16, 2048  # sizes unless given


@final
@checked
@dataclass(frozen=True, kw_only=True)
class Projected(Method):
    r"""Predict removals from randomly projected gradients: LoGra by default, TRAK with the margin.

    score[q, i] = (wᵢ/n) (P ∇m_q)ᵀ (K + λ I)⁻¹ (P gᵢ), K = (1/n) Σ wᵢ φᵢ φᵢᵀ with φᵢ = P ∇f(zᵢ).

    Args:
        output: f: "loss", "margin", or a function (outputs, targets) -> [b] of which the loss is a
            function.
        projection: "factored" or "dense".
        size: Per side 16 if `None`, or d = 2,048 for "dense".
        moment: "joint" inverts K whole, "layers" its diagonal blocks, "none" nothing.
        damping: λ >= 0; the mean eigenvalue tr(K)/d, of each block, if `None`.
        checkpoints: θ_t, each [p]; scores are averaged over them.
        seed: Of P.
        rtol: The relative error that scores may have beside that of P.
        solver: If given, what inverts the curvature of all parameters in place of K, such as
            `whence.EKFAC()`: (wᵢ/n) ⟨P H⁻¹ ∇m_q, P gᵢ⟩. Without `output`, `moment`, `checkpoints`.

    Raises:
        InvalidInput: If an option is out of range.

    Cost:
        As `whence.projected`, whose documentation has more on each option.

    References:
        Choe et al. (2024), section 3 (LoGra); Park et al. (2023), section 3 (TRAK).

    Examples:
        >>> import torch, whence
        >>> x, y = torch.randn(30, 4), torch.arange(30) % 3
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(),
        ...                             torch.nn.Linear(8, 3))
        >>> objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
        >>> trak = whence.Projected(output="margin", projection="dense")
        >>> trak.fit(objective).scores((x[:2], y[:2])).values.shape
        (2, 30)
    """

    output: MeasureLike = "loss"
    projection: Projection = "factored"
    size: int | None = None
    moment: Moment = "joint"
    damping: float | None = None
    checkpoints: Sequence[Tensor] | None = None
    seed: int = 0
    rtol: float = 2e-2
    solver: Solver | None = None

    def __post_init__(self) -> None:
        """Check the options, and make the checkpoints a tuple, which can be cached under."""
        if self.chosen_size < 1:
            raise InvalidInput(f"Expected size >= 1. Got size={self.chosen_size}.")
        if self.damping is not None and self.damping < 0:
            raise InvalidInput(f"Expected damping >= 0, or None. Got {self.damping}.")
        inverted = self.output != "loss" or self.moment != "joint" or self.checkpoints is not None
        if self.solver is not None and inverted:
            raise InvalidInput(
                "Expected solver=, or output=, moment= and checkpoints= of the second moment that "
                "it stands for. Got both. Leave one of them out."
            )
        if not 0 < self.rtol < 1:
            raise InvalidInput(f"Expected 0 < rtol < 1. Got {self.rtol}. The default is 2e-2.")
        if self.checkpoints is not None:
            object.__setattr__(self, "checkpoints", tuple(self.checkpoints))

    def __repr__(self) -> str:
        """Return the options, a function by its name."""
        return written(self)

    @property
    def chosen_size(self) -> int:
        """The size, or its default."""
        if self.size is not None:
            return self.size
        return _SIDE if self.projection == "factored" else _WHOLE

    def attribution(self, trained: Trained) -> Attribution:
        """Return the projected gradients of a model's training examples, at each checkpoint."""
        objective, plan = objective_of(trained), self._plan
        if self.solver is not None:
            return Mapped(objective, self.feature_map(objective))
        if self.checkpoints is None:
            subspaces = [cached(objective, plan, plan.project)]  # one for every damping
        else:
            points = points_of(objective, self.checkpoints)
            subspaces = [plan.project(objective.at(point)) for point in points]
        return _InSubspace(objective, self, tuple((P, self._inverse(P)) for P in subspaces))

    def feature_map(self, trained: Trained) -> FeatureMap:
        """Return the projected gradients of any example, at each checkpoint."""
        objective, plan = objective_of(trained), self._plan
        if self.solver is not None:
            project, size = plan.features(objective), self.chosen_size
            words = f"{ORDERS['first']}, by {self.solver} and projected to {size} "
            return Preconditioned(
                trained=project.objective,
                project=project,
                words=words + (f"x {size} per layer" if self.projection == "factored" else ""),
                solver=self.solver,
                damping_asked=self.damping,
            )
        at = map(objective.at, points_of(objective, self.checkpoints))
        return _Subspaces(objective, self, tuple(map(plan.features, at)))

    def described(self, d: int) -> str:
        """Return what makes the scores in d dimensions, in words."""
        size = f"{self.chosen_size} x {self.chosen_size} per layer"
        size = size if self.projection == "factored" else "dense"
        count = 0 if self.checkpoints is None else len(self.checkpoints)
        what = f"{d} projected dimensions ({size}, seed {self.seed})"
        output = f"of the gradients of the {measure_name(self.output)}"
        mean = f"mean of {count}: " if count else ""
        if self.moment == "none":
            return f"{mean}inner products {output} in {what}"
        by = ", layer by layer" if self.moment == "layers" else ""
        return f"{mean}influence in {what}, second moment {output}{by}"

    @property
    def _plan(self) -> Plan:
        """What is projected, and how."""
        return Plan(self.output, self.projection, self.chosen_size, self.seed, self.rtol)

    def groups(self, blocks: Sequence[Block]) -> tuple[slice, ...]:
        """Return the columns of one part whose second moment is inverted together; maybe none."""
        sizes = {"joint": [sum(block.size for block in blocks)], "none": []}
        return places(sizes.get(self.moment, [block.size for block in blocks]))

    def _inverse(self, space: Subspace) -> Damped:
        """Return the damped inverse of K, or of its diagonal blocks; the identity for "none"."""
        R, groups = space.project.objective, self.groups(space.project.blocks)
        return space.inverse(groups, R.weights, self.damping, float(R.l2.mean()))


@final
@dataclass(frozen=True, eq=False)
class _Subspaces(FeatureMap):
    """Projected gradients of any example, at each checkpoint.

    Args:
        trained: R.
        method: The options.
        points: P at each checkpoint.
    """

    trained: Objective
    method: Projected
    points: tuple[Features, ...]

    @property
    def words(self) -> str:  # type: ignore[override]
        """The dimensions and the second moment."""
        return self.method.described(sum(block.size for block in self.parts[0]))

    @property
    def parts(self) -> tuple[tuple[Block, ...], ...]:
        """The blocks of the projection, at each checkpoint."""
        return tuple(features.blocks for features in self.points)

    @property
    def groups(self) -> tuple[slice, ...]:
        """The columns of a checkpoint, or of a layer; none where nothing is inverted."""
        return tuple(
            slice(part.start + where.start, part.start + where.stop)
            for part, blocks in zip(self.columns, self.parts, strict=True)
            for where in self.method.groups(blocks)
        )

    @property
    def damping(self) -> float | None:
        """λ."""
        return self.method.damping

    @property
    def penalty(self) -> float:
        """The l2 of the model."""
        return float(self.trained.l2.mean())

    def rows(self, examples: Examples) -> Tensor:
        """Return P ∇f at each checkpoint, [b, T d]."""
        measure = measure_of(self.trained.loss, self.method.output)
        return torch.cat([features(examples, measure) for features in self.points], 1)

    def slopes(self, examples: Examples) -> Tensor:
        """Return ∂ℓ/∂f at each checkpoint, [b, T]."""
        measure = measure_of(self.trained.loss, self.method.output)
        at = [features.objective for features in self.points]
        return torch.stack([slopes_of(R, measure, examples) for R in at], 1)

    def queries(self, examples: Examples, measure: Measure) -> Tensor:
        """Return P ∇m at each checkpoint, over their number, [q, T d]."""
        parts = [features(examples, measure) for features in self.points]
        return torch.cat(parts, 1) / len(parts)

    @property
    def splits(self) -> bool:
        """Whether gradients are those at θ̂."""
        return self.method.checkpoints is None

    def directions(self, rows: Tensor, side: Side) -> Tensor:
        """Return Pᵀ rows, of one checkpoint at θ̂."""
        return self.points[0].back(rows.to(self.points[0].objective.params))


@final
@dataclass(frozen=True, eq=False)
class _InSubspace(FeatureAttribution, Directed):
    """Influence in a random subspace, averaged over checkpoints.

    Args:
        trained: R.
        method: The options.
        parts: The projected gradients and their inverse second moment, at each checkpoint.
    """

    trained: Objective
    method: Projected
    parts: tuple[tuple[Subspace, Damped], ...]

    @property
    def words(self) -> str:
        """The dimensions, the second moment and the damping."""
        (space, inverse), *_ = self.parts
        words, reason = self.method.described(space.rows.shape[1]), self.measured().damping_reason
        return f"{words}, damping {inverse.damping:.3g} ({reason})" if reason else words

    def train_features(self, where: Positions) -> Tensor:
        """Return P gᵢ at each checkpoint, scaled by wᵢ/n, [k, T d]."""
        every = np.array_equal(where, np.arange(len(self.trained.train)))
        at, parts = slice(None) if every else where, []
        for space, _ in self.parts:
            rows = space.rows[at]
            scale = (space.slopes * self.trained.weights)[at] / len(space.rows)
            parts.append(rows * scale.unsqueeze(1) / len(self.parts))
        return torch.cat(parts, 1)

    def query_features(self, queries: Examples, measure: Measure) -> Tensor:
        """Return (K + λ I)⁻¹ P ∇m_q at each checkpoint, [q, T d]."""
        parts = [inverse.apply(space.project(queries, measure).T) for space, inverse in self.parts]
        return torch.cat(parts).T

    @property
    def splits(self) -> bool:
        """Whether gradients are those at θ̂."""
        return self.method.checkpoints is None

    def directions(
        self, examples: Examples, measure: Measure, side: Side
    ) -> tuple[Tensor, Diagnostics]:
        """Return Pᵀ (K + λ I)⁻¹ P ∇m, which is symmetric."""
        features = self.method.feature_map(self.trained)
        rows = self.query_features(examples, measure)
        return features.directions(rows, side), self.measured()

    def measured(self) -> Diagnostics:
        """Return the damping, with its reason."""
        space, inverse = self.parts[0]
        if self.method.moment == "none":
            return Diagnostics(notes=self.trained.notes)
        reason = "the mean eigenvalue of the second moment"
        return Diagnostics(
            solver=f"Cholesky factor of the second moment in {space.rows.shape[1]} dimensions",
            damping=inverse.damping,
            damping_reason=reason if self.method.damping is None else "as asked",
            notes=self.trained.notes,
        )


@checked
def projected(
    objective: Trained,
    queries: Data,
    *,
    output: MeasureLike = "loss",
    projection: Projection = "factored",
    size: int | None = None,
    moment: Moment = "joint",
    measure: MeasureLike = "loss",
    indices: Indices | None = None,
    damping: float | None = None,
    checkpoints: Sequence[Tensor] | None = None,
    seed: int = 0,
    rtol: float = 2e-2,
) -> Scores:
    r"""Predict removals from randomly projected gradients: LoGra by default, TRAK with the margin.

    score[q, i] = (wᵢ/n) (P ∇m_q)ᵀ (K + λ I)⁻¹ (P gᵢ), K = (1/n) Σ wᵢ φᵢ φᵢᵀ with φᵢ = P ∇f(zᵢ).
    LoGra: f = ℓ, P factored. TRAK: `output="margin", projection="dense"`.

    Args:
        objective: R at θ̂; its own parameters are the one checkpoint if `checkpoints` is `None`.
        queries: (x, y) of q queries, or of one.
        output: f, whose gradients' second moment stands for the curvature: "loss", "margin", or a
            function (outputs, targets) -> [b] of which the loss is a function.
        projection: "factored" projects the two sides of each layer's gradients before their
            product, to size × size numbers per weight, and the parameters without such a product
            together and whole, to as many. "dense" projects the whole gradient to `size` numbers.
        size: Per side 16 if `None`, or d = 2,048 for "dense". A side that is no larger is left as
            it is.
        moment: "joint" inverts K whole; "layers" its diagonal blocks, one per weight, each damped
            by its own mean eigenvalue (LoGra's way, and that of large models); "none" nothing,
            which leaves inner products of gradients.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        indices: Positions of the candidates in the training data; all n if `None`.
        damping: λ >= 0; the mean eigenvalue tr(K)/d if `None`. The penalty l2 is added to it.
        checkpoints: θ_t, each [p], as `objective.params`; scores are averaged over them.
        seed: Of P.
        rtol: The relative error, in root mean square, that scores may have beside that of P, which
            is far larger: from 2e-2 on, passes through a float32 network are in bfloat16 where the
            hardware is made for it and the network bears it.

    Returns:
        Scores with values [q, k]: a predicted change of the measure on removal, 1/n included.

    Raises:
        InvalidInput: If queries, checkpoints or options cannot be used.
        UnsupportedModel: If the loss is not a function of the output.
        NotPositiveDefinite: If K is singular and not damped.

    Cost:
        Factored: one forward and one backward pass over the training data, whatever d; the
        projected gradients, n d numbers, are cached with the objective, and min(n, d)³/3 operations
        to factor. Dense: 2 n p d operations besides, and one pass for each 2²⁷/p dimensions. Then a
        query costs its gradient and products with the cached numbers.

    References:
        Choe et al. (2024), "What is Your Data Worth to GPT?", section 3 (LoGra); Park et al.
        (2023), "TRAK: Attributing Model Behavior at Scale", section 3.

    Examples:
        >>> import torch, whence
        >>> x, y = torch.randn(30, 4), torch.arange(30) % 3
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(),
        ...                             torch.nn.Linear(8, 3))
        >>> objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
        >>> whence.projected(objective, (x[:2], y[:2])).values.shape
        (2, 30)
    """
    method = Projected(
        output=output,
        projection=projection,
        size=size,
        moment=moment,
        damping=damping,
        checkpoints=checkpoints,
        seed=seed,
        rtol=rtol,
    )
    return method.fit(objective).scores(queries, measure=measure, indices=indices)
