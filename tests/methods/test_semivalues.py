"""Named values of examples: estimates from fits, against the sums that define them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.neighbors import KNeighborsRegressor, RadiusNeighborsRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

import whence
from whence.adapters.rows import RowExamples
from whence.errors import InvalidInput
from whence.methods.resolution import fits_to_resolve
from whence.methods.semivalues import Kind, Semivalue, Semivalues
from whence.objective.losses import Loss

_N = 10
_SQUARED = whence.SquaredError()


@dataclass(frozen=True, eq=False, kw_only=True)
class Game(whence.Trained):
    """A model whose prediction is a function of which rows it was fitted on."""

    train: RowExamples
    weights: Tensor
    loss: Loss = _SQUARED
    trained_loss: Loss = _SQUARED
    convex: bool = False
    classes: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()

    def examples(self, data: Any) -> RowExamples:
        return rows(np.atleast_1d(data[1]))

    def outputs(self, examples: Any) -> Tensor:
        return worth(self.weights).expand(len(examples), 1)

    def refit(self, weights: Tensor | None = None) -> Game:
        return self if weights is None else replace(self, weights=weights)


def rows(y: Any) -> RowExamples:
    return RowExamples(
        inputs=np.zeros((len(y), 1)), targets=torch.tensor(y).double(), ids=np.arange(len(y))
    )


def worth(weights: Tensor) -> Tensor:
    """What a set of players is worth: the fourth has no effect without the first."""
    sizes = torch.arange(_N, dtype=torch.float64) / 4
    return (weights @ sizes).sqrt() + weights[..., 0] * weights[..., 3]


def game() -> Game:
    return Game(train=rows(np.zeros(_N)), weights=torch.ones(_N, dtype=torch.float64))


def exact(method: Semivalue) -> np.ndarray:
    """Return the mean of what is lost with each player, over the shares that the method draws."""
    everything = torch.tensor(list(product([0.0, 1.0], repeat=_N)), dtype=torch.float64)
    shares = torch.from_numpy(method.subsets(_N)[1])
    values = []
    for i in range(_N):
        without = everything[everything[:, i] == 0]
        joined = without.clone()
        joined[:, i] = 1
        size = without.sum(1)
        chance = torch.stack([(p**size * (1 - p) ** (_N - 1 - size)) for p in shares[:200]])
        values.append(float((chance @ (worth(without) - worth(joined))).mean()))
    return np.array(values)


@pytest.mark.parametrize("kind", ["banzhaf", "beta-shapley", "shapley"])
def test_estimates_are_the_sums_that_define_them(kind: Kind) -> None:
    method = Semivalue(kind=kind, fits=6000, beta=(4.0, 1.0))
    attribution = method.fit(game())
    assert isinstance(attribution, Semivalues)
    query = np.zeros((1, 1)), [0.0]
    found = attribution.scores(query, measure="prediction").values[0]
    errors = attribution.standard_errors(query, measure="prediction")[0]
    expected = exact(method)
    assert (np.abs(found - expected) < 4 * errors + 0.03 * np.abs(expected).max()).all()
    assert errors.max() < 0.2 * np.abs(expected).max()


def test_in_out_is_the_difference_of_two_means() -> None:
    x, y = load_diabetes(return_X_y=True)
    trained = whence.from_sklearn(
        RadiusNeighborsRegressor(0.5).fit(x[10:70], y[10:70]), x[10:70], y[10:70]
    )
    method = whence.Semivalue(kind="in-out", fits=40)
    scores = method.fit(trained).scores((x[:3], y[:3]), measure="prediction")
    kept, _ = method.subsets(60)
    assert (kept.sum(1) == 30).all()
    fits = list(trained.refits(torch.from_numpy(kept).double()))
    outcomes = np.stack([fit.outputs(trained.examples((x[:3], y[:3])))[:, 0] for fit in fits])
    expected = np.stack(
        [outcomes[~inside].mean(0) - outcomes[inside].mean(0) for inside in kept.T], 1
    )
    np.testing.assert_allclose(scores.values, expected)
    left, rates = (
        outcomes - outcomes.mean(0),
        np.where(kept, -1 / kept.mean(0), 1 / (~kept).mean(0)),
    )
    each = left.T[:, :, None] * rates  # what each fit adds to a mean
    errors = each.std(1) / np.sqrt(39)
    found = method.fit(trained).standard_errors((x[:3], y[:3]), measure="prediction")  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, errors)
    predicted = np.zeros_like(left)
    for fold in range(5):
        held = np.arange(40) % 5 == fold
        rest = kept[~held]
        rates = np.where(rest, -1 / rest.mean(0), 1 / (~rest).mean(0))
        predicted[held] = -(kept[held] - 0.5) @ rates.T @ left[~held] / len(rest)
    agreement = np.mean([spearmanr(predicted[:, q], left[:, q])[0] for q in range(3)])
    assert scores.diagnostics is not None
    share = np.sqrt((errors**2).mean()) / scores.values.std(ddof=1)
    assert f"{share:.2g} of the spread" in scores.diagnostics.notes[-2]
    assert f"(LDS) of {agreement:.2f} ±" in scores.diagnostics.notes[-1]


@pytest.mark.parametrize("kind", ["shapley", "beta-shapley"])
def test_subsets_are_of_a_size_that_the_model_can_be_fitted_to(kind: Kind) -> None:
    """Five neighbors vote: of three examples there are none."""
    x, y = load_diabetes(return_X_y=True)
    x, y = x[:110], y[:110]
    estimator = KNeighborsRegressor().fit(x[10:], y[10:])
    trained = whence.from_sklearn(estimator, x[10:], y[10:])
    scores = Semivalue(kind=kind).fit(trained).scores((x[:3], y[:3]), measure="prediction")
    assert scores.diagnostics is not None
    note = next(note for note in scores.diagnostics.notes if "could not be fitted" in note)
    least = float(re.findall(r"of (0\.\d+) at least", note)[0])
    kept, shares = Semivalue(kind=kind).subsets(100, least)
    assert kept.sum(1).min() >= 5
    assert Semivalue(kind=kind).subsets(100, least / 2)[0].sum(1).min() < 5
    outcomes = np.stack(
        [clone(estimator).fit(x[10:][inside], y[10:][inside]).predict(x[:3]) for inside in kept]
    )
    line = np.stack([np.ones(200), shares], 1)
    left = outcomes - line @ np.linalg.lstsq(line, outcomes)[0]
    rates = ~kept / (1 - shares[:, None]) - kept / shares[:, None]
    np.testing.assert_allclose(scores.values, left.T @ rates / 200, atol=1e-9 * np.ptp(y))


@pytest.mark.parametrize(
    "estimator",
    [
        DecisionTreeClassifier(max_depth=2, random_state=0),  # needs all classes
        RandomForestRegressor(2, random_state=0),  # needs a row
        SVC(gamma=0.1),
    ],
)
def test_small_subsets_of_models_of_each_kind(estimator: Any) -> None:
    load = load_diabetes if "Regressor" in type(estimator).__name__ else load_breast_cancer
    x, y = load(return_X_y=True)
    x, y = StandardScaler().fit_transform(x[:90, :4]), y[:90]
    trained = whence.from_sklearn(estimator.fit(x[3:], y[3:]), x[3:], y[3:])
    scores = Semivalue(kind="beta-shapley", fits=100).fit(trained).scores((x[:3], y[:3]))
    assert np.isfinite(scores.values).all()
    assert np.abs(scores.values).max() > 0


def test_an_example_that_all_fits_kept_or_none_has_no_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As some of a million rows are by twenty fits."""
    monkeypatch.setattr("whence.methods.semivalues._FEWEST", 4)
    x, y = load_diabetes(return_X_y=True)
    trained = whence.from_sklearn(
        RadiusNeighborsRegressor(0.5).fit(x[10:70], y[10:70]), x[10:70], y[10:70]
    )
    method = whence.Semivalue(kind="in-out", fits=4)
    scores = method.fit(trained).scores((x[:3], y[:3]), measure="prediction").values
    share = method.subsets(60)[0].mean(0)
    assert (share == 1).any()
    assert (share == 0).any()
    largest = np.abs(scores).max()
    assert largest > 0
    assert np.abs(scores[:, (share == 0) | (share == 1)]).max() < 1e-12 * largest


