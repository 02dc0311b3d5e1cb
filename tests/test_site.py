"""The site builds without a complaint, and a search finds the page that answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mkdocs", reason="mkdocs is not installed")
lunr = pytest.importorskip("lunr", reason="lunr is not installed")

_REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    done = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def search(site: Path) -> Any:
    """The site's search: its own index and weights, by lunr as in the browser."""
    documents = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    fields = ({"field_name": "title", "boost": 1000}, {"field_name": "text", "boost": 1})
    index = lunr.lunr(ref="location", fields=fields, documents=documents)

    def pages(words: str) -> list[str]:
        found = (each["ref"].partition("#")[0] for each in index.search(words))
        return list(dict.fromkeys(found))

    return pages


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("LIME", "coming-from/"),
        ("SHAP", "coming-from/"),
        ("FAQ", "faq/"),
        ("glossary", "glossary/"),
        ("notebook", "notebooks/"),
        ("CatBoost", "coming-from/"),
        ("XGBoost", "coming-from/"),
        ("TF-IDF", "how-to/texts/"),
        ("fairness", "how-to/measures/"),
        ("cleanlab", "coming-from/"),
        ("installation", "installation/"),
        ("explain", "reference/api/explain/"),
    ],
)
def test_a_search_finds_the_page(search: Any, words: str, page: str) -> None:
    assert page in search(words)[:3]


def test_no_page_has_directives_that_only_the_site_understands() -> None:
    for path in (_REPOSITORY / "docs").rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^(:::|!!!|\?\?\?) |--8<--", text, re.MULTILINE), path


def test_a_theme_can_be_chosen(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    assert page.count('name="__palette"') == 3


def test_the_gallery_is_on_the_site(site: Path) -> None:
    page = (site / "gallery" / "index.html").read_text(encoding="utf-8")
    linked = re.findall(r'href="((?:\.\./)?gallery/[\w-]+\.html|[\w-]+\.html)"', page)
    assert len(set(linked)) == 5
    for name in {Path(each).name for each in linked}:
        assert "Content-Security-Policy" in (site / "gallery" / name).read_text(encoding="utf-8")
