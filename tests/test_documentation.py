"""The code of the documentation runs, and prints what the documentation says it prints."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parent.parent
_BLOCK = re.compile(r"```python\n(.*?)```(?:\s*```text\n(.*?)```)?", re.DOTALL)
_PAGES = [
    page
    for page in (
        _REPOSITORY / "README.md",
        _REPOSITORY / "CONTRIBUTING.md",
        *sorted((_REPOSITORY / "docs").rglob("*.md")),
    )
    if _BLOCK.search(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_REPOSITORY)))
def test_code_runs_and_prints_what_is_shown(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = _BLOCK.findall(page.read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(page), "exec"), namespace)
        if expected:
            assert printed.getvalue().split() == expected.split()
