r"""Effects of training examples from fits to random subsets: a shrunken datamodel.

With m_bi = 1 where fit b kept example i, a measure y_b of a query is taken as linear in what was
left out: y_b ≈ y₀ − Σᵢ m_bi τᵢ. A plain regression needs more fits than there are examples. Here τ
is shrunk toward a prior, a sum of products *similarity × pull*:

```
τᵢ = Σ_k a_k K_k(q, i) ⟨∇_f m_q, ∇_f ℓᵢ⟩ + δᵢ,        δ by ridge regression of what is left over
```

which is influence with a few cheap similarities in place of the inverse curvature. The a_k >= 0 and
the strength of the ridge are learned from the training examples, each as a query of the fits that
left it out, on fits that were held back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from whence.evaluation.correlation import RankCorrelation, bootstrap, draw, spearman
from whence.methods.similarity import covariation, likeness
from whence.objective.losses import Loss
from whence.objective.measures import Measure
from whence.tiles import drawn

FOLDS = 5  # into which fits are divided to judge one part by the others
_LEARNED = 60  # training examples from which the weights of the prior are learned
_ROUNDING = 1e-9  # a spread this small beside the numbers is none
_STRENGTHS = (None, 3.0, 1.0, 0.3, 0.1)  # of the ridge, over the largest eigenvalue; None: no δ


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Fits:
    """What b fits to random subsets answer.

    Args:
        kept: 1 where a fit kept a training example, [b, n].
        train: Outputs of the training examples, [b, n, c].
        targets: Their targets, [n].
        points: Their inputs as points, [n, d], or `None`.
        loss: ℓ.
    """

    kept: Tensor
    train: Tensor
    targets: Tensor
    points: Tensor | None
    loss: Loss

    @property
    def left_out(self) -> Tensor:
        """The mean output of each training example over the fits that left it out, [n, c]."""
        out = (1 - self.kept).unsqueeze(2)
        return (self.train * out).sum(0) / out.sum(0).clamp_min(1)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Asked:
    """What the same fits answer to queries.

    Args:
        outputs: Outputs, [b, q, c].
        targets: Targets, [q].
        points: Inputs as points, [q, d], or `None`.
    """

    outputs: Tensor
    targets: Tensor
    points: Tensor | None

    def outcomes(self, measure: Measure) -> Tensor:
        """Return the measure of each query in each fit, [b, q]."""
        return torch.stack([measure(outputs, self.targets) for outputs in self.outputs])


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Shrinkage:
    """The fitted prior and noise of one measure.

    Args:
        weights: a, [k].
        strength: Of the ridge, over the largest eigenvalue; `None` for the prior alone.
    """

    weights: Tensor
    strength: float | None


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Effects:
    """Estimated effects of training examples on queries.

    Args:
        values: τ, [q, n]: what is added to the measure if a fit to a subset leaves i out.
        errors: Standard errors from fits alone, by the jackknife over groups of fits, [q, n].
        agreement: Rank correlation of predicted and actual outcomes of held-back fits, the mean
            over queries; `None` where no outcome varies.
        spread: The standard error of that, by the bootstrap over fits and queries.
    """

    values: Tensor
    errors: Tensor
    agreement: float | None
    spread: float


def shrinkage(fits: Fits, measure: Measure) -> Shrinkage:
    """Return the weights of the prior and the strength of the ridge for a measure.

    Args:
        fits: The fits.
        measure: m.

    Returns:
        Weights that predict held-back fits best, and the strength with the best rank correlation.

    Cost:
        600 eigendecompositions of [b/2, b/2] and products of [b/2, n].
    """
    n = len(fits.targets)
    known = np.sort(drawn(n, _LEARNED))
    out_outputs, parts = fits.left_out, []
    for at in known.tolist():
        out = torch.nonzero(fits.kept[:, at] == 0).flatten()
        if len(out) < 2 * FOLDS:
            continue
        asked = Asked(
            outputs=fits.train[out][:, [at]],
            targets=fits.targets[[at]],
            points=None if fits.points is None else fits.points[[at]],
        )
        y = asked.outcomes(measure).squeeze(1)
        size, largest = float(y.std()), float(y.abs().max())
        if size <= _ROUNDING * largest:
            continue
        y = y - y.mean()
        pull = _pulls(fits, out_outputs, measure, out_outputs[[at]], asked.targets)
        alike = _likeness(fits, asked)
        kept = fits.kept[out]
        for rest, held in _folds(len(out)):
            features = _prior(alike, pull, asked.outputs[rest], fits.train[out[rest]])
            inside, held_back = kept[rest] - kept[rest].mean(0), kept[held] - kept.mean(0)
            parts.append(
                _Part(
                    query=at,
                    ridge=_Ridge.of(inside),
                    across=held_back @ inside.T,
                    inside=-inside @ features.squeeze(1).T / size,
                    held=-held_back @ features.squeeze(1).T / size,
                    outcomes=(y[rest] - y[rest].mean()) / size,
                    actual=y[held] / size,
                )
            )
    if not parts:
        count = 2 * (1 + (0 if fits.points is None else 6))
        return Shrinkage(weights=fits.train.new_zeros(count), strength=1.0)
    weights = _weights(parts)
    scored = [_held_back(parts, weights, strength) for strength in _STRENGTHS]
    return Shrinkage(weights=weights, strength=_STRENGTHS[int(np.argmax(scored))])


def effects(fits: Fits, asked: Asked, measure: Measure, learned: Shrinkage) -> Effects:
    """Return the effects of all training examples on queries.

    Args:
        fits: The fits.
        asked: Their answers to the queries.
        measure: m.
        learned: The shrinkage for this measure.

    Returns:
        τ with its standard errors, and how well held-back fits are predicted.
    """
    y = asked.outcomes(measure)
    pull = _pulls(fits, fits.left_out, measure, asked.outputs.mean(0), asked.targets)
    alike = _likeness(fits, asked)

    def estimated(where: Tensor) -> Tensor:
        """Return τ from some of the fits, [q, n]."""
        features = _prior(alike, pull, asked.outputs[where], fits.train[where])
        prior = torch.einsum("k,kqn->qn", learned.weights, features)
        return _shrunk(prior, fits.kept[where], y[where], learned.strength)

    values = estimated(torch.arange(len(y)))
    predicted = torch.zeros_like(y)
    each = torch.zeros(FOLDS, *values.shape, dtype=values.dtype)
    for at, (rest, held) in enumerate(_folds(len(y))):
        each[at] = estimated(rest)
        predicted[held] = -(fits.kept[held] - fits.kept.mean(0)) @ each[at].T
    errors = each.var(0, correction=0).mul(FOLDS - 1).sqrt()
    agreement, spread = rank_agreement(predicted.numpy(), y.numpy())
    return Effects(values=values, errors=errors, agreement=agreement, spread=spread)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class _Ridge:
    """The products of what fits kept, decomposed.

    Args:
        squares: Eigenvalues, ascending, [b].
        vectors: Eigenvectors, [b, b].
    """

    squares: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, centered: Tensor) -> _Ridge:
        """Return those of centered rows, [b, n]."""
        squares, vectors = torch.linalg.eigh(centered @ centered.T)
        return cls(squares=squares, vectors=vectors)

    def duals(self, left: Tensor, strength: float) -> Tensor:
        """Return (Z Zᵀ + s λ_max I)⁻¹ of what is left over, [b, q]."""
        damped = self.squares + strength * self.squares[-1].clamp_min(1e-300)
        return self.vectors @ ((self.vectors.T @ left) / damped.unsqueeze(1))


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class _Part:
    """One training example as a query of some fits that left it out, others held back.

    Args:
        query: Its position.
        ridge: Of what the b fits kept.
        across: Products of what the h held back kept with those, [h, b].
        inside: Outcomes of the fits as each part of the prior predicts them, [b, k].
        held: The same of those held back, [h, k].
        outcomes: Outcomes of the fits, centered, [b].
        actual: Those of the fits held back, centered alike, [h].
    """

    query: int
    ridge: _Ridge
    across: Tensor
    inside: Tensor
    held: Tensor
    outcomes: Tensor
    actual: Tensor

    def predicted(self, weights: Tensor, strength: float | None) -> Tensor:
        """Return predicted outcomes of the fits held back, [h]."""
        prior = self.held @ weights
        if strength is None:
            return prior
        left = self.outcomes - self.inside @ weights
        return prior + self.across @ self.ridge.duals(left.unsqueeze(1), strength).squeeze(1)


def _weights(parts: list[_Part]) -> Tensor:
    """Return the a_k >= 0 that predict outcomes of held-back fits best, [k]."""
    rows = torch.cat([part.held for part in parts])
    actual = torch.cat([part.actual for part in parts])
    sizes = rows.norm(dim=0).clamp_min(1e-300)
    solution, _ = nnls((rows / sizes).numpy(), actual.numpy())
    weights: Tensor = torch.from_numpy(solution) / sizes
    return weights


def _held_back(parts: list[_Part], weights: Tensor, strength: float | None) -> float:
    """Return the mean rank correlation of predicted and actual outcomes of held-back fits."""
    predicted: dict[int, list[Tensor]] = {}
    actual: dict[int, list[Tensor]] = {}
    for part in parts:
        predicted.setdefault(part.query, []).append(part.predicted(weights, strength))
        actual.setdefault(part.query, []).append(part.actual)
    found = [_rank_correlation(torch.cat(predicted[at]), torch.cat(actual[at])) for at in predicted]
    return float(np.mean(found))


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    """Return Spearman's correlation of two lists; 0 where one is constant."""
    return float(np.nan_to_num(spearman(a.numpy()[:, None], b.numpy()[:, None]))[0])


