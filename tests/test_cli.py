"""The command line, as one types it: answers, JSON, and a sentence for every bad file."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import whence
from whence.cli import app, main
from whence.sources.images import fit_images, read_images
from whence.sources.models import fit_table
from whence.sources.tables import read_table

Run = Callable[..., tuple[int, str, str]]

_COMMANDS = (
    "demo",
    "explain",
    "influence",
    "verify",
    "flip-set",
    "attack",
    "report",
    "label-errors",
    "evaluate",
    "diagnose",
    "paper",
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["whence", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        code = stop.value.code
        return (code if isinstance(code, int) else 0), printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels, numbers and text, 5 % of them missing."""
    rng = np.random.default_rng(0)
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    frame = X.iloc[:200, :6].copy()
    frame["site"] = rng.choice(["left", "right"], len(frame))
    frame = frame.mask(rng.random(frame.shape) < 0.05)
    frame["y"] = np.where(y[:200] == 1, "benign", "malignant")
    path = tmp_path_factory.mktemp("tables") / "train.csv"
    frame.to_csv(path, index=False)
    return path


def test_explain(run: Run, csv: Path, tmp_path: Path) -> None:
    page = tmp_path / "why.html"
    options = ("--target", "y", "--row", 17, "-k", 3, "--verify", 2, "--output", page)
    code, out, err = run("explain", csv, *options)
    assert code == 0
    assert "The model says" in out
    assert out.count("which pushes to “benign”") == out.count("which pushes to “malignant”") == 3
    assert "cells are missing. The default model imputes" in err
    assert "Traceback" not in err
    assert "The training rows behind it" in page.read_text()
    assert "2 training examples were removed one at a time" in page.read_text()


def test_report(run: Run, csv: Path, tmp_path: Path) -> None:
    page = tmp_path / "many.html"
    arguments = ("report", csv, "--target", "y", "--rows", 4, "-k", 2, "--output", page)
    code, out, err = run(*arguments, "--json")
    assert code == 0
    assert json.loads(out)["queries"] == ["row 0", "row 50", "row 100", "row 150"]
    text = page.read_text(encoding="utf-8")
    assert "Query 150" in text
    assert "Training example 150" not in text
    code, _, err = run("report", csv, "--target", "y", "--rows", 200)
    assert code == 1
    assert "from 1 to 199. Got 200" in err


def test_the_explained_row_is_held_out(run: Run, csv: Path) -> None:
    _, out, _ = run("influence", csv, "--target", "y", "--row", 17, "-k", 199, "--json")
    answer = json.loads(out)
    scored = [record["id"] for record in answer["scores"]]
    assert len(set(scored)) == len(scored) == 199
    assert 17 not in scored
    assert answer["order_only"] == (answer["size_error"] > 0.2)  # beside refined effects


def test_json_is_json(run: Run, csv: Path) -> None:
    for command in (
        ("explain", csv, "--target", "y", "--row", 3, "-k", 2, "--json"),
        ("label-errors", csv, "--target", "y", "--json", "-k", 4),
        ("verify", csv, "--target", "y", "--row", 3, "-k", 2, "--json"),
        ("diagnose", csv, "--target", "y", "--json"),
    ):
        code, out, _ = run(*command)
        assert code == 0
        found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert found


def test_verify(run: Run, csv: Path) -> None:
    code, out, _ = run("verify", csv, "--target", "y", "--row", 17, "-k", 5)
    assert code == 0
    assert "on 5 removals: R = 0.99" in out or "R = 1.00" in out


def test_quantities_and_parquet(run: Run, tmp_path: Path) -> None:
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    frame = X.assign(y=y + 0.5)
    frame.to_parquet(tmp_path / "train.parquet")
    code, out, _ = run("explain", tmp_path / "train.parquet", "--target", "y", "--row", 2)
    assert code == 0
    assert "The model predicts" in out


