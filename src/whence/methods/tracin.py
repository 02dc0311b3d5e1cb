"""Dot products of gradients along the path of a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import InvalidInput
from whence.linalg import Identity, LinearOperator
from whence.methods.attribution import Attribution
from whence.methods.features import Block, FeatureMap
from whence.methods.gradient_products import dots, sizes
from whence.methods.mapped import Mapped
from whence.methods.method import Method
from whence.methods.prediction import Indices, MeasureLike
from whence.methods.projections import Unprojected
from whence.methods.subsets import Positions, train_subset
from whence.methods.subspace import Features, Plan
from whence.objective.measures import Measure
from whence.objective.objective import Objective, objective_of
from whence.objective.trained import Data, Examples, Trained
from whence.scores import Diagnostics, Scores
from whence.tiles import tiles

_GRADIENTS = 2**26  # numbers of whole gradients at once: 256 MB of float32
_RTOL = 2e-2  # beside the error of a projection


@final
@checked
@dataclass(frozen=True, kw_only=True)
class TracIn(Method):
    """Score training examples by dot products of gradients at checkpoints of the training.

    score[q, i] = (wᵢ/n) Σ_t η_t ∇m_q(θ_t)ᵀ gᵢ(θ_t).

    Args:
        checkpoints: θ_t, each [p], as `objective.params`; those of the training if `None`, where
            they were recorded (`whence.Run.from_trainer`), else the model's own parameters.
        learning_rates: η_t >= 0, one per checkpoint; those of the training, or 1 each, if `None`.
        cosine: Divide by the norms of the two gradients, and leave out wᵢ/n; averaged over t.
        optimizer: Scale training gradients as the optimizer did at each recorded checkpoint:
            S gᵢ in place of gᵢ, with S = diag(1/(√v̂ + ε)) of Adam, AdamW or Adafactor, and the
            product that makes the momentum orthogonal of Muon.
        scales: S, an operator [p, p] per checkpoint, such as `whence.linalg.Diagonal`; those of the
            training with `optimizer`.
        size: Numbers per side to which each layer's gradients are projected at random, as by
            `Projected`; whole gradients if `None`.
        seed: Of the projection.

    Raises:
        InvalidInput: If checkpoints, rates and scales do not fit each other, a size is below 1, or
            the training has no second moments for `optimizer`.

    Cost:
        As `whence.tracin`.

    References:
        Pruthi et al. (2020), section 3; Hanawa et al. (2021) for the cosine; Xia et al. (2024),
        "LESS: Selecting Influential Data for Targeted Instruction Tuning", section 3.1, for the
        optimizer.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X, y)
        >>> found = whence.TracIn(cosine=True).fit(whence.from_sklearn(model, X, y))
        >>> found.scores((X[:2], y[:2])).values.shape
        (2, 150)
    """

    checkpoints: Sequence[Tensor] | None = None
    learning_rates: Sequence[float] | None = None
    cosine: bool = False
    optimizer: bool = False
    scales: Sequence[LinearOperator] | None = None
    size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the rates, and make both sequences tuples, which can be cached under."""
        if self.size is not None and self.size < 1:
            raise InvalidInput(f"Expected size >= 1. Got size={self.size}.")
        if self.checkpoints is not None:
            object.__setattr__(self, "checkpoints", tuple(self.checkpoints))
        count = 1 if self.checkpoints is None else len(self.checkpoints)
        if self.scales is not None:
            object.__setattr__(self, "scales", tuple(self.scales))
            if len(self.scales) != count:
                raise InvalidInput(
                    f"Expected one operator of scales for each of {count} checkpoints. Got "
                    f"{len(self.scales)}."
                )
        if self.learning_rates is None:
            return
        rates = tuple(float(rate) for rate in self.learning_rates)
        object.__setattr__(self, "learning_rates", rates)
        if len(rates) != count or not all(rate >= 0 for rate in rates):
            raise InvalidInput(
                "Expected a learning rate >= 0 for each checkpoint. "
                f"Got {count} checkpoints and rates {list(rates)}."
            )

    def attribution(self, trained: Trained) -> Attribution:
        """Return the dot products of a model's gradients."""
        if self.size is not None:
            return Mapped(trained, self.feature_map(trained))
        objective, along = objective_of(trained), self.along(trained)
        points = points_of(objective, along.checkpoints)
        return _DotProducts(objective, tuple(objective.at(point) for point in points), along)

    def along(self, trained: Trained) -> TracIn:
        """Return the method with the checkpoints, rates and scales of a recorded training."""
        path = trained.path() if self.checkpoints is None else None
        scales = self.scales if path is None or not self.optimizer else path.scales
        if self.optimizer and scales is None:
            raise InvalidInput(
                "Expected a training with the second moments of its optimizer for optimizer=True. "
                "Got none. Train with whence.trainer_callback and AdamW, and pass "
                "whence.Run.from_trainer(directory, objective)."
            )
        if path is None:
            return self
        return replace(
            self,
            checkpoints=path.points,
            learning_rates=self.learning_rates or path.rates,
            scales=scales,
        )

    def feature_map(self, trained: Trained) -> FeatureMap:
        """Return the gradients of any example at each checkpoint, projected if so asked."""
        objective, along = objective_of(trained), self.along(trained)
        points = [objective.at(point) for point in points_of(objective, along.checkpoints)]
        if self.size is None:
            return _Gradients(objective, along, tuple(map(Unprojected, points)))
        plan = Plan("loss", "factored", self.size, self.seed, _RTOL)
        return _Gradients(objective, along, tuple(map(plan.features, points)))

    @property
    def rates(self) -> Sequence[float]:
        """η_t of each checkpoint; for cosines, the weight of an average."""
        count = 1 if self.checkpoints is None else len(self.checkpoints)
        if self.cosine:
            return [1 / count] * count
        return self.learning_rates or [1.0] * count

    @property
    def words(self) -> str:
        """What is multiplied, and where."""
        count = 1 if self.checkpoints is None else len(self.checkpoints)
        size = f", projected to {self.size} x {self.size} per layer" if self.size else ""
        size += ", scaled as by the optimizer" if self.scales is not None else ""
        return (
            f"{'cosines' if self.cosine else 'dot products'} of gradients at {count} "
            f"checkpoint{'s' if count > 1 else ''}{size} (Pruthi et al. 2020)"
        )

    @property
    def unit(self) -> str:
        """Cosines have no unit."""
        return ", as the cosine of two gradients" if self.cosine else ""


