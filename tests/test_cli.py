"""The command line, as one types it: answers, JSON, and a sentence for every bad file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression

import whence
from whence.cli import main

Run = Callable[..., tuple[int, str, str]]


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
    code, out, err = run("explain", csv, "--target", "y", "--row", 17, "-k", 3, "--output", page)
    assert code == 0
    assert "The model says" in out
    assert out.count("helpful") == out.count("harmful") == 3
    assert "are imputed" in err
    assert "Traceback" not in err
    assert "Training example" in page.read_text()


def test_report(run: Run, csv: Path, tmp_path: Path) -> None:
    page = tmp_path / "many.html"
    arguments = ("report", csv, "--target", "y", "--rows", 4, "--output", page)
    code, out, err = run(*arguments, "--json")
    assert code == 0
    assert json.loads(out)["rows"] == [0, 50, 100, 150]
    text = page.read_text(encoding="utf-8")
    assert "Query 150" in text
    assert "Training example 150" not in text
    code, _, err = run("report", csv, "--target", "y", "--rows", 200)
    assert code == 1
    assert "from 1 to 199. Got 200" in err


def test_the_explained_row_is_held_out(run: Run, csv: Path) -> None:
    _, out, _ = run("influence", csv, "--target", "y", "--row", 17, "-k", 199, "--json")
    scored = json.loads(out)["helpful"]
    assert len(scored) == 199
    assert "17" not in scored


def test_json_is_json(run: Run, csv: Path) -> None:
    for command in (
        ("explain", csv, "--target", "y", "--row", 3, "--json"),
        ("label-errors", csv, "--target", "y", "--json", "-k", 4),
        ("verify", csv, "--target", "y", "--row", 3, "-k", 5, "--json"),
        ("diagnose", csv, "--target", "y", "--json"),
    ):
        code, out, _ = run(*command)
        assert code == 0
        found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert found


def test_verify(run: Run, csv: Path) -> None:
    code, out, _ = run("verify", csv, "--target", "y", "--row", 17, "-k", 10)
    assert code == 0
    assert "on 10 removals: R = 0.99" in out or "R = 1.00" in out


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
        "    return whence.from_sklearn(Ridge().fit(X, y), X, y)\n"
    )
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("diagnose", "--objective", "mine_for_test:make_objective")
    assert code == 0
    assert "Local minimum?    yes" in out
    code, _, err = run("diagnose", "--objective", "mine_for_test:nothing")
    assert code == 1
    assert "package.module:function" in err


def _bad(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "bad.csv"
    if kind == "folder":
        return tmp_path
    if kind == "absent":
        return path
    content = {
        "empty": b"",
        "binary": bytes(range(256)) * 4,
        "latin1": "name,y\nJos\u00e9,1\nAnna,0\n".encode("latin1"),
        "one row": b"a,y\n1,1\n",
        "one class": b"a,y\n1,1\n2,1\n",
        "only target": b"y\n1\n0\n",
        "no target": b"a,b\n1,1\n2,0\n",
        "ragged": b"a,y\n1,1\n2,0,7,8\n",
        "empty column": b"a,b,y\n1,,1\n2,,0\n3,,1\n4,,0\n",
    }[kind]
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("folder", "Got the folder"),
        ("absent", "does not exist"),
        ("empty", "Got an empty file"),
        ("binary", "Got binary data"),
        ("latin1", "Expected a file in UTF-8"),
        ("one row", "at least 2 rows"),
        ("one class", "at least 2 values"),
        ("only target", "columns beside the target"),
        ("no target", "Got a table with the columns a, b"),
        ("ragged", "number of cells per row"),
        ("empty column", "Got none in 'b'"),
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
    assert "numbered from 0 to 199. Got 5000" in err


def test_wrong_usage_is_status_two(run: Run, csv: Path) -> None:
    assert run("explain", csv)[0] == 2
    assert run("diagnose")[0] == 2


def test_every_command_has_an_example(run: Run) -> None:
    for command in ("demo", "explain", "influence", "label-errors", "verify", "diagnose", "paper"):
        code, out, _ = run(command, "--help")
        assert code == 0
        assert f"Example: whence {command}" in " ".join(out.split())


def test_paper_lists_its_experiments(run: Run) -> None:
    code, out, _ = run("paper", "--list")
    assert code == 0
    assert "f2a" in out
