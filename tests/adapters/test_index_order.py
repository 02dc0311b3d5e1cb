"""What has the index of the rows in another order is refused: it would be read by position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

import whence
from whence.errors import InvalidInput

_NAMES = [f"row {i}" for i in range(40)]
_X = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), index=_NAMES, columns=["a", "b"])
_Y = (_X["a"] > 0).astype(int)
_GROUPS = _X["b"].gt(0).map({True: "up", False: "down"})
_TURNED = _NAMES[::-1]
_ESTIMATORS = [LogisticRegression(), RandomForestClassifier(5, random_state=0)]


def _model(estimator: Any) -> Any:
    return whence.from_sklearn(estimator.fit(_X, _Y), _X, _Y)


@pytest.mark.parametrize("estimator", _ESTIMATORS)
@pytest.mark.parametrize(
    "use",
    [
        lambda e: whence.from_sklearn(e.fit(_X, _Y), _X, _Y[_TURNED]),
        lambda e: whence.from_sklearn(
            e.fit(_X, _Y), _X, _Y, sample_weight=_Y[_TURNED].astype(float)
        ),
        lambda e: whence.report(_model(e), (_X[:9], _Y[:9][::-1]), "never.html"),
        lambda e: whence.group_effect(_model(e), [0], (_X[:9], _Y[:9][::-1])),
        lambda e: whence.leave_one_out(
            _model(e),
            [0],
            (_X[1:], _Y[1:]),
            measure=whence.measures.DemographicParity(_GROUPS[1:][::-1]),
        ),
        lambda e: whence.group_effect(
            _model(e),
            [0],
            (_X[1:], _Y[1:]),
            measure=whence.measures.DemographicParity(_GROUPS[1:][::-1]),
        ),
        lambda e: whence.domain_mismatch(
            _model(e), (_X[:9], _Y[:9]), groups=_GROUPS[_TURNED], order="newton"
        ),
    ],
)
def test_another_order_of_the_same_index_is_refused(
    estimator: Any, use: Callable[[Any], Any]
) -> None:
    with pytest.raises(InvalidInput, match="in the order of the rows.*same index in another"):
        use(estimator)


def test_positions_are_read_where_they_are_meant() -> None:
    values = []
    for groups in (_GROUPS[1:], _GROUPS[1:].to_numpy(), _GROUPS[1:].reset_index(drop=True)):
        queries = _X[1:], _Y[1:].reset_index(drop=True)
        measure = whence.measures.DemographicParity(groups)
        values.append(
            whence.influence(_model(LogisticRegression()), queries, measure=measure).values
        )
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(values[0], values[2])
    numbered = _X.reset_index(drop=True)
    shuffled = pd.Series(
        _Y.to_numpy(), index=np.arange(40)[::-1]
    )  # rows without names of their own
    whence.from_sklearn(LogisticRegression().fit(numbered, _Y), numbered, shuffled)
