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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from whence.errors import InvalidInput, NotPositiveDefinite, UnsupportedModel
from whence.linalg.cholesky import Cholesky
from whence.linalg.structured import Dense
from whence.methods.features import FeatureAttribution
from whence.methods.method import Attribution, Method, Positions
from whence.methods.prediction import Indices, MeasureLike, measure_name
from whence.methods.projections import Whole, factored
from whence.methods.tracin import points_of
from whence.network.objective import ModuleObjective
from whence.objective.cache import cached
from whence.objective.losses import measure_of
from whence.objective.measures import Measure
from whence.objective.objective import Objective, objective_of
from whence.objective.trained import Data, Examples, Trained
from whence.scores import Diagnostics, Scores

Projection = Literal["factored", "dense"]
_Features = Callable[[Objective, Examples, Measure], Tensor]

_SIDE, _WHOLE = 16, 2048  # sizes unless given
_AGREEMENT = 1e-3  # in float32; a loss is a function of f or far from it


@final
@dataclass(frozen=True, kw_only=True)
class Projected(Method):
    r"""Predict removals from randomly projected gradients: LoGra by default, TRAK with the margin.

    score[q, i] = (wᵢ/n) (P ∇m_q)ᵀ (K + λ I)⁻¹ (P gᵢ), K = (1/n) Σ wᵢ φᵢ φᵢᵀ with φᵢ = P ∇f(zᵢ).

    Args:
        output: f: "loss", "margin", or a function (outputs, targets) -> [b] of which the loss is a
            function.
        projection: "factored" or "dense".
        size: Per side 16 if `None`, or d = 2,048 for "dense".
        damping: λ >= 0; the mean eigenvalue tr(K)/d if `None`.
        checkpoints: θ_t, each [p]; scores are averaged over them.
        seed: Of P.
        rtol: The relative error that scores may have beside that of P.

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
    damping: float | None = None
    checkpoints: Sequence[Tensor] | None = None
    seed: int = 0
    rtol: float = 2e-2

    def __post_init__(self) -> None:
        """Check the options, and make the checkpoints a tuple, which can be cached under."""
        if self.projection not in ("factored", "dense"):
            raise InvalidInput(
                f"Expected projection 'factored' or 'dense'. Got {self.projection!r}."
            )
        if self.chosen_size < 1 or self.seed < 0:
            raise InvalidInput(
                f"Expected size >= 1 and seed >= 0. Got size={self.chosen_size}, seed={self.seed}."
            )
        if self.damping is not None and not 0 <= self.damping < np.inf:
            raise InvalidInput(f"Expected a finite damping >= 0, or None. Got {self.damping}.")
        if not 0 < self.rtol < 1:
            raise InvalidInput(f"Expected 0 < rtol < 1. Got {self.rtol}. The default is 2e-2.")
        if self.checkpoints is not None:
            object.__setattr__(self, "checkpoints", tuple(self.checkpoints))

    @property
    def chosen_size(self) -> int:
        """The size, or its default."""
        if self.size is not None:
            return self.size
        return _SIDE if self.projection == "factored" else _WHOLE

    def attribution(self, trained: Trained) -> Attribution:
        """Return the projected gradients of a model's training examples, at each checkpoint."""
        objective = objective_of(trained)
        plan = _Plan(self.output, self.projection, self.chosen_size, self.seed, self.rtol)
        if self.checkpoints is None:
            # Shared by methods that differ in the damping alone.
            subspaces = [cached(objective, plan, plan.project)]
        else:
            points = points_of(objective, self.checkpoints)
            subspaces = [plan.project(objective.at(point)) for point in points]
        inverses = [_inverse(space, self.damping) for space in subspaces]
        return _InSubspace(objective, self, tuple(zip(subspaces, inverses, strict=True)))


@final
@dataclass(frozen=True, eq=False)
class _InSubspace(FeatureAttribution):
    """Influence in a random subspace, averaged over checkpoints.

    Args:
        trained: R.
        method: The options.
        parts: The projected gradients and their inverse second moment, at each checkpoint.
    """

    trained: Objective
    method: Projected
    parts: tuple[tuple[_Subspace, _Damped], ...]

    @property
    def words(self) -> str:
        """The dimensions, the second moment and the damping."""
        method, (space, inverse) = self.method, self.parts[0]
        factored = method.projection == "factored"
        size = f"{method.chosen_size} x {method.chosen_size} per layer" if factored else "dense"
        mean = f"mean of {len(self.parts)}: " if method.checkpoints is not None else ""
        return (
            f"{mean}influence in {space.rows.shape[1]} projected dimensions ({size}, seed "
            f"{method.seed}), second moment of the gradients of the "
            f"{measure_name(method.output)}, damping {inverse.damping:.3g} "
            f"({'their mean eigenvalue' if method.damping is None else 'as asked'})"
        )

    def train_features(self, where: Positions) -> Tensor:
        """Return P gᵢ at each checkpoint, scaled by wᵢ/n, [k, T d]."""
        whole = len(where) == len(self.trained.train)
        parts = []
        for space, _ in self.parts:
            rows, scale = space.rows, space.slopes * self.trained.weights / len(space.rows)
            rows, scale = (rows, scale) if whole else (rows[where], scale[where])
            parts.append(rows * scale.unsqueeze(1) / len(self.parts))
        return torch.cat(parts, 1)

    def query_features(self, queries: Examples, measure: Measure) -> Tensor:
        """Return (K + λ I)⁻¹ P ∇m_q at each checkpoint, [q, T d]."""
        return torch.cat(
            [
                inverse.apply(space.project(space.objective, queries, measure).T).T
                for space, inverse in self.parts
            ],
            1,
        )

    def measured(self) -> Diagnostics:
        """Return the damping, with its reason."""
        space, inverse = self.parts[0]
        asked = self.method.damping is not None
        return Diagnostics(
            solver=f"Cholesky factor of the second moment in {space.rows.shape[1]} dimensions",
            damping=inverse.damping,
            damping_reason="as asked" if asked else "the mean eigenvalue of the second moment",
            notes=self.trained.notes,
        )


