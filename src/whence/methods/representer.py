r"""A prediction as a sum over training examples, where the top layer is linear with an l2 penalty.

At a stationary point of (1/n) Σ wᵢ ℓ(W φᵢ + b, yᵢ) + ½ l2 ‖W‖², the weights are the sum
W = Σᵢ αᵢ φᵢᵀ with αᵢ = −(wᵢ/n) ∂ℓᵢ/∂f / l2, and so every output is W φ_q = Σᵢ αᵢ (φᵢᵀ φ_q).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import InvalidInput, UnsupportedModel, warn_user
from whence.linear.features import DenseFeatures, Features
from whence.linear.objective import LinearObjective
from whence.methods.attribution import Attribution
from whence.methods.features import FeatureMap
from whence.methods.method import Method
from whence.methods.prediction import Indices, MeasureLike
from whence.methods.subsets import Positions
from whence.network.objective import ModuleObjective
from whence.objective.measures import Measure
from whence.objective.objective import Objective, objective_of
from whence.objective.trained import Data, Examples, Trained
from whence.scores import Diagnostics, Scores

_TILE = 2**24  # terms in memory at once
_FEW = 8  # examples that tell whether a layer gives the outputs
_AGREEMENT = 1e-3  # of the largest output, in float32
_GAP = 0.1  # of the outputs: what the terms may leave unexplained without a warning


@final
@checked
@dataclass(frozen=True, kw_only=True)
class Representer(Method):
    """Score training examples by their terms in the representer decomposition of a prediction.

    score[q, i] = m(f_q − t_qi) − m(f_q), with t_qi = −(wᵢ/n) ∂ℓᵢ/∂f (φᵢᵀφ_q + [b penalized])/l2.

    Cost:
        As `whence.representer`.

    References:
        Yeh et al. (2018), theorem 3.1.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> whence.Representer().fit(objective).scores((X[:1], y[:1])).values.shape
        (1, 442)
    """

    def attribution(self, trained: Trained) -> Attribution:
        """Return the terms of a model with a linear top layer."""
        return _Decomposed(objective_of(trained))

    def feature_map(self, trained: Trained) -> FeatureMap:
        """Say why there is none."""
        raise UnsupportedModel(
            "Expected a method whose scores are inner products of features of one example each. "
            "Got representer terms t, of which the change m(f - t) - m(f) is evaluated and not "
            "linear in t. Use whence.Influence() of the top layer, or .fit(model).scores(queries)."
        )


@final
@dataclass(frozen=True, eq=False)
class _Decomposed(Attribution):
    """Terms of predictions.

    Args:
        trained: R at θ̂.
    """

    trained: Objective

    @property
    def words(self) -> str:
        """The decomposition, with its source."""
        return "representer terms (Yeh et al. 2018)"

    @property
    def linear(self) -> bool:
        """Whether measures are linearized: no, they are evaluated."""
        return False

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the change of each measure without each term, [q, k]."""
        objective, k = self.trained, len(where)
        top = _top(objective, queries)
        outputs = objective.outputs(queries)
        before = measure(outputs, queries.targets)
        values = torch.empty(len(queries), k, dtype=outputs.dtype, device=outputs.device)
        sums = torch.empty_like(outputs)
        for q, terms in enumerate(_terms(objective, top)):
            targets = queries.targets[q : q + 1].expand(k, *queries.targets.shape[1:])
            values[q] = measure(outputs[q] - terms[where], targets) - before[q]
            sums[q] = terms.sum(0)
        gap = float((sums - top.explained).norm() / top.explained.norm().clamp_min(1e-30))
        if not gap <= _GAP:
            warn_user(
                f"Expected the terms to sum to the outputs. Got {gap:.0%} of the outputs left "
                "over: the top layer is not at a stationary point of its loss and l2. Train it "
                "on, or fit it anew on the frozen features and use whence.from_frozen."
            )
        note = f"The representer terms sum to the outputs within {gap:.1e}."
        return values, Diagnostics(notes=(*objective.notes, note))


@checked
def representer(
    objective: Trained,
    queries: Data,
    *,
    measure: MeasureLike = "loss",
    indices: Indices | None = None,
) -> Scores:
    r"""Score training examples by their terms in the representer decomposition of a prediction.

    score[q, i] = m(f_q − t_qi) − m(f_q), with t_qi = −(wᵢ/n) ∂ℓᵢ/∂f (φᵢᵀφ_q + [b penalized])/l2
    the term of example i in f_q = Σᵢ t_qi: the change of the measure if that term is taken out and
    all others stay as they are. Nothing is fitted again, so it is not what removal does to the
    model: the others' terms would grow in its place. With `measure` an output itself, the scores
    are the terms, negated, and sum to that output (less an intercept without penalty).

    Args:
        objective: R at θ̂: a linear model, one from `from_frozen`, or a module whose last layer is
            an `nn.Linear` that sees one row per example.
        queries: (x, y) of q queries, or of one.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        indices: Positions of the candidates in the training data; all n if `None`.

    Returns:
        Scores with values [q, k], in units of the measure. Positive: the example helped.

    Raises:
        UnsupportedModel: If the outputs are not those of a linear top layer, or its weights have
            no l2 penalty, or an L1 penalty.

    Warns:
        NotConvergedWarning: If the terms do not sum to the outputs: the top layer has not
            converged. A note in the diagnostics tells how nearly they do.

    Cost:
        The features of training data and queries, q n d operations, and q n measures.

    References:
        Yeh et al. (2018), "Representer Point Selection for Explaining Deep Neural Networks",
        theorem 3.1; λ there is l2/2 here.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = Ridge(alpha=1.0).fit(X, y)
        >>> objective = whence.from_sklearn(model, X, y)
        >>> scores = whence.representer(objective, (X[:1], y[:1]), measure=lambda f, y: f[:, 0])
        >>> bool(abs(model.predict(X[:1]) - model.intercept_ + scores.values.sum()) < 1e-6)
        True
    """
    return Representer().fit(objective).scores(queries, measure=measure, indices=indices)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class _Top:
    """A linear top layer.

    Args:
        features: φ of the training examples, [n, d].
        queries: φ of the queries, [q, d].
        l2: The penalty of its weights, > 0, [c, d].
        shift: What a penalized intercept adds to φᵢᵀφ_q / l2, [c]; zero for others.
        explained: The part of the queries' outputs that the terms should sum to, [q, c].
    """

    features: Features
    queries: Tensor
    l2: Tensor
    shift: Tensor
    explained: Tensor