def test_options_that_cannot_be_used() -> None:
    with pytest.raises(InvalidInput, match="one of 'banzhaf'"):
        whence.Semivalue(kind="owen")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="fits >= 20"):
        whence.Semivalue(fits=5)
    with pytest.raises(InvalidInput, match="both > 0"):
        whence.Semivalue(beta=(0.0, 1.0))
    assert whence.Semivalue(fits=20).fits == 20


def test_how_many_fits_name_the_same_first_examples() -> None:
    values = np.r_[np.linspace(2, 3, 10), np.linspace(-1, 1, 90)]
    few = fits_to_resolve(values, np.full(100, 0.3), 50)
    many = fits_to_resolve(values, np.full(100, 3.0), 50)
    assert few == 50
    assert many is not None
    assert 50 * 16 <= many <= 50 * 256  # errors ten times as large need a hundred times as many
    assert fits_to_resolve(np.ones(100), np.ones(100), 50) is None


def test_an_ensemble_says_how_many_fits_would_do() -> None:
    x, y = load_diabetes(return_X_y=True)
    trained = whence.from_sklearn(
        RadiusNeighborsRegressor(0.5).fit(x[10:70], y[10:70]), x[10:70], y[10:70]
    )
    ensemble = whence.Retrained(fits=20).ensemble(trained)
    needed = ensemble.fits_to_resolve((x[:2], y[:2]), measure="prediction", k=5)
    assert len(needed) == 2
    assert all(one is None or one >= 20 for one in needed)
    scores = ensemble.scores((x[:1], y[:1]), measure="prediction")
    assert scores.diagnostics is not None
    assert any("the first ten" in note for note in scores.diagnostics.notes)


@pytest.mark.parametrize(("n", "least"), [(10, 0.2), (1000, 0.02)])
def test_no_subset_is_nearly_empty_or_nearly_whole(n: int, least: float) -> None:
    """Two examples or two in a hundred at the least, and as few in a hundred left out."""
    shares = Semivalue(kind="shapley", fits=2000).subsets(n)[1]
    assert shares.min() == least
    assert shares.max() == 0.98
    skewed = Semivalue(kind="beta-shapley", fits=2000, beta=(4.0, 1.0)).subsets(n)[1]
    assert skewed.mean() < 0.4  # of Beta(1, 4): the values of small sets
