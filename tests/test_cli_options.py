"""Options of the command line: what a source does not read is refused, and what they change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from whence.cli import app, main

Run = Callable[..., tuple[int, str, str]]
Completed = Callable[[str], list[str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["whence", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        code = stop.value.code
        error = " ".join(printed.err.replace("│", " ").split())  # usage errors stand in a box
        return (code if isinstance(code, int) else 0), printed.out, error

    return call


@pytest.fixture
def completed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Completed:
    def call(line: str) -> list[str]:
        monkeypatch.setenv("_WHENCE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        with pytest.raises(SystemExit):
            app(prog_name="whence")
        return capsys.readouterr().out.split()

    return call


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    return X.iloc[:80, :4].assign(y=np.where(y[:80] == 1, "benign", "malignant"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, frame: pd.DataFrame) -> Path:
    """A table, a folder of images and a module, side by side."""
    root = tmp_path_factory.mktemp("sources")
    frame.to_csv(root / "train.csv", index=False)
    rng = np.random.default_rng(0)
    for i in range(12):
        kind = root / "photos" / ("bright" if i % 2 else "dark")
        kind.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 60, (8, 8, 3)) + (150 if i % 2 else 0)
        Image.fromarray(pixels.astype(np.uint8)).save(kind / f"{i}.png")
    Image.new("RGB", (8, 8), (200, 200, 200)).save(root / "odd.png")
    (root / "models_for_options.py").write_text(
        "import whence\nfrom sklearn.datasets import load_diabetes\n"
        "from sklearn.linear_model import Ridge\n\n"
        "def make():\n    X, y = load_diabetes(return_X_y=True)\n"
        "    return whence.from_sklearn(Ridge().fit(X, y), X, y)\n"
    )
    return root


_TABLE, _IMAGES, _FUNCTION = "train.csv", "photos", "models_for_options:make"


@pytest.mark.parametrize(
    ("source", "options", "refused"),
    [
        (_TABLE, ("-t", "y", "--row", 1, "--network", "a:b"), "--network with a folder of images"),
        (_TABLE, ("-t", "y", "--row", 1, "--size", 0), "--size with a folder of images"),
        (_TABLE, ("-t", "y", "--image", "odd.png"), "--image with a folder of images"),
        (_TABLE, ("-t", "y", "--row", 1, "--trust"), "--trust with --model FILE only"),
        (_IMAGES, ("--row", 1, "-t", "y"), "--target with a table"),
        (_IMAGES, ("--row", 1, "--ids", "name"), "--ids with a table"),
        (_IMAGES, ("--row", 1, "--model", "m.joblib"), "--model with a table"),
        (_IMAGES, ("--row", 1, "--trust"), "--trust with a table"),
        (_FUNCTION, ("--row", 1, "--target", "y"), "--target with a table"),
        (_FUNCTION, ("--row", 1, "--model", "m.joblib"), "--model with a table"),
        (_FUNCTION, ("--row", 1, "--network", "a:b"), "--network with a folder of images"),
        (_FUNCTION, ("--row", 1, "--size", 64), "--size with a folder of images"),
        (_FUNCTION, ("--image", "odd.png"), "--image with a folder of images"),
    ],
)
def test_what_a_source_does_not_read_is_refused(
    run: Run,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    options: tuple[object, ...],
    refused: str,
) -> None:
    monkeypatch.chdir(folder)
    for command in ("explain", "influence", "verify"):
        code, out, err = run(command, source, *options)
        assert (code, out) == (2, "")
        assert refused in err
        assert "leave it out" in err


def test_commands_about_many_refuse_the_same(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for command in ("report", "label-errors", "evaluate", "diagnose"):
        code, _, err = run(command, _FUNCTION, "--target", "y")
        assert code == 2
        assert f"Got it with {_FUNCTION}, a Python function: leave it out." in err
    code, _, err = run("attack", _FUNCTION, "--row", 1, "--size", 64)
    assert code == 2
    assert "--size with a folder of images only" in err
    assert run("attack", _IMAGES, "--row", 1, "--target", "y")[0] == 2


def test_removals_are_retrained_for_a_page_alone(run: Run, folder: Path) -> None:
    code, _, err = run("explain", folder / _TABLE, "-t", "y", "--row", 1, "--verify", 3)
    assert code == 2
    assert "--verify with --output FILE" in err


def test_bare_whence_shows_help(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    assert out == run("--help")[1]
    assert "label-errors" in out


_MEASURES = ["loss", "margin", "prediction", "probability"]


@pytest.mark.parametrize(
    ("line", "choices"),
    [
        ("whence influence train.csv --order ", ["first", "newton", "refined"]),
        ("whence influence train.csv --measure ", _MEASURES),
        ("whence report train.csv --target-kind ", ["label", "quantity"]),
        ("whence explain train.csv --model-kind ", ["auto", "boosting", "forest", "linear"]),
        ("whence explain train.csv --measure ", _MEASURES),
        ("whence report train.csv --measure p", ["prediction", "probability"]),
        ("whence label-errors t.csv --method self", ["self_influence"]),
        ("whence label-errors t.csv --method tr", ["tracin", "trak"]),
        ("whence label-errors t.csv --penalty ", ["best", "fitted"]),
    ],
)
def test_choices_complete_in_the_shell(completed: Completed, line: str, choices: list[str]) -> None:
    assert sorted(completed(line)) == choices


def test_a_choice_that_is_none_is_refused_with_the_list(run: Run, folder: Path) -> None:
    code, _, err = run("influence", folder / _TABLE, "--order", "second")
    assert code == 2
    assert "first, newton or refined" in err


def by_hand(frame: pd.DataFrame, row: int) -> tuple[Any, Any, Any]:
    """Return the default model of a table of numbers without a row, its objective and the row."""
    X, y = frame.drop(columns="y"), frame.y
    model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, max_iter=5000))
    model.fit(X.drop(index=row), y.drop(index=row))
    objective = whence.from_sklearn(model, X.drop(index=row), y.drop(index=row))
    return model, objective, (X.loc[[row]], y.loc[[row]])


@pytest.mark.parametrize("measure", ["loss", "margin", "probability"])
def test_json_says_what_the_model_says(
    run: Run, folder: Path, frame: pd.DataFrame, measure: str
) -> None:
    options = ("-t", "y", "--row", 7, "-k", 3, "--measure", measure, "--json")
    model, objective, query = by_hand(frame, 7)
    scores = whence.influence(objective, query, measure=measure)
    probability = model.predict_proba(query[0])[0]
    for command in ("explain", "influence"):
        code, out, _ = run(command, folder / _TABLE, *options)
        assert code == 0
        found = json.loads(out)
        assert (found["query"], found["measure"]) == ("row 7", measure)
        assert found["prediction"] == model.classes_[probability.argmax()]
        assert found["probability"] == pytest.approx(probability.max(), abs=1e-5)
        assert found["label"] == frame.y[7]
        values = [record["score"] for record in found["scores"]]
        assert values == sorted(values, reverse=True)
        for record in found["scores"]:
            assert record["label"] == frame.y[record["id"]]
    ends = {record["id"]: record["score"] for record in found["scores"]}  # of influence
    expected = [*scores.top(3), *scores.bottom(3)]
    assert ends == pytest.approx(dict(expected), rel=1e-3, abs=1e-6)


def test_the_words_follow_the_measure(run: Run, folder: Path) -> None:
    def sides(measure: str) -> dict[str, set[str]]:
        options = ("-t", "y", "--row", 7, "-k", 4, "--measure", measure)
        code, out, _ = run("influence", folder / _TABLE, *options)
        assert code == 0
        lines = [line.split() for line in out.splitlines() if "pushes to" in line]
        assert {line[2] for line in lines} == {"nats" if measure == "loss" else measure}
        ends = {line[-1] for line in lines}
        assert len(ends) == 2
        return {end: {line[0] for line in lines if line[-1] == end} for end in ends}

    # All are functions of the one probability of the label, so that first orders agree.
    assert sides("loss") == sides("probability") == sides("margin")


def test_json_of_a_quantity(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    options = ("--row", 5, "-k", 2, "--json")
    code, out, _ = run("explain", _FUNCTION, *options)
    assert code == 0
    found = json.loads(out)
    _, y = load_diabetes(return_X_y=True)
    assert found["label"] == y[5]
    assert isinstance(found["prediction"], float)
    assert found["probability"] is None
    assert (found["measure"], found["value"]) == ("prediction", found["prediction"])
    code, out, _ = run("explain", _FUNCTION, *options, "--measure", "loss")
    assert code == 0
    half_square = (found["prediction"] - y[5]) ** 2 / 2
    assert json.loads(out)["value"] == pytest.approx(half_square)


def test_json_of_an_image_without_a_label(run: Run, folder: Path) -> None:
    options = ("--size", 8, "-k", 1, "--json")
    code, out, _ = run("explain", folder / _IMAGES, "--image", folder / "odd.png", *options)
    assert code == 0
    found = json.loads(out)
    assert (found["prediction"], found["label"]) == ("bright", None)
    code, out, _ = run("explain", folder / _IMAGES, "--row", 1, *options)
    assert json.loads(out)["label"] == "bright"


def test_rows_are_named_as_the_file_names_them(
    run: Run, frame: pd.DataFrame, tmp_path: Path
) -> None:
    named = frame.assign(patient=[f"p{i:03}" for i in range(len(frame))])
    named.set_index("patient").rename_axis(None).to_csv(tmp_path / "index.csv")
    named.set_index("patient").to_parquet(tmp_path / "index.parquet")
    named.to_csv(tmp_path / "column.csv", index=False)
    frame.to_csv(tmp_path / "plain.csv", index=False)
    options = ("-t", "y", "-k", 3, "--json")
    _, out, _ = run("influence", tmp_path / "plain.csv", "--row", 7, *options)
    plain = json.loads(out)["scores"]
    for name, more in (
        ("index.csv", ()),
        ("index.parquet", ()),
        ("column.csv", ("--ids", "patient")),
    ):
        code, out, _ = run("influence", tmp_path / name, "--row", "p007", *options, *more)
        assert code == 0
        found = json.loads(out)
        assert found["query"] == "row p007"
        assert [each["id"] for each in found["scores"]] == [f"p{e['id']:03}" for e in plain]
        for one, other in zip(found["scores"], plain, strict=True):
            assert one["score"] == pytest.approx(other["score"], rel=1e-6)
        code, _, err = run("influence", tmp_path / name, "--row", 7, *options, *more)
        assert code == 1
        assert "by name, such as 'p000'. Got '7'" in err
    twice = named.assign(patient="p001")
    twice.to_csv(tmp_path / "twice.csv", index=False)
    for column in ("patient", "y", "nothing"):
        command = ("influence", tmp_path / "twice.csv", "--row", 7, "--ids", column)
        code, _, err = run(*command, *options)
        assert code == 1
        assert repr(column) in err


def test_a_row_left_out_keeps_the_numbers_of_the_others(
    run: Run, frame: pd.DataFrame, tmp_path: Path
) -> None:
    holes = frame.copy()
    holes.loc[[2, 5], "y"] = None
    holes.to_csv(tmp_path / "train.csv", index=False)
    options = ("-t", "y", "-k", 79, "--json")
    _, out, err = run("influence", tmp_path / "train.csv", "--row", 7, *options)
    ids = {record["id"] for record in json.loads(out)["scores"]}
    assert ids == set(range(80)) - {2, 5, 7}
    code, _, err = run("influence", tmp_path / "train.csv", "--row", 5, *options)
    assert code == 1
    assert "has no target" in err


@pytest.mark.parametrize("method", ["projected", "representer", "gradient-cosine", "newton"])
@pytest.mark.parametrize("command", ["explain", "influence", "verify", "report"])
def test_any_method_answers(
    run: Run, folder: Path, tmp_path: Path, command: str, method: str
) -> None:
    asked = ("--rows", 2, "-o", tmp_path / "page.html") if command == "report" else ("--row", 7)
    options = ("-t", "y", "-k", 3, "--method", method, *asked)
    code, out, _ = run(command, folder / _TABLE, *options)
    assert code == 0
    if command in ("influence", "verify") and method != "newton":
        default = run(command, folder / _TABLE, "-t", "y", "-k", 3, *asked)[1]
        assert out != default  # other scores, and another agreement with retraining
    if command == "report":
        assert (tmp_path / "page.html").stat().st_size > 10_000


@pytest.mark.parametrize("command", ["explain", "influence", "verify", "report"])
def test_a_method_that_needs_a_recorded_training_says_so(
    run: Run, folder: Path, tmp_path: Path, command: str
) -> None:
    asked = ("--rows", 2, "-o", tmp_path / "page.html") if command == "report" else ("--row", 7)
    code, out, err = run(command, folder / _TABLE, "-t", "y", "--method", "metagradient", *asked)
    assert (code, out) == (1, "")
    assert err.startswith("whence: Expected a training recorded by whence.train")
    assert not (tmp_path / "page.html").exists()
