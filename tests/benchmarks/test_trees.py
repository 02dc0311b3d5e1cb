"""W7: its page shows its rows, and its measurements are what they are called."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import tree_influence
from benchmarks.environments import interpreter
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


def test_a_library_names_the_python_it_runs_under() -> None:
    assert interpreter("tree-influence==0.1.7\n") == sys.executable
    with pytest.raises(FileNotFoundError, match=r"Expected Python 2\.2"):
        interpreter("# Python 2.2\ntree-influence==0.1.7\n")


def test_a_peer_is_given_trees_that_predict_as_the_model_does(tmp_path: Path) -> None:
    x, y = table("wine", 90)
    trained = fitted("xgboost", x[10:], y[10:], 5)
    tree_influence.export(trained, (x[:10], y[:10]), "xgboost", tmp_path / "model.npz")
    found = np.load(tmp_path / "model.npz")
    outputs = np.repeat(found["start"][None], 10, axis=0)
    for t, k in np.ndindex(found["counts"].shape):
        leaf = found["queries"][t, k]
        assert (leaf < found["counts"][t, k]).all()
        outputs[:, k] += found["values"][t, k][leaf]
    np.testing.assert_allclose(outputs, trained.trees.predict(x[:10]), atol=1e-5)


def test_leads_have_errors_over_queries_and_refits() -> None:
    generator = np.random.default_rng(0)
    actual = generator.normal(size=(20, 6))
    mean, error = tree_influence.lead(actual, generator.normal(size=(20, 6)), actual)
    assert 0.5 < mean < 1.5
    assert 0.01 < error < 0.3
