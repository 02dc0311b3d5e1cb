"""The picture of the layers in the documentation is the contract that the linter holds."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("tomllib came with Python 3.11", allow_module_level=True)

import tomllib

_REPOSITORY = Path(__file__).parent.parent
_QUESTIONS = 93  # about types, in all of src; it only falls


def contract() -> list[set[str]]:
    text = (_REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    (layers,) = (
        each["layers"]
        for each in tomllib.loads(text)["tool"]["importlinter"]["contracts"]
        if each["type"] == "layers"
    )
    return [set(re.findall(r"whence\.(\w+)", layer)) for layer in layers]


def picture() -> list[set[str]]:
    text = (_REPOSITORY / "docs/explanation/design.md").read_text(encoding="utf-8")
    (drawn,) = re.findall(r"```\n(cli .*?)```", text, re.DOTALL)
    return [set(re.findall(r"\w+", re.split(r"\s{2,}", line)[0])) for line in drawn.splitlines()]


def test_the_picture_is_the_contract() -> None:
    assert picture() == contract()


def test_every_package_has_a_place() -> None:
    source = _REPOSITORY / "src/whence"
    packages = {
        path.name.removesuffix(".py")
        for path in source.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert packages - {"__init__", "__main__"} == set().union(*contract())


@pytest.mark.parametrize("folder", ["src", "benchmarks", "experiments"])
def test_no_file_is_longer_than_400_lines(folder: str) -> None:
    lines = {
        path.relative_to(_REPOSITORY): len(path.read_text(encoding="utf-8").splitlines())
        for path in (_REPOSITORY / folder).rglob("*.py")
        if "site-packages" not in path.parts  # environments of peers, which are not committed
    }
    assert lines
    assert {path: n for path, n in lines.items() if n > 400} == {}


def test_types_are_asked_rarely() -> None:
    """Kinds are told apart by methods and by `functools.singledispatch`, not by questions."""
    texts = [path.read_text("utf-8") for path in (_REPOSITORY / "src").rglob("*.py")]
    assert texts
    assert sum(text.count("isinstance(") for text in texts) <= _QUESTIONS
