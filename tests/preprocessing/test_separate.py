"""Bins and splines without a row: classes of removals, against fits without each row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, SplineTransformer

import whence
from whence.preprocessing.separate import separate
from whence.preprocessing.table import Plain

_KINDS = {
    "quantiles": KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"),
    "interpolated": KBinsDiscretizer(3, encode="onehot-dense", quantile_method="linear"),
    "uniform": KBinsDiscretizer(4, strategy="uniform", encode="ordinal"),
    "spline": SplineTransformer(n_knots=4, extrapolation="linear"),
    "spline of quantiles": SplineTransformer(knots="quantile"),
}


def table(n: int = 60) -> Any:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3))
    x[:, 2] = rng.integers(0, 6, n)
    x[7, 0] = 3.4
    return x


def dense(rows: Any) -> Any:
    return rows.toarray() if hasattr(rows, "toarray") else np.asarray(rows)


@pytest.mark.parametrize("kind", _KINDS)
def test_a_removal_changes_the_columns_as_a_fit_without_the_row_does(kind: str) -> None:
    x = table()
    fitted = clone(_KINDS[kind]).fit(x)
    step = separate(fitted, Plain(x), torch.ones(60, dtype=torch.float64), None)
    assert step is not None
    others = table()[:9] * 1.3
    there = torch.ones(60, dtype=torch.float64, requires_grad=True)
    for columns, rows in zip(step(Plain(x), Plain(others), there), (x, others), strict=True):
        before = dense(fitted.transform(rows))
        np.testing.assert_allclose(columns.dense().detach(), before)
        sketch = np.random.default_rng(1).normal(size=before.shape)
        weights = torch.from_numpy(sketch)
        total = (columns.dense() * weights).sum()
        (slope,) = torch.autograd.grad(total, there, retain_graph=True)
        for i in (0, 7, 12, 33, 59):
            again = clone(fitted).fit(np.delete(x, i, 0))
            change = (sketch * (dense(again.transform(rows)) - before)).sum()
            assert -float(slope[i]) == pytest.approx(change, abs=1e-10)


def test_order_matters_where_bins_are_clusters_or_samples() -> None:
    x, ones = table(), torch.ones(60, dtype=torch.float64)
    clusters = KBinsDiscretizer(3, strategy="kmeans", random_state=0).fit(x)
    assert separate(clusters, Plain(x), ones, None) is None
    few = KBinsDiscretizer(3, subsample=20, quantile_method="linear", random_state=0).fit(x)
    assert separate(few, Plain(x), ones, None) is None


@pytest.mark.parametrize(("kind", "least"), [("quantiles", 0.8), ("spline", 0.95)])
def test_first_order_through_bins_and_knots(kind: str, least: float) -> None:
    x = table(90)
    y = np.sin(2 * x[:, 0]) + x[:, 1] ** 2 + 0.1 * np.random.default_rng(1).normal(size=90)
    model = make_pipeline(_KINDS[kind], Ridge(alpha=0.5)).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    queries = table()[:4] + 0.05, np.zeros(4)
    actual = whence.leave_one_out(objective, np.arange(90), queries, measure="prediction")

    def agreement(model: whence.Trained) -> tuple[float, float]:
        first = whence.influence(model, queries, measure="prediction").values
        r = np.corrcoef(first.ravel(), actual.ravel())[0, 1]
        return float(r), float(np.corrcoef(first[:, 7], actual[:, 7])[0, 1])

    r, of_an_end = agreement(objective)
    assert r > max(least, agreement(replace(objective, statistics=None))[0] + 0.04)
    assert of_an_end > 0.9


def test_what_is_shown_is_what_moves_the_answer_most() -> None:
    """Through bins the first order with the bins held shows other rows."""
    x = table(80)
    y = (np.sin(2 * x[:, 0]) + x[:, 1] ** 2 > 0.6).astype(int)
    fit = LogisticRegression(tol=1e-10, solver="newton-cholesky")
    model = make_pipeline(_KINDS["quantiles"], fit).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    query = x[:1] * 1.1, y[:1]
    explanation = whence.explain(objective, query, k=5, measure="margin")
    shown = {effect.position for effect in (*explanation.raising, *explanation.lowering)}
    actual = whence.leave_one_out(objective, np.arange(80), query, measure="margin")[0]
    order = np.argsort(actual)
    strongest = {*order[:5].tolist(), *order[-5:].tolist()}
    assert len(shown & strongest) >= 9
