"""How much of what retraining shows is chance: fits to the same rows in other orders."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

import whence
from whence.evaluation.chance import Chance

_SAID = "in 5 other orders differ by"


def _table(n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    x, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(x)[: n + 1], y[: n + 1]


def _trained(estimator: Any, n: int) -> tuple[whence.Trained, Any]:
    x, y = _table(n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = clone(estimator).fit(x[1:], y[1:])
    return whence.from_sklearn(fitted, x[1:], y[1:]), (x[:1], y[:1])


@pytest.mark.parametrize(
    "estimator",
    [
        MLPClassifier((4,), batch_size=32, max_iter=5, random_state=0),
        MLPClassifier((4,), max_iter=5, random_state=0, early_stopping=True),
        BaggingClassifier(LogisticRegression(C=1e-3), n_estimators=3, random_state=0),
    ],
    ids=["batches", "rows that tell when to stop", "drawn rows"],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_another_order_is_the_librarys_own_fit_to_it(estimator: Any) -> None:
    trained, query = _trained(estimator, 120)
    x, y = _table(120)
    order = np.random.default_rng(3).permutation(120)
    own = clone(estimator).fit(x[1:][order], y[1:][order])
    moved = trained.reordered(3)
    assert moved is not None
    examples = trained.examples(query)
    found = trained.loss.probabilities(moved.outputs(examples))
    assert found is not None
    np.testing.assert_allclose(found.numpy(), own.predict_proba(query[0]), rtol=1e-9)
    assert not np.allclose(moved.outputs(examples), trained.outputs(examples), rtol=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_verify_and_pages_say_what_batches_do_by_chance(tmp_path: Path) -> None:
    net = MLPClassifier((4,), batch_size=32, max_iter=5, random_state=0)
    trained, query = _trained(net, 120)
    explanation = whence.explain(trained, query, k=2, measure="margin")
    found = explanation.verify(4)
    assert found.chance is not None
    x, y = _table(120)
    margins = []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(120)
        own = clone(net).fit(x[1:][order], y[1:][order]).predict_proba(query[0])[0]
        margins.append(np.log(own[y[0]] / own[1 - y[0]]))
    share = np.std(margins, ddof=1) / np.sqrt(np.square(found.actual).mean())
    assert found.chance.share(found.actual) == pytest.approx(share, rel=1e-6)
    assert _SAID in str(found)
    page = explanation.report(tmp_path / "page.html", verification=found).read_text()
    assert _SAID in page


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_nothing_is_said_where_the_order_changes_nothing() -> None:
    net = MLPClassifier((4,), batch_size=60, max_iter=5, random_state=0)  # one batch
    trained, query = _trained(net, 60)
    found = whence.explain(trained, query, k=2).verify(3)
    assert found.chance is not None
    assert found.chance.share(found.actual) < 1e-6
    assert _SAID not in str(found)


def test_a_steady_fit_is_not_repeated() -> None:
    trained, query = _trained(LogisticRegression(max_iter=1_000), 120)
    assert trained.reordered(0) is None
    assert whence.explain(trained, query, k=2).verify(3).chance is None


def test_chance_is_told_by_its_share_of_the_changes() -> None:
    chance = Chance(outcomes=np.array([[0.0], [1.0], [2.0]]))
    assert chance.said(np.array([[20.0, -20.0]])) == ""
    assert "a part of them is chance" in chance.said(np.array([[4.0, -4.0]]))
    assert "says little of the scores" in chance.said(np.array([[1.0, -1.0]]))