def projected(
    objective: Trained,
    queries: Data,
    *,
    output: MeasureLike = "loss",
    projection: Projection = "factored",
    size: int | None = None,
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
        damping=damping,
        checkpoints=checkpoints,
        seed=seed,
        rtol=rtol,
    )
    return method.fit(objective).scores(queries, measure=measure, indices=indices)


@final
@dataclass(frozen=True)
class _Plan:
    """What is projected, and how."""

    output: MeasureLike
    projection: Projection
    size: int
    seed: int
    rtol: float

    def seen(self, objective: Objective) -> Objective:
        """Return the objective in the precision of its passes."""
        if not isinstance(objective, ModuleObjective):
            return objective
        # Neither the training gradients nor those of the queries are exact then.
        return objective.within(self.rtol / 2)

    def project(self, objective: Objective) -> _Subspace:
        """Return the projected gradients of the output function at the training examples."""
        function = measure_of(objective.loss, self.output)
        slopes = torch.ones_like(objective.weights)
        if function != objective.loss:
            slopes = _slopes(objective, function)
        features: _Features = Whole(self.size, self.seed)
        if self.projection == "factored" and isinstance(objective, ModuleObjective):
            features = factored(objective, self.size, self.seed)
        elif self.projection == "factored":  # no layers: as many numbers, of the whole gradient
            features = Whole(self.size**2, self.seed)
        seen = self.seen(objective)
        rows = features(seen, objective.train, function)
        return _Subspace(objective=seen, project=features, rows=rows, slopes=slopes)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class _Subspace:
    """The projected gradients of a model's training examples.

    Args:
        objective: R, in the precision of its passes.
        project: P, from examples and a measure to projected gradients [b, d].
        rows: φᵢ, [n, d].
        slopes: ∂ℓ/∂f of each training example, [n], so that P gᵢ = slopeᵢ φᵢ.
    """

    objective: Objective
    project: _Features
    rows: Tensor
    slopes: Tensor


@final
@dataclass(frozen=True)
class _Damped:
    """(K + (l2 + λ) I)⁻¹.

    Args:
        apply: C ↦ (K + (l2 + λ) I)⁻¹ C for C [d, q].
        damping: λ.
    """

    apply: Callable[[Tensor], Tensor]
    damping: float


def _inverse(space: _Subspace, damping: float | None) -> _Damped:
    """Return the damped inverse of K, from the smaller of the two Gram matrices."""
    objective, rows = space.objective, space.rows
    n, d = rows.shape
    scaled = rows * (objective.weights / n).sqrt().unsqueeze(1)
    gram = (scaled.T @ scaled if d <= n else scaled @ scaled.T).double()
    gram = (gram + gram.T) / 2  # products of rows round differently on the two sides
    amount = float(gram.diagonal().sum()) / d if damping is None else damping
    total = amount + float(objective.l2.mean())
    if d > n and total == 0:
        raise NotPositiveDefinite(
            f"Expected damping > 0 for {n} examples in {d} dimensions, where the second moment of "
            "the gradients is singular. Got 0. Leave damping out, or lower size."
        )
    gram.diagonal().add_(total)
    inverse = Cholesky().prepare(Dense(gram))
    if d <= n:
        return _Damped(lambda columns: (inverse @ columns.double()).to(rows), amount)

    def woodbury(columns: Tensor) -> Tensor:
        inside = inverse @ (scaled @ columns).double()
        return (columns - scaled.T @ inside.to(rows)) / total

    return _Damped(woodbury, amount)


def _slopes(objective: Objective, function: Measure) -> Tensor:
    """Return ∂ℓ/∂f [n] where the loss is a function of f, and raise where it is not."""
    train = objective.train
    outputs = objective.outputs(train)
    of_loss = objective.loss.gradient(outputs, train.targets).flatten(1)
    of_output = function.gradient(outputs, train.targets).flatten(1)
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
