"""The demonstration, as a user runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from whence.cli import main


def test_demo_predicts_what_retraining_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["whence", "demo", "--output", str(tmp_path / "why.html")])
    with pytest.raises(SystemExit, match="0"):
        main()
    printed = capsys.readouterr().out
    found = re.search(r"on 50 removals: R = ([\d.]+), slope = ([\d.]+)", printed)
    assert found is not None
    assert float(found[1]) > 0.99
    assert abs(float(found[2]) - 1) < 0.05
    html = (tmp_path / "why.html").read_text(encoding="utf-8")
    assert "Why was this digit misread?" in html
    assert html.count("data:image/png") > 20


def test_an_error_is_a_sentence_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["whence", "demo", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "whence: Expected a file to write. Got the folder" in capsys.readouterr().err
