"""What a new user mistypes or hands in is answered by a sentence that says what it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from tests.command_line import run
from whence.errors import InvalidInput
from whence.sources.models import default_model
from whence.sources.tables import read_table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty rows, four of them alike, two without a target, one with a label of its own."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(60, 3)).round(3), columns=["depth", "width", "length"])
    frame["price"] = (frame.sum(axis=1) + rng.normal(size=60) / 3).round(2)
    frame["species"] = np.where(frame["price"] + rng.normal(size=60) > 0, "otter", "stoat")
    frame.loc[[10, 20, 21, 22, 23], list(frame)] = [2.0, -2.5, 0.5, 0.1, "stoat"]
    frame.loc[10, "depth"] = 2.2
    frame.loc[[3, 4], "species"] = None
    frame.loc[5, "species"] = "mink"
    path = tmp_path_factory.mktemp("mistakes") / "t.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("3", "Got 3 of t.csv, which has no target. Name another row."),
        ("5", "Got 5 of t.csv, which has a label that no other row has."),
        ("60", "numbered from 0 to 59. Got '60'."),
        ("", "numbered from 0 to 59. Got ''."),
    ],
)
def test_a_row_that_cannot_be_asked_about(table: Path, row: str, words: str) -> None:
    code, _, err = run("explain", table, "-t", "species", "--row", row)
    assert code == 1
    assert words in err


def test_a_target_that_is_spelled_wrongly(table: Path) -> None:
    assert "Did you mean --target species?" in run("diagnose", table, "-t", "Speces")[2]
    assert "Name one of them with --target." in run("diagnose", table, "-t", "zebra")[2]


def test_files_are_what_is_in_them(table: Path, tmp_path: Path) -> None:
    """A CSV that is called Excel, and Excel and Parquet that are called CSV, are read."""
    expected = read_table(table, "price")
    frame = pd.read_csv(table)
    frame.to_excel(tmp_path / "a.xlsx", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    for source, name in ((tmp_path / "a.xlsx", "x.csv"), (tmp_path / "a.parquet", "p.csv")):
        pd.testing.assert_frame_equal(
            read_table(shutil.copy(source, tmp_path / name), "price").X, expected.X
        )
    for name in ("t.xlsx", "t.parquet"):
        pd.testing.assert_frame_equal(
            read_table(shutil.copy(table, tmp_path / name), "price").X, expected.X
        )
    (tmp_path / "cut.xlsx").write_bytes((tmp_path / "a.xlsx").read_bytes()[:2000])
    with pytest.raises(InvalidInput, match="Expected an Excel file"):
        read_table(tmp_path / "cut.xlsx", "price")


def test_what_cannot_be_done_says_what_can(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantity = (table, "-t", "price", "--row", 2)
    assert "Got one that predicts a quantity. whence.explain says" in run("flip-set", *quantity)[2]
    (tmp_path / "one.png").write_bytes(b"\x89PNG")
    monkeypatch.chdir(tmp_path)
    assert "one.png, one picture: name the folder" in run("explain", "one.png", "--row", 0)[2]
    (tmp_path / "models_by_mistake.py").write_text("def make():\n    return {}['a']\n")
    assert "as models_by_mistake:FUNCTION" in " ".join(
        run("explain", "models_by_mistake.py", "--row", 0)[2].split()
    )
    err = run("explain", "models_by_mistake:make", "--row", 0)[2]
    assert "Expected models_by_mistake:make to return a model. Got KeyError: 'a', in " in err
    assert "models_by_mistake.py, line 2." in err
    assert (
        "Did you mean models_by_mistake:make?"
        in run("explain", "models_by_mistake.py:make", "--row", 0)[2]
    )
    assert "Got the folder" in run("explain", tmp_path, "--image", tmp_path)[2]
    assert "Got '', which does not exist." in run("explain", "", "-t", "y", "--row", 1)[2]
    assert "whence flip-set finds" in run("attack", table, "--row", 2)[2]
    (tmp_path / "net.pt").write_bytes(b"PK")
    model = ("--model", tmp_path / "net.pt", "--trust")
    assert "returns whence.from_torch(...)" in run("explain", *quantity, *model)[2]
    code, _, err = run("label-errors", table, "-t", "species", "-k", 0)
    assert code == 2
    assert "Got '0'." in err


def test_what_is_said_of_a_quantity_and_of_a_poor_model(table: Path, tmp_path: Path) -> None:
    _, out, _ = run("explain", table, "-t", "price", "--row", 2, "-k", 1)
    assert "; the value in the data is " in out
    run("explain", table, "-t", "price", "--row", 2, "-k", 1, "-o", tmp_path / "price.html")
    assert '<th scope="col">value</th>' in (tmp_path / "price.html").read_text("utf-8")
    own = "many are its own mistakes"
    assert own not in run("label-errors", table, "-t", "species", "-k", 1)[2]
    frame = pd.read_csv(table)
    frame["coin"] = np.where(np.arange(len(frame)) % 2, "head", "tail")
    frame[["depth", "width", "coin"]].to_csv(tmp_path / "coin.csv", index=False)
    page = tmp_path / "labels.html"
    assert own in run("label-errors", tmp_path / "coin.csv", "-t", "coin", "-k", 1, "-o", page)[2]
    assert own in page.read_text("utf-8")


def test_json_has_near_duplicates_with_the_effect_of_their_refit(table: Path) -> None:
    ask = (table, "-t", "species", "--row", 10, "-k", 1, "--measure", "probability")
    found = json.loads(run("explain", *ask, "--json")[1])
    (group,) = found["groups"]
    assert group["ids"] == [20, 21, 22, 23]
    read = read_table(table, "species")
    model = default_model(read).set_params(logisticregression__tol=1e-10)
    fits = [
        clone(model).fit(read.X.drop(index=gone), read.y.drop(index=gone))
        for gone in ([10], [10, 20, 21, 22, 23])
    ]
    at = list(fits[0].classes_).index(read.y[10])
    p, q = (float(fit.predict_proba(read.X.loc[[10]])[0, at]) for fit in fits)
    assert group["effect"] == pytest.approx(q - p, rel=0.1)
    assert abs(group["alone"]) < abs(group["effect"]) / 2
    assert "Near-duplicates of each other: 20, 21, 22, 23." in run("explain", *ask)[1]
