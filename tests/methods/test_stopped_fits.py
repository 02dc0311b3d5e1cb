"""A fit that says of itself that it stopped early is not explained in silence."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import scale
from sklearn.svm import SVC, LinearSVC

import whence
from whence.adapters.stopped import stopped_early
from whence.diagnostics import Diagnostics, fit_status
from whence.errors import NotConvergedWarning
from whence.views.statuses import statuses_of


def _cancer() -> tuple[Any, Any]:
    X, y = load_breast_cancer(return_X_y=True)
    return scale(X), y


def _unfinished(max_iter: int) -> Any:
    """A logistic regression that scikit-learn itself says has not converged."""
    X, y = _cancer()
    with pytest.warns(ConvergenceWarning):
        return LogisticRegression(solver="saga", max_iter=max_iter, random_state=0).fit(
            X[100:], y[100:]
        )


def _moved(model: Any, X: Any, y: Any, at: int) -> float:
    """What finishing the fit moves the loss of a query by, by scikit-learn's own fit."""
    finished = clone(model).set_params(tol=1e-10, solver="lbfgs", max_iter=10_000).fit(X, y)
    X_all, y_all = _cancer()
    losses = [
        -float(each.predict_log_proba(X_all[at : at + 1])[0, y_all[at]])
        for each in (model, finished)
    ]
    return abs(losses[1] - losses[0])


def test_the_share_is_stated_and_is_that_of_a_finished_fit() -> None:
    X, y = _cancer()
    model = _unfinished(100)
    shares = []
    for at in range(8):
        objective = whence.from_sklearn(model, X[100:], y[100:])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = whence.explain(objective, (X[at : at + 1], y[at : at + 1]), k=3)
        first, diagnostics = found.scores.diagnostics, found.diagnostics
        assert first is not None
        assert first.unfinished is not None
        assert diagnostics is not None
        assert diagnostics.unfinished is not None
        largest = max(abs(each.effect) for each in (*found.raising, *found.lowering))
        share = _moved(model, X[100:], y[100:], at) / largest
        shares.append(share)
        said = [each for each in caught if issubclass(each.category, NotConvergedWarning)]
        assert bool(said) == (diagnostics.unfinished > 0.1)  # one rule, beside what is shown
        if 0.05 < share < 0.5:  # to first order near the truth
            assert diagnostics.unfinished == pytest.approx(share, rel=0.5)
        if said:
            words = str(said[0].message)
            assert "Got LogisticRegression stopped at its max_iter of 100" in words
            assert f"{diagnostics.unfinished:.2g} times the largest effect shown" in words
        if diagnostics.unfinished > 0.1:
            fit, *_ = statuses_of(diagnostics)
            assert fit.level == "bad"
            assert "stopped at its max_iter of 100" in fit.words
    assert max(shares) > 0.1


@pytest.mark.parametrize("tol", [1.0, 0.1, 1e-3])
@pytest.mark.parametrize("scaled", [False, True])
def test_of_a_fit_far_from_its_minimum_the_share_is_that_of_scikit_learns_own_end(
    tol: float, scaled: bool
) -> None:
    # To first order finishing the fit changes this answer by a tenth of that, or less.
    X, y = load_breast_cancer(return_X_y=True)
    X = scale(X) if scaled else X
    model = LogisticRegression(tol=tol, max_iter=10_000).fit(X[:400], y[:400])
    finished = LogisticRegression(solver="newton-cholesky", tol=1e-10).fit(X[:400], y[:400])
    objective = whence.from_sklearn(model, X[:400], y[:400])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        found = whence.explain(objective, (X[413:414], y[413:414]), k=3)
    before, after = (float(each.predict_log_proba(X[413:414])[0, 1]) for each in (model, finished))
    largest = max(abs(each.effect) for each in (*found.raising, *found.lowering))
    assert found.diagnostics is not None
    assert found.diagnostics.unfinished == pytest.approx(abs(after - before) / largest, rel=1e-2)


@pytest.mark.parametrize(
    "model",
    [
        SVC(kernel="linear", C=1e4, max_iter=20),
        LinearSVC(loss="hinge", C=1e4, max_iter=20, random_state=0),
    ],
    ids=["SVC", "LinearSVC"],
)
def test_a_stopped_fit_of_a_hinge_is_said(model: Any) -> None:
    X, y = _cancer()
    with pytest.warns(ConvergenceWarning):
        model = clone(model).fit(X[100:170], y[100:170])
    objective = whence.from_sklearn(model, X[100:170], y[100:170])
    with pytest.warns(NotConvergedWarning, match="stopped at its max_iter of 20"):
        whence.explain(objective, (X[:1], y[:1]), k=2)


def test_one_rule_with_two_parties() -> None:
    for share in (0.19, 0.31, 0.49):
        assert fit_status(3.0, share) == "nearly converged"
        assert fit_status(3.0, share, stopped=True) == "not converged"
    assert fit_status(3.0, 0.05, stopped=True) == "converged"
    assert fit_status(0.3, stopped=True) == "not converged"


def test_a_finished_fit_and_a_refit_say_nothing() -> None:
    X, y = _cancer()
    model = LogisticRegression(tol=1e-10, max_iter=5000).fit(X[100:], y[100:])
    assert whence.from_sklearn(model, X[100:], y[100:]).stopped == ""
    objective = whence.from_sklearn(_unfinished(20), X[100:], y[100:])
    assert objective.stopped
    again = objective.refit()
    assert again.stopped == ""
    whence.explain(again, (X[:1], y[:1]), k=2)  # warnings are errors


def test_pipelines_and_other_estimators_say_so_too() -> None:
    X, y = _cancer()
    with pytest.warns(ConvergenceWarning):
        pipeline = make_pipeline(LogisticRegression(max_iter=3)).fit(X, y)
    assert "max_iter of 3" in whence.from_sklearn(pipeline, X, y).stopped
    with pytest.warns(ConvergenceWarning):
        assert stopped_early(LinearSVC(max_iter=2, random_state=0).fit(X, y))
    Z, t = load_diabetes(return_X_y=True)
    with pytest.warns(ConvergenceWarning):
        assert stopped_early(Lasso(alpha=1e-6, max_iter=2).fit(Z, t))
    assert stopped_early(Lasso(alpha=0.1).fit(Z, t)) == ""
    assert stopped_early(np) == ""


def test_a_network_is_not_told_to_refit_which_it_cannot() -> None:
    far = Diagnostics(gradient_in_examples=137.0, unfinished=7.2)
    assert "objective.refit()" in statuses_of(far)[0].words
    assert "objective.refit()" not in statuses_of(far, sized=False)[0].words
    assert "removing 140 typical examples" in statuses_of(far)[0].numbers


def test_a_page_of_many_says_a_fit_unfinished_beside_what_it_shows(tmp_path: Path) -> None:
    X, y = _cancer()
    model, differ = _unfinished(100), 0
    for at in (0, 3, 12, 39):
        objective, query = whence.from_sklearn(model, X[100:], y[100:]), (X[at], y[at])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            whence.report(objective, (X[at : at + 1], y[at : at + 1]), tmp_path / "page.html", k=3)
        said = [each for each in caught if issubclass(each.category, NotConvergedWarning)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = whence.explain(objective, query, k=3)
        first, shown = found.scores.diagnostics, found.diagnostics
        assert first is not None
        assert shown is not None
        assert bool(said) == (shown.fit == "not converged")
        differ += first.fit != shown.fit
    assert differ
