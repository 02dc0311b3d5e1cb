"""A table with missing values keeps derivatives in the columns that the user knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import whence
from whence.sources.tables import fit_table, read_table


def test_derivatives_in_the_users_columns_despite_missing_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(80, 3)), columns=["a", "b", "c"])
    frame = frame.mask(rng.random(frame.shape) < 0.1)
    frame["kind"] = rng.choice(["x", "y"], 80)
    frame["target"] = frame.a.fillna(0) + rng.normal(size=80)
    frame.to_csv(tmp_path / "train.csv", index=False)
    fitted = fit_table(read_table(tmp_path / "train.csv", "target"), hold_out=[7])
    query = fitted.query([7])
    full = np.flatnonzero(frame.drop(index=7).notna().all(axis=1))[:3]
    for row in full:
        acting = whence.perturbation(fitted.objective, [row], query)[0]
        assert acting.shape == (4,)
        x = fitted.objective.train.inputs.iloc[[row]]  # type: ignore[attr-defined]
        y = float(fitted.objective.train.targets[row])
        step = 1e-5
        for j in range(3):
            moved = x.copy()
            moved.iloc[0, j] += step
            change = whence.edit(fitted.objective, int(row), moved, [y], query, order="first")[0]
            assert change / step == pytest.approx(acting[j], rel=1e-3, abs=1e-9)


def test_flags_and_columns_that_say_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=40), "flag": rng.random(40) > 0.5})
    frame["maybe"] = frame["flag"].astype(object).where(rng.random(40) > 0.2, None)
    frame["empty"], frame["same"] = np.nan, "x"
    frame["y"] = (frame["a"] + frame["flag"] > 0.5).astype(int)
    frame.to_csv(tmp_path / "flags.csv", index=False)
    table = read_table(tmp_path / "flags.csv", "y")
    assert list(table.X.columns) == ["a", "flag", "maybe"]
    assert set(table.X["flag"]) == {"yes", "no"}
    assert any("True and False" in note for note in table.notes)
    assert any("one value throughout were left out: same" in note for note in table.notes)
    fitted = fit_table(table, hold_out=[3])
    explanation = whence.explain(fitted.objective, fitted.query([3]), k=2)
    assert explanation.verify(3).r > 0.99
