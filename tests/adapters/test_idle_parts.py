"""A row of weight 0 is not in fits to parts of the data that leave it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.linear_model import Ridge

import whence
from whence.methods.expected_removal import expected_removals
from whence.objective.trained import Trained

_N = 24
_IDLE = 5
_MARK = 9.0  # in the first column of the row of weight 0
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(_N, 3))
X[_IDLE, 0] = _MARK
Y = X[:, 0] + _RNG.normal(size=_N)
WEIGHTS = np.where(np.arange(_N) == _IDLE, 0.0, 1.0)
QUERIES = X[:4], Y[:4]


class Watched(Ridge):  # type: ignore[misc]
    """An estimator that tells which fits had the row of weight 0."""

    seen: ClassVar[list[bool]] = []

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Watched:
        self.seen.append(bool((X[:, 0] == _MARK).any()))
        super().fit(X, y, sample_weight)
        return self


def _expected(trained: Trained) -> Any:
    query = trained.examples(QUERIES)
    return expected_removals(trained, np.array([_IDLE]), query, trained.loss, subsets=4)


_CALLS: dict[str, Callable[[Trained], Any]] = {
    "retrained": lambda trained: whence.Retrained(fits=20).fit(trained).scores(QUERIES),
    "semivalues": lambda trained: whence.Semivalue(fits=20).fit(trained).scores(QUERIES),
    "evaluated": lambda trained: whence.evaluate(trained, QUERIES, subsets=20),
    "expected": _expected,
}


@pytest.mark.parametrize("name", _CALLS)
@pytest.mark.filterwarnings("ignore")  # of a few fits
def test_parts_leave_a_row_of_weight_0_out(name: str) -> None:
    fitted = Watched().fit(X, Y, WEIGHTS)
    trained = whence.from_sklearn(fitted, X, Y, sample_weight=WEIGHTS)
    Watched.seen.clear()
    _CALLS[name](trained)
    share = sum(not seen for seen in Watched.seen) / len(Watched.seen)
    assert 0.1 < share < 0.9
