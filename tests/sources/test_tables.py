"""A table with missing values keeps derivatives in the columns that the user knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import Pipeline

import whence
from whence.sources.cells import read_column
from whence.sources.columns import free_text
from whence.sources.models import default_model, fit_table
from whence.sources.tables import read_table


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


def test_free_text_is_read_by_its_words(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    words = {"ham": ["lunch", "meeting", "report"], "spam": ["prize", "winner", "offer"]}
    plain = ["please", "about", "today", "monday", "there", "which", "would", "after", "other"]
    labels = np.where(generator.random(60) < 0.4, "spam", "ham")
    texts = [
        " ".join([*generator.choice(plain, 6), *generator.choice(words[label], 2)])
        for label in labels
    ]
    city = generator.choice(["Paris", "Rome"], 60)
    frame = pd.DataFrame({"text": texts, "city": city, "label": labels})
    frame.loc[5, "text"] = None
    frame.to_csv(tmp_path / "mails.csv", index=False)
    table = read_table(tmp_path / "mails.csv", "label")
    assert free_text(table.X) == ["text"]  # a city is a level
    assert "Free text is read by its words, none where missing: text." in table.notes
    fitted = fit_table(table, hold_out=[7])
    explanation = whence.explain(fitted.objective, fitted.query([7]), measure="loss", k=2)
    rest, y = table.X.drop(index=7), table.y.drop(index=7)
    model = default_model(table).set_params(logisticregression__tol=1e-10).fit(rest, y)
    assert model.score(table.X, table.y) > 0.9  # one-hot texts would know the commonest label

    def loss(model: Pipeline) -> float:
        label = list(model.classes_).index(table.y[7])
        return float(-np.log(model.predict_proba(table.X.loc[[7]])[0, label]))

    strongest = explanation.to_frame().iloc[0]
    again = clone(model).fit(rest.drop(index=strongest.id), y.drop(index=strongest.id))
    assert strongest.effect == pytest.approx(loss(again) - loss(model), rel=1e-4)


def test_a_list_of_names_is_not_free_text() -> None:
    names = [f"{i} Main Street" for i in range(30)]
    repeated = ["one of the few answers that people give"] * 30
    assert free_text(pd.DataFrame({"a": names, "b": repeated, "c": range(30)})) == []


def test_codes_of_missing_values_bounds_and_slips_of_spelling(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"visit": np.arange(1001, 1041), "Nr.": [f"P-{i}x" for i in range(40)]})
    frame["hum"] = rng.normal(60, 5, 40).round(1)
    frame.loc[[3, 9], "hum"] = -999
    frame["crp"] = ["<0.5", *(f"{value:.1f}" for value in rng.uniform(1, 9, 39))]
    frame["sex"] = ["m", "f", *np.tile(["M", "F"], 19)]
    frame["gene"] = ["aa", *["Aa"] * 10, *["AA"] * 29]
    frame["age"] = ["<18", *[">65"] * 10, *["18-65"] * 29]
    frame["year"] = np.arange(1980, 2020)
    frame["y"] = (frame["year"] + rng.normal(0, 9, 40)).round(2)
    frame.to_csv(tmp_path / "visits.csv", index=False)
    table = read_table(tmp_path / "visits.csv", "y")
    assert list(table.X.columns) == ["hum", "crp", "sex", "gene", "age", "year"]
    assert np.flatnonzero(table.X["hum"].isna()).tolist() == [3, 9]
    assert table.X["crp"][0] == 0.5
    assert table.X["sex"].value_counts().to_dict() == {"M": 20, "F": 20}
    assert set(table.X["gene"]) == {"aa", "Aa", "AA"}
    assert set(table.X["age"]) == {"<18", ">65", "18-65"}
    assert {
        "Read as numbers, -999 as missing: hum.",
        "Read as numbers, '<0.5' as the bound: crp.",
        "Read as one value where only capitals differ: sex.",
        "Columns with the numbers of the rows were left out: visit.",
        "Columns with a text of its own in nearly every row were left out: Nr.",
    } <= set(table.notes)


def test_spellings_as_common_as_each_other_are_one_label(tmp_path: Path) -> None:
    answers = ["Yes", " yes", "YES", "no", "No", "NO", "no", "Yes"] * 5
    where = ["New York", "NEW YORK", "new york", "New york", "Rome", "ROME", "rome", "Rome"] * 5
    genes = ["AB", "Ab", "aB", "ab"] * 10
    frame = pd.DataFrame({"where": where, "gene": genes, "signed": answers})
    frame.to_csv(tmp_path / "a.csv", index=False)
    table = read_table(tmp_path / "a.csv", "signed")
    assert table.y.value_counts().to_dict() == {"Yes": 20, "no": 20}
    assert table.X["where"].str.lower().value_counts().to_dict() == {"new york": 20, "rome": 20}
    assert table.X["where"].nunique() == 2
    assert set(table.X["gene"]) == set(genes)
    assert any("only capitals differ" in note and "signed" in note for note in table.notes)


@pytest.mark.parametrize(
    ("cells", "expected", "note"),
    [
        (
            ["120/80", "135 / 85", "142/90 mmHg", "110/70", "not taken"],
            {"x, before the /": [120, 135, 142, 110], "x, after the /": [80, 85, 90, 70]},
            "two numbers, one before and one after the stroke, 'not taken' as missing",
        ),
        (
            ["9:30", "12:00 am", "12:15 pm", "9:30:36 p.m."],
            {"x": [9.5, 0, 12.25, 21.51]},
            "hours of the clock",
        ),
        (["1h 30m", "45m", "2 hours", "3h15m"], {"x": [1.5, 0.75, 2, 3.25]}, "hours"),
        (["5'11\"", "6'", "5'2.5\"", "4' 0''"], {"x": [71, 72, 62.5, 48]}, "inches"),
        (
            ["41.5° N", "3°S", "0.25 ° E", "7° w"],
            {"x": [41.5, -3, 0.25, -7]},
            "degrees, those of south and west below 0",
        ),
        (["950K", "1.2M", "800", "2m"], {"x": [950e3, 1.2e6, 800, 2e6]}, ""),
        (["12/24", "3/31", "1/28", "11/30"], {"x": ["12/24", "3/31", "1/28", "11/30"]}, ""),
        (["a/b", "120/80", "1/2", "130/85"], {"x": ["a/b", "120/80", "1/2", "130/85"]}, ""),
    ],
)
def test_numbers_written_in_parts(
    cells: list[str], expected: dict[str, list[Any]], note: str
) -> None:
    """Where most cells are of one form; others are missing. A pair that may be a date is none."""
    rows = pd.Series([*cells[:4]] * 3 + cells[4:], name="x")
    read = read_column(rows)
    assert read.note == note
    assert list(read.parts) == list(expected)
    for name, values in expected.items():
        assert read.parts[name][:4].tolist() == values
        assert read.parts[name][12:].isna().all()
    assert list(read_column(rows, several=False).parts) == ["x"]


def test_lists_become_yes_or_no_for_each_word() -> None:
    cells = ["nuts;latex", "cats; nuts", "latex", "cats;latex;nuts", "nuts ;cats", None]
    rows = pd.Series(cells, name="to")
    read = read_column(rows)
    assert read.note == "lists, yes or no for each of their words"
    assert list(read.parts) == ["to: cats", "to: latex", "to: nuts"]
    assert read.parts["to: nuts"][:5].tolist() == ["yes", "yes", "no", "yes", "yes"]
    assert read.parts["to: nuts"][5:].isna().all()
    assert list(read_column(rows, several=False).parts) == ["to"]
    assert list(read_column(pd.Series(["a;b", "c", "d", "e", "f;g"], name="x")).parts) == ["x"]
