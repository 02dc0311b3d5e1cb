"""W7: its page shows its rows, and its measurements are what they are called."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.trees import finite_differences, fitted, known, refits, table
from benchmarks.trees_page import PAGE, written
from whence.objective.losses import measure_of


def test_the_page_shows_the_rows() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page, "run python -m benchmarks.trees_page"
    assert len(known()) >= 40


def test_a_small_case() -> None:
    x, y = table("wine", 90)
    trained = fitted("sklearn", x[10:], y[10:], 5)
    queries, measure = trained.examples((x[:10], y[:10])), measure_of(trained.loss, "margin")
    assert finite_differences(trained, queries, measure) > 0.9999
    out, actual = refits(trained, queries, measure)
    assert (out.sum(1) == 40).all()
    again = trained.refit(trained.weights * torch.from_numpy(~out[3]))
    expected = measure(again.outputs(queries), queries.targets)
    np.testing.assert_allclose(actual[3], expected)
