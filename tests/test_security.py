"""What a file, a model or a name could do: nothing is run that was not named and trusted."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import joblib
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from whence.cli import main
from whence.errors import InvalidInput
from whence.sources import tables, unpacking
from whence.sources.entry import located

_SCRIPT = Path(__file__).parent.parent / "src/whence/pages/templates/csv.js"
_EVIL = "<script>alert(1)</script>"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table whose names are markup, and a model fitted on it."""
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    frame = X.iloc[:60, :3].set_axis([_EVIL, "b", "c"], axis=1)
    labels = y[:60].map({0: _EVIL, 1: "=1+1"})
    frame.assign(y=labels).to_csv(tmp_path / "train.csv", index=False)
    joblib.dump(LogisticRegression(max_iter=5000).fit(frame, labels), tmp_path / "model.joblib")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *typed: str) -> int:
    monkeypatch.setattr("sys.argv", ["whence", *typed])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_a_trusted_model_is_named_by_its_digest_and_names_are_inert(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["explain", "train.csv", "-t", "y", "--row", "3", "--model", "model.joblib"]
    assert run(monkeypatch, *asked) == 1
    assert "Expected --trust" in capsys.readouterr().err
    assert run(monkeypatch, *asked, "--trust", "-o", "why.html") == 0
    page = (folder / "why.html").read_text(encoding="utf-8")
    sha = hashlib.sha256((folder / "model.joblib").read_bytes()).hexdigest()
    assert sha in page
    assert _EVIL not in page
    assert "alert(1)" in page  # it is there as a name
    assert len(re.findall(r"<script\b", page)) == len(re.findall(r"</script>", page))


def test_an_entry_point_is_named_before_it_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").write_text("raise SystemExit(7)")
    (folder / "mine" / "models.py").write_text("def make(): pass")
    assert located("mine.models:make") == folder / "mine" / "models.py"
    assert located("absent.models:make") is None
    assert run(monkeypatch, "diagnose", "mine.models:make") == 7
    assert f"running mine.models:make of {folder / 'mine' / 'models.py'}" in capsys.readouterr().err


def test_a_parquet_file_that_unpacks_to_too_much_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.parquet"
    pd.DataFrame({"a": [0.0] * 200_000, "y": [0, 1] * 100_000}).to_parquet(path)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(unpacking, "_LARGEST", 100_000)
    monkeypatch.setattr(pd, "read_parquet", lambda _: pytest.fail("it was read"))
    with pytest.raises(InvalidInput, match="unpacks to"):
        tables.read_table(path, "y")


@pytest.mark.parametrize("name", ["bomb.csv.zip", "bomb.csv.gz"])
def test_a_packed_table_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, content = tmp_path / name, b"a,y\n" + b"0,1\n" * 250_000
    if name.endswith("zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("train.csv", content)
    else:
        path.write_bytes(gzip.compress(content))
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(unpacking, "_LARGEST", 100_000)
    monkeypatch.setattr(pd, "read_csv", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(InvalidInput, match="unpacks to"):
        tables.read_table(path, "y")


@pytest.mark.skipif(shutil.which("node") is None, reason="node runs the script of the page")
def test_exported_cells_run_nothing() -> None:
    cells = ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "-1.5", "+7.6 %", "1e-05", "a=b", "−3"]
    source = _SCRIPT.read_text(encoding="utf-8")
    program = f"{source}; console.log(JSON.stringify([{json.dumps(cells)}.map(csv.text), "
    program += f'csv.file([{json.dumps(cells)}, ["a,b"]])]))'
    done = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True)
    expected = [f"'{cell}" for cell in cells[:5]] + cells[5:]
    assert json.loads(done.stdout) == [
        expected,
        "\ufeff" + ",".join(expected) + '\r\n"a,b"\r\n',
    ]
