"""Folds that a step was given by positions: a removed row leaves them, and the others keep theirs.

The truth is scikit-learn's fit to the rest, given the same folds counted among the rows that stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier, StackingRegressor
from sklearn.feature_selection import RFECV, SelectFromModel
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, PredefinedSplit
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import TargetEncoder
from sklearn.svm import SVR, NuSVC

import whence
from whence.errors import InvalidInput

_N = 60
_GONE = [3, 10]
_SPLITS = list(KFold(4, shuffle=True, random_state=1).split(np.zeros(_N)))
_LOGISTIC = LogisticRegression(solver="newton-cholesky", tol=1e-12)


def _table() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = np.c_[rng.normal(size=(_N, 2)), rng.choice(5, _N)]
    return x, (x[:, 0] + rng.normal(size=_N) + 0.5 * x[:, 2] > 1.3).astype(int)


def _without(cv: Any, out: int) -> list[Any]:
    """Return folds as a user would write them for the rows that stay."""
    folds = cv if isinstance(cv, list) else list(cv.split())
    return [tuple(part[part != out] - (part[part != out] > out) for part in fold) for fold in folds]


def _pipeline(cv: Any, last: Any) -> Any:
    encoder = make_column_transformer((TargetEncoder(cv=cv), [2]), remainder="passthrough")
    return make_pipeline(RFECV(_LOGISTIC, cv=cv) if last is _LOGISTIC else encoder, last)


@pytest.mark.parametrize("cv", [_SPLITS, PredefinedSplit(np.arange(_N) % 4)], ids=["list", "split"])
@pytest.mark.parametrize(
    "last",
    [
        _LOGISTIC,
        LogisticRegression(C=0.5, solver="newton-cholesky", tol=1e-12),
        Ridge(),
        NuSVC(nu=0.3, tol=1e-10),
        GaussianNB(),
        KNeighborsClassifier(),
        GradientBoostingClassifier(n_estimators=3, random_state=0),
    ],
    ids=lambda last: type(last).__name__,
)
def test_removals_are_fits_with_the_folds_of_the_rest(last: Any, cv: Any) -> None:
    x, y = _table()
    model = _pipeline(cv, last).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    queries = whence.leave_one_out(objective, _GONE, (x[:5], y[:5]))
    truth = []
    for out in _GONE:
        rest = np.delete(np.arange(_N), out)
        own = clone(_pipeline(_without(cv, out), last)).fit(x[rest], y[rest])
        removed = whence.from_sklearn(own, x[rest], y[rest])
        truth.append(
            removed.loss(*_outputs(removed, x[:5], y[:5]))
            - objective.loss(*_outputs(objective, x[:5], y[:5]))
        )
    assert queries == pytest.approx(np.stack(truth, 1), abs=3e-5)
    assert any("rows keep their fold" in note for note in objective.notes)


def _outputs(model: Any, x: Any, y: Any) -> tuple[Any, Any]:
    asked = model.examples((x, y))
    return model.outputs(asked), asked.targets


def test_a_search_asks_how_many_folds_there_are() -> None:
    x, y = _table()

    def pipeline(cv: Any) -> Any:
        search = GridSearchCV(_LOGISTIC, {"C": [0.01, 1.0]}, cv=cv)
        chosen = SelectFromModel(search, importance_getter="best_estimator_.coef_")
        return make_pipeline(chosen, Ridge())

    model, rest = pipeline(_SPLITS).fit(x, y), np.delete(np.arange(_N), 3)
    objective = whence.from_sklearn(model, x, y)
    found = whence.leave_one_out(objective, [3], (x[:5], y[:5]), measure=lambda o, t: o[:, 0])
    own = pipeline(_without(_SPLITS, 3)).fit(x[rest], y[rest])
    assert found[:, 0] == pytest.approx(own.predict(x[:5]) - model.predict(x[:5]), abs=1e-9)


class _Fixed:
    """A splitter that names positions whatever it is given."""

    def split(self, x: Any, y: Any = None, groups: Any = None) -> Iterator[Any]:
        yield from _SPLITS

    def get_n_splits(self, x: Any = None, y: Any = None, groups: Any = None) -> int:
        return len(_SPLITS)


def test_a_splitter_that_takes_no_other_number_of_rows_is_a_sentence() -> None:
    x, y = _table()
    objective = whence.from_sklearn(_pipeline(_Fixed(), Ridge()).fit(x, y), x, y)
    with pytest.raises(InvalidInput, match="preprocessing to fit on 59 training rows. Got: index"):
        whence.leave_one_out(objective, [3], (x[:1], y[:1]))


def test_folds_that_are_fitted_on_rows_several_times() -> None:
    """As of a bootstrap: a row that stays is counted as often without another."""
    rng = np.random.default_rng(0)
    n = 30
    x = rng.normal(size=(n, 4))
    y = x[:, 0] + 0.5 * rng.normal(size=n)
    held = np.split(rng.permutation(n), 3)
    splits = [(rng.choice(np.setdiff1d(np.arange(n), part), 20), part) for part in held]
    stack = StackingRegressor([("a", Ridge()), ("b", SVR())], cv=splits).fit(x, y)
    queries = rng.normal(size=(3, 4)), y[:3]

    def change(row: int) -> Any:
        kept = np.delete(np.arange(n), row)
        rest = clone(stack).set_params(cv=_without(splits, row)).fit(x[kept], y[kept])
        return rest.predict(queries[0]) - stack.predict(queries[0])

    trained = whence.from_sklearn(stack, x, y)
    found = whence.leave_one_out(trained, [0, 5, 9], queries, measure=lambda o, t: o[:, 0])
    assert found == pytest.approx(np.stack([change(i) for i in (0, 5, 9)], 1), abs=1e-6)