def _terms(objective: Objective, top: _Top) -> Iterator[Tensor]:
    """Yield the terms of each query, [n, c]."""
    train, n = objective.train, len(objective.train)
    errors = objective.loss.gradient(objective.outputs(train), train.targets)
    alphas = -errors * (objective.weights / n).unsqueeze(1)
    alike = bool((top.l2 == top.l2[:1]).all())
    penalties = top.l2[:1] if alike else top.l2
    for part in torch.split(top.queries, max(1, _TILE // alphas.numel())):
        kernels = torch.stack([top.features.matmul((part / l2).T) for l2 in penalties], 2)
        for q in range(len(part)):
            yield alphas * (kernels[:, q] + top.shift)


@singledispatch
def _top(objective: Objective, queries: Examples) -> _Top:
    """Return the linear top layer of an objective, or say that it has none."""
    raise InvalidInput(f"Expected an objective made by whence. Got {type(objective).__name__}.")


@_top.register
def _of_linear(objective: LinearObjective, queries: Examples) -> _Top:
    """Return the one layer of a model linear in θ."""
    if objective.slope is not None:
        raise UnsupportedModel(
            "Expected an l2 penalty alone. Got an L1 penalty too, whose sum over examples does "
            "not give the weights. Use whence.influence."
        )
    c, features = objective.c, objective.train.features
    size = c * features.shape[1]
    l2 = _penalized(objective.l2[:size].reshape(c, -1))
    shift = torch.zeros_like(objective.params[:c])
    explained = objective.outputs(queries)
    if objective.constant is not None:
        of_intercept = objective.l2[size:]
        free = of_intercept == 0
        shift = torch.where(free, 0.0, objective.constant**2 / of_intercept)
        explained = explained - objective.constant * objective.params[size:] * free
    rows = objective.examples(queries).features.dense()
    return _Top(features=features, queries=rows, l2=l2, shift=shift, explained=explained)


@_top.register
def _of_module(objective: ModuleObjective, queries: Examples) -> _Top:
    """Return the last layer of a module, with what goes into it as features."""
    where, bias = _last_layer(objective)
    weight = objective.params[where]

    def features(examples: Examples) -> Tensor:
        return torch.cat(
            [
                inputs
                for pieces in objective.pieces(examples, objective.loss)
                for at, piece in pieces
                if at == where
                for _, inputs in piece.rank_one()
            ]
        )

    rows = features(queries)
    weight = weight.reshape(-1, rows.shape[1])
    l2 = _penalized(objective.l2[where].reshape(weight.shape))
    shift, explained = torch.zeros_like(l2[:, 0]), rows @ weight.T
    if bias is not None:
        of_bias = objective.l2[bias]
        shift = torch.where(of_bias == 0, 0.0, 1 / of_bias)
        explained = explained + objective.params[bias] * (of_bias > 0)
    train = DenseFeatures(features(objective.train))
    return _Top(features=train, queries=rows, l2=l2, shift=shift, explained=explained)


def _last_layer(objective: ModuleObjective) -> tuple[slice, slice | None]:
    """Return where in θ the weight of the layer stands that gives the outputs, and its bias."""
    few = objective.train.subset(np.arange(min(_FEW, len(objective.train))))
    outputs = objective.outputs(few)
    errors = objective.loss.gradient(outputs, few.targets)
    pieces = [piece for batch in objective.pieces(few, objective.loss) for piece in batch]
    for held in objective.owners.values():
        own = {mine: objective.slices[name] for mine, name in held}
        found = [piece for at, piece in pieces if at == own.get("weight")]
        sides = [pair for piece in found for pair in piece.rank_one()]
        if not found or len(sides) < len(found):
            continue
        left, right = (torch.cat(parts) for parts in zip(*sides, strict=True))
        if left.shape != errors.shape or len(right) != len(few):
            continue
        rest = outputs - right @ objective.params[own["weight"]].reshape(-1, right.shape[1]).T
        close = _AGREEMENT * float(outputs.abs().max())
        constant = float((rest - rest[:1]).abs().max()) <= close
        # An error is a difference of numbers as large as the outputs, and rounds as they do.
        size = float(errors.abs().max()) + close
        if constant and float((left - errors).abs().max()) <= _AGREEMENT * size:
            return own["weight"], own.get("bias")
    raise UnsupportedModel(
        "Expected a model whose outputs are those of a last linear layer, its weight selected and "
        "one row of inputs per example. Got outputs that no such layer gives. Use "
        "whence.influence or whence.projected."
    )


def _penalized(l2: Tensor) -> Tensor:
    """Return the penalties of the weights, all of which must be positive."""
    if not bool((l2 > 0).all()):
        raise UnsupportedModel(
            "Expected l2 > 0 on every weight of the top layer: without it the weights are no sum "
            f"over examples. Got {float(l2.min()):g}. Train with a penalty, and pass l2= to "
            "from_torch."
        )
    return l2
