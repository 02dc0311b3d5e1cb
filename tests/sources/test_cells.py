"""Cells as real tables have them: bounds in words, codes, short years, sixtieths, marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from whence.sources.cells import read_column
from whence.sources.tables import read_table

_TWENTY = [str(number) for number in range(20)]


def _read(cells: list[Any]) -> tuple[dict[str, list[Any]], str]:
    """Return the columns that come of cells, and the note."""
    read = read_column(pd.Series(cells, name="x"))
    return {name: part.tolist() for name, part in read.parts.items()}, read.note


@pytest.mark.parametrize(
    ("cells", "numbers", "note"),
    [
        (["85+", "20 or more", "under 1"], [85, 20, 1], "'85+', '20 or more', 'under 1' as the"),
        (["~21", "22*", "23 [a]"], [21, 22, 23], "'~21', '22*', '23 [a]' without the mark"),
        (["6.2\x1a", "7.5"], [6.2, 7.5], ""),
        (["1,5", "2.5", "3.5"], [np.nan, 2.5, 3.5], "'1,5' as missing"),
        (["165cm", "170 cm"], [165, 170], "the ending 'cm' left out"),
    ],
)
def test_among_many_numbers(cells: list[str], numbers: list[float], note: str) -> None:
    found, said = _read([*cells, *_TWENTY])
    np.testing.assert_array_equal(found["x"][: len(cells)], numbers)
    assert found["x"][len(cells) :] == list(range(20))
    assert note in said


@pytest.mark.parametrize(
    "cells",
    [
        ["4 or less hours", "5 hours", "6 hours", "7 hours", "10 or more hours"],  # groups
        ["<5", "5", "6", "7", "8", "9", "10+"],
        ["0", "1", "2 or more"],
        [*_TWENTY, "c168", "c118"],  # codes
        [*_TWENTY, "12a"],
        ["1", "2", "3", "4", "1OT"],
        ["250.83", "276.1", "V27", "V45", *_TWENTY],
    ],
)
def test_groups_and_codes_stay_text(cells: list[str]) -> None:
    assert _read(cells) == ({"x": cells}, "")


def test_many_different_words_are_missing_where_they_are_few_of_the_cells() -> None:
    words = [f"about {word}" for word in "abcdefghijklmnop"]
    found, note = _read([*words, *_TWENTY * 20])
    assert np.isnan(found["x"][:16]).all()
    assert found["x"][16:36] == list(range(20))
    assert note == "numbers, 'about a', 'about b', 'about c' and others as missing"


@pytest.mark.parametrize(
    ("cells", "days", "start"),
    [
        (["8/4/63", "9/5/64"], [0, 398], "1963-08-04"),  # one time, which has been
        (["05/12/31", "06/11/85", "08/08/49"], [0, 19754, 6663], "1931-05-12"),
        (["06/15/31", "07/15/24", "08/15/28"], [2526, 0, 1492], "2024-07-15"),  # yet to come
        (["3/5/22", "4/5/23"], [0, 396], "2022-03-05"),
        (["2002 Jan", "2002 Feb", "2003 Mar"], [0, 31, 424], "2002-01-01"),
        (["January 2002", "Feb. 2002"], [0, 31], "2002-01-01"),
        (["1970 Q1", "1970Q2", "Q1 1971"], [0, 90, 365], "1970-01-01"),
        (["1182-03-01", "1854-12-01"], [0, 245718], "1182-03-01"),  # before nanoseconds reach
    ],
)
def test_dates_of_short_years_months_quarters_and_old_ones(
    cells: list[str], days: list[int], start: str
) -> None:
    found, note = _read(cells)
    assert found[f"x, days from {start}"] == days
    assert note.startswith(f"days from {start}")


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["38:31:00", "41:05:36", "32:01:12", "9:00:00"], [38 + 31 / 60, 41.0933, 32.02, 9]),
        (["11:30", "08:11", "00:34.8", "10:45"], [11.5, 8 + 11 / 60, 0.58, 10.75]),
    ],
)
def test_times_of_more_than_a_day(cells: list[str], numbers: list[float]) -> None:
    found, note = _read(cells)
    np.testing.assert_allclose(found["x"], numbers, atol=1e-4)
    assert note == "numbers, what follows a colon as sixtieths"


def test_columns_from_which_the_label_follows_are_named(tmp_path: Path) -> None:
    stage = np.tile(["1 none", "2 some", "3 much"], 14)
    frame = pd.DataFrame(
        {"stage": stage, "arm": np.tile(["a", "b"], 21), "dose": np.arange(42) % 8}
    )
    frame["better"] = np.where(frame["stage"] == "1 none", "no", "yes")
    frame.to_csv(tmp_path / "trial.csv", index=False)
    table = read_table(tmp_path / "trial.csv", "better")
    assert list(table.X) == ["stage", "arm", "dose"]
    assert any("better follows from each of these alone: stage." in note for note in table.notes)
    frame.assign(better=frame["better"] == "yes").astype({"better": int}).to_csv(tmp_path / "q.csv")
    quantity = read_table(tmp_path / "q.csv", "better", kind="quantity")
    assert any("follows from each of these alone: stage." in note for note in quantity.notes)
    frame.loc[0, "better"] = "yes"
    frame.to_csv(tmp_path / "trial.csv", index=False)
    assert not any("follows" in note for note in read_table(tmp_path / "trial.csv", "better").notes)


def test_many_different_texts_take_no_square_of_their_number() -> None:
    """A set of the other words was made for each of them: 30 s for 19,000 remarks."""
    cells = [f"remark {number} of many" for number in range(20_000)]
    assert _read(cells) == ({"x": cells}, "")


def test_ages_that_rise_by_one_are_no_row_numbers_and_who_names_the_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"car": [f"car {c}x" for c in rng.permutation(40)]})
    frame["age"], frame["number"] = np.arange(40), np.arange(40)
    frame["y"] = (frame["age"] / 7 + rng.normal(size=40)).round(2)
    frame.to_csv(tmp_path / "cars.csv", index=False)
    table = read_table(tmp_path / "cars.csv", "y")
    assert list(table.X) == ["age"]
    named = "Rows are numbered from 0, in the order of the file; --ids car names them by that "
    assert f"{named}column." in table.notes
    frame.drop(columns=["car", "number"]).to_csv(tmp_path / "bare.csv", index=False)
    notes = read_table(tmp_path / "bare.csv", "y").notes
    assert "Rows are numbered from 0, in the order of the file." in notes
    for names in ({"ids": "car"}, {}):
        frame.to_csv(tmp_path / "cars.csv", index=not names)
        assert "numbered" not in " ".join(read_table(tmp_path / "cars.csv", "y", **names).notes)


def test_what_is_written_as_dates_and_is_none_stays_as_it_is() -> None:
    """Part numbers: there is no 41st month and no 77th day."""
    texts = ["41-77-2024", "52-61-2024", "41-99-2023"] * 4
    read = read_column(pd.Series(texts, name="part"))
    assert list(read.parts) == ["part"]
    assert read.parts["part"].tolist() == texts
