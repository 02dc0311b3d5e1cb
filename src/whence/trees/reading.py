"""From a fitted model of a library to whence's form, checked against the library's predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from whence.errors import UnsupportedModel
from whence.trees.form import BoostedTrees
from whence.trees.hist import read_hist

_TOLERANCE = 1e-5  # of the range of the raw predictions


def read_boosting(model, X, y, sample_weight=None):
    y = np.asarray(y)
    if hasattr(model, "classes_"):
        y = np.searchsorted(model.classes_, y)
    y = y.astype(np.float64)
    w = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    trees = read_hist(model, X, y, w)
    check(trees, X)
    return trees

def check(trees, X):
    raw = trees.predict(X)
    d = np.abs(raw - trees.replay.outputs).max() / np.ptp(raw)
    if d > _TOLERANCE:
        raise UnsupportedModel(f"differs by {d:.1e}")
    print("diff", d)