def test_a_fitted_model_needs_trust(run: Run, csv: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(csv).select_dtypes("number").fillna(0.0).assign(y=np.arange(200) % 2)
    frame.to_csv(tmp_path / "numbers.csv", index=False)
    X = frame.drop(columns="y")
    model = LogisticRegression(solver="newton-cholesky", tol=1e-8).fit(X, frame.y)
    joblib.dump(model, tmp_path / "model.joblib")
    command = ("label-errors", tmp_path / "numbers.csv", "--target", "y", "--model")
    code, _, err = run(*command, tmp_path / "model.joblib")
    assert code == 1
    assert "add --trust" in err
    code, out, _ = run(*command, tmp_path / "model.joblib", "--trust", "-k", 2)
    assert code == 0
    errors = whence.find_label_errors(whence.from_sklearn(model, X, frame.y))
    assert str(errors.ranking[0]) in out


def test_an_entry_point(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_for_test.py").write_text(
        "import whence\nfrom sklearn.datasets import load_diabetes\n"
        "from sklearn.linear_model import Ridge\n\n"
        "def make_objective():\n    X, y = load_diabetes(return_X_y=True)\n"
        "    return whence.from_sklearn(Ridge().fit(X, y), X, y)\n\n"
        "def with_queries():\n    objective = make_objective()\n"
        "    return objective, objective.train.subset([3, 4, 5, 6])\n\n"
        "def number():\n    return 7\n"
    )
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("diagnose", "mine_for_test:make_objective")
    assert code == 0
    assert "Local minimum?    yes" in out
    code, out, _ = run("influence", "mine_for_test:make_objective", "--row", 5, "-k", 1)
    assert code == 0
    assert (out.count("pushes it up"), out.count("pushes it down")) == (1, 1)
    code, out, _ = run("evaluate", "mine_for_test:with_queries", "--rows", 9, "--subsets", 3)
    assert code == 0
    assert "4 queries, 3 subsets" in out
    for entry, message in (
        ("mine_for_test:nothing", "package.module:function"),
        ("mine_for_test:number", "Got int"),
    ):
        code, _, err = run("diagnose", entry)
        assert code == 1
        assert message in err
    code, _, err = run("influence", "mine_for_test:with_queries", "--row", 4)
    assert code == 1
    assert "from 0 to 3" in err


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_a_network_at_one_checkpoint_gets_ranks(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "network_for_test.py").write_text(
        "import torch, whence\n\n"
        "def make():\n    torch.manual_seed(0)\n    x = torch.randn(20, 3)\n"
        "    layers = torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)\n"
        "    data = x, (x[:, 0] > 0).long()\n"
        "    return whence.from_torch(torch.nn.Sequential(*layers), whence.CrossEntropy(), data)\n"
    )
    monkeypatch.chdir(tmp_path)
    command = ("influence", "network_for_test:make", "--row", 5, "-k", 2)
    code, out, _ = run(*command)
    assert code == 0
    assert "rank 2  pushes" in out
    assert "their sizes are not known" in out
    assert json.loads(run(*command, "--json")[1])["order_only"]


def test_pages_of_results(run: Run, csv: Path, tmp_path: Path) -> None:
    for command, options, words in (
        ("flip-set", ("--row", 49), "examples the model says"),
        ("evaluate", ("--rows", 2, "--subsets", 3), "is the mean rank correlation"),
        ("diagnose", (), "Is the model fully trained?"),
        ("label-errors", ("-k", 2), "labels look wrong to the model"),
    ):
        page = tmp_path / f"{command}.html"
        code, out, _ = run(command, csv, "-t", "y", *options, "-o", page)
        assert code == 0
        assert out.endswith(f"wrote {page}: open it in a browser\n")
        text = page.read_text(encoding="utf-8")
        assert words in text
        assert "has the SHA-256 digest" in text
        assert f"whence {command} {csv} -t y" in text
        assert "The model is right on" in text


def test_a_flip_set_is_confirmed_by_a_refit(run: Run, csv: Path, tmp_path: Path) -> None:
    code, out, _ = run("flip-set", csv, "-t", "y", "--row", 49, "--json")
    assert code == 0
    found = json.loads(out)
    frame = pd.read_csv(csv)
    frame = frame.drop(index=found["removed"])
    frame.to_csv(tmp_path / "less.csv")  # rows keep their names
    _, out, _ = run("influence", tmp_path / "less.csv", "-t", "y", "--row", 49, "-k", 1, "--json")
    assert found["found"]
    assert json.loads(out)["prediction"] != found["prediction"]


def test_kinds_of_models(
    run: Run, csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whence.methods.halves._ENSEMBLES", ((1000, 4),))  # quick
    for forest in (RandomForestClassifier, RandomForestRegressor):
        few = partial(forest, n_estimators=20)
        monkeypatch.setattr(f"whence.sources.models.{forest.__name__}", few)
    options = ("-t", "y", "--row", 17, "-k", 1, "--json")
    for kind, words in (("boosting", "gradient boosting"), ("forest", "random forest")):
        code, out, _ = run("influence", csv, *options, "--model-kind", kind)
        assert code == 0
        assert json.loads(out)["model"] == f"{words} of y"
        quality = json.loads(out)["quality"]
        assert quality["accuracy"] > quality["majority"]
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(150, 3)), columns=["a", "b", "c"])
    for target, kind in (("line", "ridge regression"), ("square", "random forest")):
        y = frame["a"] if target == "line" else frame["a"] ** 2
        frame.assign(y=y + 0.01 * frame["b"]).to_csv(tmp_path / "auto.csv", index=False)
        code, out, _ = run("influence", tmp_path / "auto.csv", *options, "--model-kind", "auto")
        assert code == 0
        found = json.loads(out)
        assert found["model"] == f"{kind} of y"
        assert "On 30 held-out rows the linear model is off by" in found["notes"][-1]


