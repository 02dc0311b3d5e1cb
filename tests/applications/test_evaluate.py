"""The score of a method on a model, against refits with the user's own library."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

import whence
from whence.errors import InvalidInput
from whence.evaluation.members import Identity


def test_the_score_is_the_rank_correlation_with_refits_on_random_parts(tmp_path: Path) -> None:
    x, y = load_diabetes(return_X_y=True)
    x, y, queries = x[:60], y[:60], (x[60:64], y[60:64])
    model = Ridge(alpha=0.1).fit(x, y)
    trained = whence.from_sklearn(model, x, y)
    score = whence.evaluate(trained, queries, subsets=7, fraction=0.8, damping=0.01)
    scores = whence.influence(trained, queries, damping=0.01).values
    predicted, actual = [], []
    for subset in range(7):
        kept = Identity(fingerprint="", n=60, fraction=0.8, seed=0).mask(subset)
        refit = clone(model).fit(x[kept], y[kept])
        predicted.append(scores[:, ~kept].sum(1))
        actual.append((refit.predict(queries[0]) - queries[1]) ** 2)
    each = [spearmanr(np.array(predicted)[:, q], np.array(actual)[:, q])[0] for q in range(4)]
    np.testing.assert_allclose(score.per_query, each)
    assert (score.subsets, score.ceiling) == (7, None)
    whence.evaluate(trained, queries, subsets=3)
    with pytest.raises(InvalidInput, match="at least 3"):
        whence.evaluate(trained, queries, subsets=2)

    page = tmp_path / "score.html"
    named = whence.report_evaluation(score, page, names=list("abcd")).read_text("utf-8")
    heads = re.findall(r'<th scope="row"[^>]*>(?:<[^>]*>)*([^<]+)<', named)
    assert heads == ["abcd"[q] for q in np.argsort(-score.per_query.numpy(), kind="stable")]
    assert "7 retrainings" in named
    assert "query 3" in whence.report_evaluation(score, page).read_text("utf-8")
    with pytest.raises(InvalidInput, match="Expected 4 names"):
        whence.report_evaluation(score, page, names=list("abc"))


def test_the_solver_and_the_measure_asked_for_make_the_scores() -> None:
    """One step of conjugate gradients where κ(H + λI) = 5 leaves < 0.9 of any residual."""
    x, y = load_diabetes(return_X_y=True)
    x *= 20
    model = Ridge(alpha=0.1).fit(x[:60], y[:60])
    design = np.c_[x[:64], np.ones(64)]
    hessian = design[:60].T @ design[:60] / 60 + np.diag([*[0.1 / 60] * 10, 0])
    damping = float(np.linalg.eigvalsh(hessian)[-1]) / 4
    score = whence.evaluate(
        whence.from_sklearn(model, x[:60], y[:60]),
        (x[60:64], y[60:64]),
        subsets=12,
        measure=lambda outputs, _: outputs[:, 0],
        solver=whence.CG(rtol=0.9),
        damping=damping,
    )
    curved = hessian + damping * np.eye(11)
    own = (design[:60] @ np.r_[model.coef_, model.intercept_] - y[:60])[:, None] * design[:60]
    masks = [Identity(fingerprint="", n=60, fraction=0.5, seed=0).mask(k) for k in range(12)]
    actual = np.stack([clone(model).fit(x[:60][m], y[:60][m]).predict(x[60:64]) for m in masks])
    for query, right in enumerate(design[60:]):
        step = right * (right @ right) / (right @ curved @ right)
        predicted = [(own[~mask] @ step).sum() for mask in masks]
        expected = spearmanr(predicted, actual[:, query])[0]
        assert float(score.per_query[query]) == pytest.approx(expected, abs=1e-12)
        exact = [(own[~mask] @ np.linalg.solve(hessian, right)).sum() for mask in masks]
        assert abs(spearmanr(exact, actual[:, query])[0] - expected) > 0.01
