"""The examples run, and print what the documentation shows."""

from __future__ import annotations

import contextlib
import io
import runpy
from pathlib import Path

import pytest

from tests import reference

_EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("path", sorted(_EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_prints_what_is_shown(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if path.stem == "language_model":
        pytest.importorskip("transformers", reason="transformers is not installed")
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(path))
    assert printed.getvalue() == path.with_suffix(".txt").read_text(encoding="utf-8")


def test_the_documentation_shows_them_all() -> None:
    page = reference.EXAMPLES.read_text(encoding="utf-8")
    assert page == reference.with_examples(page), "run `make reference`"
    for path in _EXAMPLES.glob("*.py"):
        assert f"`examples/{path.name}`" in page