def _likeness(fits: Fits, asked: Asked) -> Tensor:
    """Return the similarities of inputs, [k, q, n]; none where inputs are no points."""
    if fits.points is None or asked.points is None:
        q, n = len(asked.targets), len(fits.targets)
        return fits.train.new_zeros(0, q, n)
    return likeness(asked.points, fits.points)


def _pulls(fits: Fits, out: Tensor, measure: Measure, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return ⟨∇_f m_q, ∇_f ℓᵢ⟩, [2, q, n]: ∇ℓᵢ at the example's own outputs, and at the query's."""
    slopes = measure.gradient(outputs, targets)
    own: Tensor = slopes @ fits.loss.gradient(out, fits.targets).T
    there = []
    for slope, output in zip(slopes, outputs, strict=True):
        same = output.expand(len(fits.targets), -1).contiguous()
        there.append(fits.loss.gradient(same, fits.targets) @ slope)
    pulls: Tensor = torch.stack([own, torch.stack(there)])
    return pulls


def _prior(alike: Tensor, pull: Tensor, asked: Tensor, train: Tensor) -> Tensor:
    """Return all products similarity × pull, [k, q, n]."""
    every = torch.cat([alike, covariation(asked, train).unsqueeze(0)])
    return (every.unsqueeze(1) * pull).flatten(0, 1)


def _shrunk(prior: Tensor, kept: Tensor, outcomes: Tensor, strength: float | None) -> Tensor:
    """Return τ, the prior and the ridge regression of what it leaves over, [q, n]."""
    if strength is None:
        return prior
    centered = kept - kept.mean(0)
    left = outcomes - outcomes.mean(0) + centered @ prior.T
    return prior - _Ridge.of(centered).duals(left, strength).T @ centered


def _folds(b: int) -> list[tuple[Tensor, Tensor]]:
    """Return which of b fits stay and which are held back, once per fold."""
    fold = torch.arange(b) % FOLDS
    return [
        (torch.nonzero(fold != part).flatten(), torch.nonzero(fold == part).flatten())
        for part in range(FOLDS)
    ]


def rank_agreement(
    predicted: NDArray[np.float64], actual: NDArray[np.float64]
) -> tuple[float | None, float]:
    """Return the mean over queries of the rank correlation of outcomes, and its standard error.

    Args:
        predicted: [b, q].
        actual: [b, q].

    Returns:
        The mean, `None` where no outcome varies; its error by the bootstrap over fits and queries.
    """
    varies = (actual.std(0) > _ROUNDING * np.abs(actual).max(0)) & (predicted.std(0) > 0)
    if not varies.any():
        return None, 0.0
    ranks = RankCorrelation(predicted[:, varies], actual[:, varies])
    b, q = predicted[:, varies].shape

    def mean(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean over queries, [r], of fits and queries drawn, [b + q, r]."""
        drawn = counts[b:]
        r = np.nan_to_num(ranks.under(counts[:b]))
        return np.asarray((r * drawn).sum(0) / drawn.sum(0), dtype=np.float64)

    ((low, high),) = bootstrap(
        lambda generator: np.concatenate([draw(generator, b), draw(generator, q)]),
        [mean],
        resamples=200,
        confidence=0.68,
        seed=0,
    )
    return float(mean(np.ones((b + q, 1)))[0]), (high - low) / 2
