"""Scores: rankings, the paper's sign and unit, and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import whence
from whence.errors import InvalidInput
from whence.scores import Diagnostics, Scores


def scores_of(values: Any, **options: Any) -> Scores:
    values = np.asarray(values, dtype=float)
    q, n = values.shape
    fields = {
        "values": values,
        "query_ids": np.arange(q),
        "train_ids": np.array([f"row {i}" for i in range(n)]),
        "positions": np.arange(n),
        "n": n,
        "method": "test",
        "measure": "loss",
    }
    return Scores(**{**fields, **options})


@given(arrays(float, (2, 5), elements=st.floats(-10, 10)), st.integers(1, 7))
def test_rankings(values: np.ndarray, k: int) -> None:
    scores = scores_of(values)
    for ranking, keys in (
        (scores.top(k), -values),
        (scores.bottom(k), values),
        (scores.largest(k), -np.abs(values)),
    ):
        assert ranking.values.shape == (2, min(k, 5))
        for row in range(2):
            first = np.argsort(keys[row], kind="stable")[:k]  # ties in the order of the data
            np.testing.assert_array_equal(ranking.positions[row], first)
            named = [f"row {i}" for i in ranking.positions[row]]
            assert ranking.ids[row].tolist() == named


def test_the_papers_quantity_has_the_other_sign() -> None:
    np.testing.assert_allclose(scores_of([[0.5, -0.25]]).upweight(), [[-1.0, 0.5]])


def test_frame() -> None:
    frame = scores_of([[1.0, 2.0], [3.0, 4.0]], query_ids=np.array(["a", "b"])).to_frame()
    assert frame.loc["row 1", "b"] == 4.0


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="finite scores"):
        scores_of([[np.nan]])
    with pytest.raises(InvalidInput, match="shape"):
        scores_of([[1.0, 2.0]], query_ids=np.arange(2))
    with pytest.raises(InvalidInput, match="Got 0"):
        scores_of([[1.0]]).top(0)


def test_diagnostics_in_words() -> None:
    text = str(
        Diagnostics(
            solver="CG",
            gradient_norm=1e-3,
            gradient_in_examples=2.0,
            residual=0.5,
            converged=False,
            notes=("careful",),
        )
    )
    assert "NOT converged" in text
    assert "not converged: finishing it changes as much as removing 2 typical" in text
    assert "gradient norm 1.00e-03" in text
    assert "careful" in text


def test_average() -> None:
    parts = [scores_of([[1.0, 3.0]]), scores_of([[2.0, -3.0]], method="other")]
    mean = whence.average(parts)
    np.testing.assert_allclose(mean.values, [[1.5, 0.0]])
    assert mean.method == "mean of 2: test; other"
    assert mean.train_ids.tolist() == ["row 0", "row 1"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"train_ids": np.array(["a", "b"])}, "same train_ids"),
        ({"query_ids": np.array([4])}, "same query_ids"),
        ({"measure": "margin"}, "same measure"),
        ({"n": 5}, "same n"),
    ],
)
def test_scores_of_different_pairs_are_not_averaged(other: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=f"{message}.*entry 1"):
        whence.average([scores_of([[1.0, 3.0]]), scores_of([[1.0, 3.0]], **other)])
    with pytest.raises(InvalidInput, match="Got none"):
        whence.average([])


def test_a_ranking_prints_its_rows() -> None:
    printed = str(scores_of([[0.25, -1.5], [3.0, 4.0]]).largest(1))
    assert " ".join(printed.split()) == "id score row 1 -1.5 The first of 2 queries is shown."