@final
@dataclass(frozen=True, eq=False)
class _Gradients(FeatureMap):
    """Gradients of any example at each checkpoint.

    Args:
        trained: R.
        method: The options.
        points: How gradients become features, at each checkpoint.
    """

    trained: Objective
    method: TracIn
    points: tuple[Features, ...]

    @property
    def words(self) -> str:  # type: ignore[override]
        """What is multiplied, and where."""
        return self.method.words

    @property
    def unit(self) -> str:
        """Cosines have no unit."""
        return self.method.unit

    @property
    def averaged(self) -> bool:
        """Whether scores hold wᵢ/n: cosines do not."""
        return not self.method.cosine

    @property
    def parts(self) -> tuple[tuple[Block, ...], ...]:
        """The blocks of the gradient, at each checkpoint."""
        return tuple(features.blocks for features in self.points)

    def rows(self, examples: Examples) -> Tensor:
        """Return ∇ℓ at each checkpoint, [b, T d]; S ∇ℓ for cosines, which need its length."""
        loss, scales = self.trained.loss, self.method.scales
        if scales is None or not self.method.cosine:
            return torch.cat([self._of(each, examples, loss) for each in self.points], 1)
        each = zip(self.points, scales, strict=True)
        return torch.cat([_unit(_scaled(one, S.matmat, examples, loss)) for one, S in each], 1)

    def queries(self, examples: Examples, measure: Measure) -> Tensor:
        """Return η_t ∇m, or η_t S ∇m, at each checkpoint, [q, T d].

        S is symmetric, and stands with the few where it can: the rows of training examples do not
        depend on it then.
        """
        rates, scales = self.method.rates, self.method.scales
        if scales is None or self.method.cosine:
            found = [self._of(each, examples, measure) for each in self.points]
        else:
            each = zip(self.points, scales, strict=True)
            found = [_scaled(one, S.rmatmat, examples, measure) for one, S in each]
        return torch.cat([rate * rows for rate, rows in zip(rates, found, strict=True)], 1)

    def _of(self, features: Features, examples: Examples, measure: Measure) -> Tensor:
        """Return ∇m at a checkpoint, of length 1 for cosines, [b, d]."""
        found: Tensor = features(examples, measure)
        return _unit(found) if self.method.cosine else found


def _unit(rows: Tensor) -> Tensor:
    """Return rows of length 1, or of zeros."""
    sizes: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / sizes.clamp_min(torch.finfo(rows.dtype).tiny)


def _scaled(
    features: Features, S: Callable[[Tensor], Tensor], examples: Examples, measure: Measure
) -> Tensor:
    """Return features of scaled gradients, [b, d]; whole gradients are formed, some at a time."""
    objective, every = features.objective, np.arange(len(examples))
    parts = tiles(len(examples), len(objective.params), _GRADIENTS)
    some = (objective.gradient_columns(examples.subset(every[part]), measure) for part in parts)
    return torch.cat([features.of_columns(S(columns)) for columns in some])


