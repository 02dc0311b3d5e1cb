"""A prediction as the examples behind it are removed together, against the user's own refits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression, Ridge

import whence
from whence.applications import firmness as module
from whence.applications.explanation import Explanation
from whence.applications.firmness import firmness
from whence.views.firmness import Firmness

X, Y = load_diabetes(return_X_y=True)
_N = 60
_MODEL = Ridge(alpha=0.1).fit(X[:_N], Y[:_N])


def explained(query: int, measure: str = "prediction") -> Explanation:
    trained = whence.from_sklearn(_MODEL, X[:_N], Y[:_N])
    return whence.explain(trained, X[query : query + 1], measure=measure, k=3)


def found_for(explanation: Explanation) -> Firmness | None:
    return firmness(explanation._parts(), explanation.scores)


def of_sides() -> list[int]:
    """A query whose prediction is above the mean of the training targets, and one below it."""
    high = _MODEL.predict(X[_N:]) >= Y[:_N].mean()
    return [_N + int(high.argmax()), _N + int(high.argmin())]


@pytest.mark.parametrize("query", of_sides())
def test_each_point_is_a_refit_without_what_pushes_away_from_the_mean(query: int) -> None:
    explanation = explained(query)
    found = found_for(explanation)
    assert found is not None
    assert found.flips_at is None
    above = _MODEL.predict(X[query : query + 1])[0] >= Y[:_N].mean()
    effects = explanation.scores.values[0]  # of an example that pushes up: negative
    order = np.argsort(effects if above else -effects, kind="stable")
    pushing = order[(effects < 0 if above else effects > 0)[order]]
    for removed, value in found.points:
        keep = np.setdiff1d(np.arange(_N), pushing[:removed])
        refit = clone(_MODEL).fit(X[keep], Y[keep])
        assert value == pytest.approx(refit.predict(X[query : query + 1])[0])
    removed = [point[0] for point in found.points]
    last = min(100, len(pushing), _N // 2)
    assert removed == np.unique(np.linspace(0, last, 8).round()).tolist()
    assert found.phrase == explanation.quantity.phrases[0 if above else 1]


def test_the_course_of_a_fit_that_stopped_early_begins_where_its_own_end_is() -> None:
    x, y = load_iris(return_X_y=True)
    y = np.minimum(y, 1)
    model = LogisticRegression(tol=1.0).fit(x[1:], y[1:])
    finished = clone(model).set_params(tol=1e-10, max_iter=10_000).fit(x[1:], y[1:])
    trained = whence.from_sklearn(model, x[1:], y[1:])
    with pytest.warns(whence.errors.NotConvergedWarning):
        found = found_for(whence.explain(trained, (x[:1], y[:1]), k=3, measure="probability"))
    assert found is not None
    assert found.points[0][1] == pytest.approx(finished.predict_proba(x[:1])[0, 0], rel=1e-4)
    assert found.points[0][1] != pytest.approx(model.predict_proba(x[:1])[0, 0], rel=1e-2)


def test_without_an_example_that_pushes_or_where_refits_are_slow_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    explanation = explained(of_sides()[0])
    still = replace(explanation.scores, values=np.zeros_like(explanation.scores.values))
    assert firmness(explanation._parts(), still) is None
    monkeypatch.setattr(module, "is_cheap", lambda _: False)
    assert found_for(explanation) is None


def test_of_a_classifier_the_examples_are_those_that_flip_it() -> None:
    x, y = load_iris(return_X_y=True)
    x, y = x[50:], y[50:]
    trained = whence.from_sklearn(LogisticRegression(tol=1e-9).fit(x[1:], y[1:]), x[1:], y[1:])
    explanation = whence.explain(trained, (x[20:21], y[20:21]), k=2)
    found, flip = found_for(explanation), whence.flip_set(trained, explanation.query)
    assert found is not None
    assert flip.found
    assert (found.flips_at, found.flips_to) == (
        len(flip.positions),
        str(trained.classes[flip.after]),
    )
    assert found.points[-1][0] == len(flip.positions)
    assert found.phrase == f"to “{trained.classes[flip.before]}”"