def test_a_model_takes_the_columns_it_was_fitted_on(run: Run, tmp_path: Path) -> None:
    """Flags, text and numbers of the file as pandas reads them, whatever whence would do."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"flag": rng.random(80) > 0.5, "a": rng.normal(size=80)})
    frame["city"] = rng.choice(["Rome", "Oslo"], 80)
    frame["price"] = [f"${number:.2f}" for number in rng.random(80)]
    frame["won"] = frame["a"] + frame["flag"] + rng.normal(size=80) > 0.5
    frame.to_csv(tmp_path / "train.csv", index=False)
    X, y = frame[["city", "flag", "a"]], frame["won"]
    columns = make_column_transformer(
        (OneHotEncoder(), ["city"]), ("passthrough", ["flag"]), (StandardScaler(), ["a"])
    )
    model = make_pipeline(columns, LogisticRegression(tol=1e-10, max_iter=1000)).fit(X, y)
    joblib.dump(model, tmp_path / "model.joblib")
    options = ("--model", tmp_path / "model.joblib", "--trust", "--row", 3, "-k", 1, "--json")
    code, out, _ = run("explain", tmp_path / "train.csv", "-t", "won", *options)
    assert code == 0
    found = json.loads(out)
    assert (found["model"], found["label"]) == ("LogisticRegression of won", bool(y[3]))
    assert found["probability"] == pytest.approx(model.predict_proba(X[3:4]).max(), rel=1e-6)
    strongest = found["scores"][0]
    less = clone(model).fit(X.drop(index=strongest["id"]), y.drop(index=strongest["id"]))

    def loss(model: Any) -> float:
        return float(-np.log(model.predict_proba(X[3:4])[0, int(y[3])]))

    assert strongest["score"] == pytest.approx(loss(less) - loss(model), rel=0.05)
    frame.drop(columns="city").to_csv(tmp_path / "less.csv", index=False)
    code, _, err = run("explain", tmp_path / "less.csv", "-t", "won", *options)
    assert code == 1
    assert "without city" in err


@pytest.mark.parametrize("last", [LogisticRegression(), HistGradientBoostingClassifier(max_iter=2)])
def test_a_model_of_an_array_of_fewer_columns(run: Run, tmp_path: Path, last: Any) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["a", "b", "c"])
    frame = frame.assign(who=[f"p{i}" for i in range(60)], won=frame["a"] > 0)
    frame.to_csv(tmp_path / "train.csv", index=False)
    joblib.dump(last.fit(frame[["a", "b"]].to_numpy(), frame["won"]), tmp_path / "m.joblib")
    options = ("--model", tmp_path / "m.joblib", "--trust", "--row", 3)
    code, _, err = run("explain", tmp_path / "train.csv", "-t", "won", *options)
    assert code == 1
    assert "Expected the 2 columns that the model was fitted on: an array" in err
    assert "Got 4 in train.csv beside won. Fit the model to a frame" in " ".join(err.split())


def test_influence_writes_a_page(run: Run, csv: Path, tmp_path: Path) -> None:
    page = tmp_path / "influence.html"
    code, out, _ = run("influence", csv, "-t", "y", "--row", 17, "-k", 3, "-o", page)
    assert code == 0
    assert out.splitlines()[-1] == f"wrote {page}: open it in a browser"
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert "What is behind the answer for row 17?" in text
    named = [line.split()[0] for line in out.splitlines() if "pushes" in line]
    assert len(named) == 6
    assert all(f"Training example {name}" in text or f'"{name}"' in text for name in named)


def test_influence_asks_for_what_explain_shows(run: Run, csv: Path, tmp_path: Path) -> None:
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    X[:60].assign(y=y).to_csv(tmp_path / "numbers.csv", index=False)
    for path in (csv, tmp_path / "numbers.csv"):
        options = (path, "-t", "y", "--row", 17, "-k", 1, "--json")
        measures = {json.loads(run(c, *options)[1])["measure"] for c in ("explain", "influence")}
        assert measures in ({"loss"}, {"prediction"})


def test_as_a_module() -> None:
    command = [sys.executable, "-m", "whence", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"whence {whence.__version__}\n"


def _bad(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "bad.csv"
    if kind == "absent":
        return path
    content = {
        "empty": b"",
        "binary": bytes(range(256)) * 4,
        "json": b'{"a": [1, 2],\n "b": "c, d"}\n',
        "mess": b'{a: [1, 2]}\n "b": "c, d, e\nf\n',
        "infinite": b"a,y\n1,1\ninf,0\n3,1\n4,0\n",
        "one row": b"a,y\n1,1\n",
        "one class": b"a,y\n1,1\n2,1\n",
        "only target": b"y\n1\n0\n",
        "no target": b"a,b\n1,1\n2,0\n",
        "ragged": b"a,y\n1,1\n2,0,7,8\n",
    }[kind]
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("absent", "does not exist"),
        ("empty", "Got an empty file"),
        ("binary", "Got binary data"),
        ("json", "Got JSON"),
        ("mess", "cells in each line"),
        ("infinite", "Got inf in 'a'"),
        ("one row", "at least 2 rows"),
        ("one class", "at least 2 values"),
        ("only target", "columns beside the target"),
        ("no target", "Got a table with the columns a, b"),
        ("ragged", "number of cells per row"),
    ],
)
def test_bad_files_get_a_sentence(run: Run, tmp_path: Path, kind: str, message: str) -> None:
    code, out, err = run("explain", _bad(tmp_path, kind), "--target", "y", "--row", 0)
    assert code == 1
    assert out == ""
    assert message in err
    assert err.startswith("whence: Expected")
    assert "Traceback" not in err


def test_a_row_that_is_not_there(run: Run, csv: Path) -> None:
    code, _, err = run("explain", csv, "--target", "y", "--row", 5000)
    assert code == 1
    assert "numbered from 0 to 199. Got '5000'" in err


def test_wrong_usage_is_status_two(run: Run, csv: Path) -> None:
    assert run("explain", csv)[0] == 2
    assert run("diagnose")[0] == 2
    assert run("explain", csv, "--target", "y")[0] == 2
    assert run("explain", csv, "--row", 3)[0] == 2
    assert run("explain", csv, "--target", "y", "--row", 3, "--image", "a.png")[0] == 2


def test_every_command_has_an_example(run: Run) -> None:
    code, out, _ = run("--help")
    assert "Exit status: 0 done" in " ".join(out.split())
    for command in _COMMANDS:
        assert command in out
    for command in _COMMANDS:
        code, out, _ = run(command, "--help")
        assert "--json" in out
        assert code == 0
        assert f"Example: whence {command}" in " ".join(out.split())


def test_paper_lists_its_experiments(run: Run) -> None:
    code, out, _ = run("paper", "--list")
    assert code == 0
    assert "f2a" in out


def test_says_its_version(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("whence 0.")


def test_completion_names_the_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_WHENCE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "whence la")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit) as stop:
        app(prog_name="whence")
    assert not stop.value.code
    assert capsys.readouterr().out.split() == ["label-errors"]


def test_evaluate_goes_on_where_it_was(
    run: Run, csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whence.linear.objective import LinearObjective

    ensemble = tmp_path / "ensemble"
    command = (
        "evaluate",
        csv,
        "--target",
        "y",
        "--rows",
        5,
        "--subsets",
        6,
        "--ensemble",
        ensemble,
    )
    real, trained, stop = LinearObjective.refit, [], 2

    def refit(objective: LinearObjective, weights: Any = None) -> Any:
        if weights is None:  # the fit of the model itself
            return real(objective)
        if len(trained) == stop:
            raise KeyboardInterrupt
        trained.append(1)
        return real(objective, weights)

    monkeypatch.setattr(LinearObjective, "refit", refit)
    code, out, err = run(*command)
    assert code == 130
    assert "the same command trains the others" in err
    stop = 100
    code, out, _ = run(*command, "--json")
    assert code == 0
    found = json.loads(out)
    assert len(trained) == 6
    assert found["lds"] > 0.3
    assert len(found["per_query"]) == 5


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright and dark squares, a class each, and a file that is no image."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(24):
        kind = "bright" if i % 2 else "dark"
        (root / kind).mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (16, 20, 3)) // 4 + (100 if i % 2 else 60)
        Image.fromarray(pixels.astype(np.uint8)).save(root / kind / f"{i}.png")
    (root / "dark" / "notes.txt").write_text("no image")
    return root


def test_images_in_class_folders(run: Run, photos: Path, tmp_path: Path) -> None:
    page = tmp_path / "why.html"
    command = ("explain", photos, "--size", 8, "-k", 2)
    code, out, err = run(*command, "--image", photos / "dark" / "4.png", "--output", page)
    assert code == 0
    assert "without dark/" in out
    assert "dark/4.png" not in out
    assert "24 images: 12 of bright, 12 of dark." in err
    assert "no images were left out: 1, dark/notes.txt" in err
    assert "of dark/4.png?</h1>" in page.read_text(encoding="utf-8")
    code, out, _ = run("label-errors", photos, "--size", 8, "-k", 1, "--json")
    assert code == 0
    assert json.loads(out)["suspects"][0]["id"].endswith(".png")


def test_another_class_of_an_image(run: Run, tmp_path: Path) -> None:
    for at, color in enumerate(((250, 20, 20), (20, 250, 20), (20, 20, 250))):
        (tmp_path / "of" / "rgb"[at]).mkdir(parents=True)
        for i in range(4):
            each = tuple(min(255, part + 9 * i * (1 + at)) for part in color)
            Image.new("RGB", (8, 8), each).save(tmp_path / "of" / "rgb"[at] / f"{i}.png")
    Image.new("RGB", (8, 8), (200, 90, 30)).save(tmp_path / "odd.png")
    folder = tmp_path / "of"
    command = ("explain", folder, "--size", 8, "-k", 2, "--measure", "loss")
    inside, outside = ("--image", folder / "g" / "2.png"), ("--image", tmp_path / "odd.png")
    code, out, err = run(*command, *inside, "--against", "b", "--json")
    assert code == 0, err
    images = read_images(folder, size=8)
    fitted = fit_images(images, hold_out=[6])
    this, that = ((images.pixels[6:7], np.array([label])) for label in "gb")
    expected = whence.explain(fitted.objective, this, against=that, k=2, measure="loss")
    assert json.loads(out)["value"] == pytest.approx(expected.value)
    assert sorted(each["score"] for each in json.loads(out)["scores"]) == pytest.approx(
        sorted(effect.effect for effect in (*expected.raising, *expected.lowering))
    )
    page = tmp_path / "why.html"
    code, _, err = run(*command, *outside, "--against", "g", "--output", page)
    assert code == 0, err
    assert "Why “r” and not “g”?" in page.read_text(encoding="utf-8")
    for asked, label in ((inside, "g"), (inside, "x"), (outside, "r")):
        code, _, err = run(*command, *asked, "--against", label)
        assert code == 1
        assert "another class than" in " ".join(err.split())


def test_an_image_from_elsewhere(run: Run, photos: Path, tmp_path: Path) -> None:
    Image.new("L", (9, 9), 250).save(tmp_path / "odd.png")
    code, out, _ = run("explain", photos, "--size", 8, "--image", tmp_path / "odd.png")
    assert code == 0
    assert "The model says bright" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--image", "absent.png"), "does not exist"),
        (("--row", 99), "numbered from 0 to 23"),
        (("--row", 1, "--size", 2), "at least 8 pixels"),
        (("--row", 1, "--network", "math:nothing"), "package.module:function"),
        (("--row", 1, "--network", "time:time"), "Expected time:time to return a torch module"),
    ],
)
def test_what_images_cannot_do(
    run: Run, photos: Path, options: tuple[object, ...], message: str
) -> None:
    code, _, err = run("explain", photos, *options)
    assert code == 1
    assert message in err


def test_a_broken_image_is_named(run: Run, tmp_path: Path) -> None:
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "broken.png").write_bytes(b"no image")
    code, _, err = run("explain", tmp_path, "--row", 0)
    assert code == 1
    assert "broken.png, which cannot be read as one" in err


def test_attack_goes_on_where_it_was(run: Run, photos: Path, tmp_path: Path) -> None:
    kept, page = tmp_path / "attack.npz", tmp_path / "attack.html"
    command = ("attack", photos, "--row", 4, "--size", 8, "--changed", 2, "--save", kept)
    code, out, _ = run(*command, "--steps", 2, "--json")
    assert code == 0
    found = json.loads(out)
    assert len(found["losses"]) == 3
    assert found["largest_change"] <= 0.499 + 1e-4
    code, out, _ = run(*command, "--steps", 1, "--output", page)
    assert code == 0
    assert "in 3 steps" in out
    assert "Changed training inputs" in page.read_text(encoding="utf-8")


def test_attack_wants_images(run: Run, csv: Path) -> None:
    code, _, err = run("attack", csv, "--row", 4)
    assert code == 1
    assert "whence flip-set" in err


@pytest.mark.parametrize("command", ["report", "evaluate"])
def test_a_small_table_needs_no_number_of_rows(run: Run, tmp_path: Path, command: str) -> None:
    x = np.arange(24)
    table = tmp_path / "small.csv"
    pd.DataFrame({"x": x, "z": x % 5, "y": np.where((x + x % 5) % 2, "a", "b")}).to_csv(
        table, index=False
    )
    options = {"report": ["-o", tmp_path / "page.html"], "evaluate": ["--subsets", 3]}[command]
    code, out, err = run(command, table, "--target", "y", "--json", *options)
    assert code == 0, err
    assert len(json.loads(out)[{"report": "queries", "evaluate": "per_query"}[command]]) == 6


def test_why_this_label_and_not_that(run: Run, tmp_path: Path) -> None:
    """The difference of two losses of one row, as the library says it; a label names the other."""
    x = np.arange(36)
    table = tmp_path / "three.csv"
    frame = pd.DataFrame({"x": x % 7, "z": x % 5})
    frame["y"] = np.array(["a", "b", "c"])[(x + x % 7) % 3]
    frame.to_csv(table, index=False)
    asked = ("explain", table, "--target", "y", "--row", 4)
    code, out, err = run(*asked, "--against", "a", "-k", 2, "--measure", "loss", "--json")
    assert code == 0, err
    fitted = fit_table(read_table(table, "y"), hold_out=[4])
    row = fitted.X.loc[[4]]
    this, that = ((row, np.array([label], dtype=object)) for label in (frame["y"][4], "a"))
    expected = whence.explain(fitted.objective, this, against=that, k=2, measure="loss")
    assert json.loads(out)["value"] == pytest.approx(expected.value)
    assert frame["y"][4] != "a"
    for words, message in (
        (("--against", frame["y"][4]), "another label than"),
        (("--against", "d"), "Got 'd'"),
        (("--target", "x", "--target-kind", "quantity", "--against", "1"), "x, a quantity"),
    ):
        code, _, err = run(*asked, *words)
        assert (code, message in " ".join(err.split())) == (1, True), err
