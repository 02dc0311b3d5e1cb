"""Columns of a table as pages show them: names, cells, spread and difference from the query."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from whence.views.columns import (
    cell_text,
    columns_of,
    differences,
    is_table,
    spreads,
)


@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_spread_follows_the_unit(scale: float, offset: float) -> None:
    values = np.random.default_rng(0).normal(size=(30, 2))
    values[:, 1] = values[:, 1] > 0
    changed = spreads(values * scale + offset)
    np.testing.assert_allclose(changed, spreads(values) * scale, rtol=1e-6)
    assert changed[1] == pytest.approx(scale)


def test_spread_is_the_same_for_frames_arrays_tensors_and_sparse_rows() -> None:
    values = np.random.default_rng(0).normal(size=(30, 3)) * (np.arange(90).reshape(30, 3) % 4 > 0)
    values[:, 2] = values[:, 2] > 0
    expected = [values[:, 0].std(), values[:, 1].std(), 1.0]
    for rows in (values, pd.DataFrame(values), torch.from_numpy(values), sparse.csr_array(values)):
        np.testing.assert_allclose(spreads(rows), expected)


def test_text_has_no_spread_and_missing_cells_do_not_count() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, np.nan, 4.0], "b": list("xyzx")})
    np.testing.assert_allclose(spreads(frame), [np.std([1.0, 2.0, 4.0]), 1.0])


def test_all_columns_in_the_order_of_importance() -> None:
    frame = pd.DataFrame(np.eye(3), columns=["a", "b", "c"])
    columns = columns_of([frame[:1], frame], np.array([0.1, 0.3, 0.2]))
    assert columns.names == ("b", "c", "a")
    assert columns.cells(frame, 1) == ("1", "0", "0")
    frame["c"] = ["", "a text of several words", "x"]
    assert columns_of([frame[:1], frame]).names == ("c", "a", "b")
    assert not columns_of([torch.zeros(2, 3, 4)]).names
    assert not is_table(torch.zeros(2, 3, dtype=torch.long))  # tokens


def test_sparse_rows_leave_out_what_is_zero_everywhere() -> None:
    rows = sparse.csr_array(np.array([[0, 2.0, 0, 0], [0, 0, 0, 3.0]]))
    columns = columns_of([rows[[0]], rows])
    assert columns.names == ("column 1", "column 3")
    assert columns.hidden == 2
    assert columns.cells(rows, 1) == ("0", "3")


def test_differences_are_exact_for_categories_and_by_spread_for_numbers() -> None:
    rows = pd.DataFrame({"class": [1, 2, 1] * 5, "name": list("abc") * 5, "age": np.arange(15.0)})
    query = pd.DataFrame({"class": [1], "name": ["b"], "age": [7.2]})
    columns = columns_of([query, rows])
    differ, continuous = differences(query, rows, columns)
    assert continuous
    np.testing.assert_array_equal(differ[:, 0], rows["class"] != 1)
    np.testing.assert_array_equal(differ[:, 1], rows["name"] != "b")
    np.testing.assert_array_equal(
        differ[:, 2], abs(rows["age"] - 7.2) >= rows["age"].std(ddof=0) / 2
    )


def test_cells_have_their_own_digits() -> None:
    cells = (
        18531.0,
        2.80,
        True,
        None,
        pd.NaT,
        "x",
        1e-7,
        -3.5,
        np.int64(4),
        1e20,
        -18531.0,
        -4,
        np.int64(-4),
        1234567.89,
    )
    texts = tuple(map(cell_text, cells))
    assert texts == (
        "18531", "2.8", "True", "missing", "missing", "x", "1e−07", "−3.5", "4", "1e+20",
        "−18531", "−4", "−4", "1234568",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "number", "shown"),
    [
        ("seen, days from 2024-02-28", 2.0, "2024-03-01"),
        ("seen, days from 2024-02-28", 0.5, "2024-02-28 12:00"),
        ("seen, hours from 2024-02-28", 25.0, "2024-02-29 01:00"),
        ("seen, days from 2024-02-28", np.nan, cell_text(np.nan)),
        ("seen, days", 2.0, "2"),
    ],
)
def test_a_count_of_days_is_shown_with_its_date(name: str, number: float, shown: str) -> None:
    frame = pd.DataFrame({name: [number]})
    assert columns_of([frame]).cells(frame, 0) == (shown,)