@final
@dataclass(frozen=True, eq=False)
class _DotProducts(Attribution):
    """Dot products, or cosines, of gradients.

    Args:
        trained: R.
        points: R at each checkpoint.
        method: The options.
    """

    trained: Objective
    points: tuple[Objective, ...]
    method: TracIn

    @property
    def words(self) -> str:
        """What is multiplied, and where."""
        return self.method.words

    @property
    def unit(self) -> str:
        """Cosines have no unit."""
        return self.method.unit

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return Σ_t η_t ∇m_q(θ_t)ᵀ gᵢ(θ_t), times wᵢ/n, [q, k]."""
        objective = self.trained
        candidates = train_subset(objective, where)
        total = torch.zeros(len(queries), len(where)).to(objective.params)
        for point, rate, scale in zip(self.points, self.method.rates, self._scales, strict=True):
            total += rate * dots(point, queries, measure, candidates, self.method.cosine, scale)
        if not self.method.cosine:
            total *= objective.weights[where] / len(objective.train)
        return total, Diagnostics(notes=objective.notes)

    def self_values(self, where: Positions) -> tuple[Tensor, Diagnostics]:
        """Return Σ_t η_t gᵢᵀ(scale ⊙ gᵢ), times wᵢ/n, or the cosines of the two, [k]."""
        objective, measured = self.trained, Diagnostics(notes=self.trained.notes)
        candidates, total = train_subset(objective, where), objective.params.new_zeros(len(where))
        for point, rate, scale in zip(self.points, self.method.rates, self._scales, strict=True):
            square, own, norms = sizes(point, candidates, scale)
            if self.method.cosine:
                square = square / (own * norms).clamp_min(torch.finfo(own.dtype).tiny)
            total += rate * square
        if not self.method.cosine:
            total *= objective.weights[where] / len(objective.train)
        return total, measured

    @property
    def _scales(self) -> Sequence[LinearOperator]:
        """What training gradients are multiplied by at each checkpoint."""
        like = self.trained.params
        one = Identity(len(like), dtype=like.dtype, device=like.device)
        return self.method.scales or [one] * len(self.points)


@checked
def tracin(
    objective: Trained,
    queries: Data,
    *,
    measure: MeasureLike = "loss",
    indices: Indices | None = None,
    checkpoints: Sequence[Tensor] | None = None,
    learning_rates: Sequence[float] | None = None,
    cosine: bool = False,
) -> Scores:
    r"""Score training examples by the dot products of their gradients with the query's.

    score[q, i] = (wᵢ/n) Σ_t η_t ∇m_q(θ_t)ᵀ gᵢ(θ_t), with η_t the sum of the learning rates of the
    steps that θ_t stands for: what gradient descent would lose of its progress on the query if
    example i took no part and nothing else changed. One checkpoint and η = 1 give the plain
    gradient dot product (GradDot); with `cosine`, the cosine of the two gradients (GradCos), which
    has no unit.

    Args:
        objective: R; its own parameters are the one checkpoint if `checkpoints` is `None`.
        queries: (x, y) of q queries, or of one.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        indices: Positions of the candidates in the training data; all n if `None`.
        checkpoints: θ_t, each [p], as `objective.params`.
        learning_rates: η_t >= 0, one per checkpoint; 1 each if `None`.
        cosine: Divide by the norms of the two gradients, and leave out wᵢ/n; averaged over t.

    Returns:
        Scores with values [q, k]. Positive: the example helped. A ranking more than a size.

    Raises:
        InvalidInput: If checkpoints and rates do not fit the objective or each other.

    Cost:
        Per checkpoint the gradients of the queries and one product of the training gradients with
        them. No solve.

    References:
        Pruthi et al. (2020), "Estimating training data influence by tracing gradient descent",
        section 3; Hanawa et al. (2021) for the cosine.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X, y)
        >>> whence.tracin(whence.from_sklearn(model, X, y), (X[:2], y[:2])).values.shape
        (2, 150)
    """
    method = TracIn(checkpoints=checkpoints, learning_rates=learning_rates, cosine=cosine)
    return method.fit(objective).scores(queries, measure=measure, indices=indices)


def points_of(objective: Objective, checkpoints: Sequence[Tensor] | None) -> list[Tensor]:
    """Return checked checkpoints; the objective's own parameters for `None`.

    Args:
        objective: R.
        checkpoints: θ_t, each [p].

    Returns:
        The checkpoints, at least one.

    Raises:
        InvalidInput: If there is none, or one does not fit the objective.
    """
    points = [objective.params] if checkpoints is None else list(checkpoints)
    if not points:
        raise InvalidInput("Expected at least one checkpoint. Got 0 checkpoints.")
    for point in points:
        if point.shape != objective.params.shape or not bool(torch.isfinite(point).all()):
            raise InvalidInput(
                f"Expected finite checkpoints of {len(objective.params)} parameters each. "
                f"Got shape {list(point.shape)}. Flatten them as objective.params is."
            )
    return points
