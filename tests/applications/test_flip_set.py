"""Sets whose removal flips a prediction, held against scikit-learn's own refits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression, Ridge

import whence
from whence.errors import InvalidInput


@pytest.mark.parametrize("classes", [2, 10])
def test_scikit_learn_flips_too(classes: int) -> None:
    x, y = load_digits(return_X_y=True)
    keep = y < classes if classes > 2 else (y == 3) | (y == 8)
    x, y = x[keep] / 16, y[keep]
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x[100:400], y[100:400])
    odds = model.predict_log_proba(x[:100])
    certainty = np.diff(np.sort(odds, 1)[:, -2:], axis=1)[:, 0]
    at = int(certainty.argmin())
    objective = whence.from_sklearn(model, x[100:400], y[100:400])
    found = whence.flip_set(objective, (x[at], y[at]))
    assert found.found
    assert found.lead_before > 0 > found.lead_after
    rest = np.setdiff1d(np.arange(found.n), found.positions)
    again = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000)
    again.fit(x[100:400][rest], y[100:400][rest])
    assert model.predict(x[at : at + 1])[0] == model.classes_[found.before]
    assert again.predict(x[at : at + 1])[0] == model.classes_[found.after]
    assert "becomes “" in str(found)
    if len(found.positions) > 1:
        without_last = np.setdiff1d(np.arange(found.n), found.positions[:-1])
        nearly = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000)
        nearly.fit(x[100:400][without_last], y[100:400][without_last])
        assert nearly.predict(x[at : at + 1])[0] == model.classes_[found.before]


def test_none_within_the_limit_is_said() -> None:
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(tol=1e-10, max_iter=5000).fit(x, y)
    found = whence.flip_set(whence.from_sklearn(model, x, y), (x[0], y[0]), largest=2)
    assert not found.found
    assert len(found.positions) == 0
    assert found.lead_after > 0
    assert "no set found" in str(found)


def test_refusals() -> None:
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(tol=1e-10, max_iter=5000).fit(x, y)
    with pytest.raises(InvalidInput, match="Got 2 queries"):
        whence.flip_set(whence.from_sklearn(model, x, y), (x[:2], y[:2]))
    ridge = whence.from_sklearn(Ridge().fit(x, y), x, y)
    with pytest.raises(InvalidInput, match="of a classifier"):
        whence.flip_set(ridge, (x[0], y[0]))
