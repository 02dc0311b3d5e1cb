"""The notebooks run, and print what they show."""

from __future__ import annotations

import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.notebooks import FOLDER, WIDGET, executed, markdown, printed

_NUMBER = re.compile(r"\d+\.\d+")
_NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Any]:
    """The notebooks executed again, all that can be."""
    can = find_spec("transformers") is not None
    paths = [path for path in _NOTEBOOKS if can or path.stem != "texts"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's transport, which is no business of ours
        notebooks = executed(paths, tmp_path_factory.mktemp("notebooks"))
    return dict(zip(paths, notebooks, strict=True))


@pytest.mark.parametrize("path", _NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_what_it_shows(path: Path, repeated: dict[Path, Any]) -> None:
    if path not in repeated:
        pytest.skip("transformers is not installed")
    stored = nbformat.read(path, as_version=4)
    again = printed(repeated[path])
    for before, after in zip(printed(stored), again, strict=True):
        assert _NUMBER.sub("#", after) == _NUMBER.sub("#", before), "run `make notebooks`"
        for one, other in zip(_NUMBER.findall(before), _NUMBER.findall(after), strict=True):
            assert float(other) == pytest.approx(float(one), abs=0.02, rel=0.02)


@pytest.mark.parametrize("path", _NOTEBOOKS, ids=lambda path: path.stem)
def test_the_site_shows_the_notebook(path: Path) -> None:
    text, pictures = markdown(nbformat.read(path, as_version=4), path.stem)
    assert path.with_suffix(".md").read_text(encoding="utf-8") == text
    for file, content in pictures.items():
        assert (FOLDER / file).read_bytes() == content


def test_the_explorer_appears_below_its_cell(repeated: dict[Path, Any]) -> None:
    last = repeated[FOLDER / "table.ipynb"].cells[-1]
    assert "whence.explore(" in last.source
    shown = [output.data for output in last.outputs if WIDGET in output.get("data", {})]
    assert [data["text/plain"] for data in shown if "Explorer" in data["text/plain"]] == [
        "Explorer of 40 predictions"
    ]


def test_results_show_cards_and_plots_appear() -> None:
    table = nbformat.read(FOLDER / "table.ipynb", as_version=4)
    outputs = [output for cell in table.cells for output in cell.get("outputs", [])]
    kinds = [set(output.get("data", {})) for output in outputs]
    assert sum("text/html" in kind for kind in kinds) == 3
    assert sum("image/png" in kind for kind in kinds) == 2
