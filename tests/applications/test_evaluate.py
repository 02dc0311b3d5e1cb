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
