"""Tables in how-to pages are those of their committed results."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import facts, index

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("made_by", "page"), [(index, "index-on-disk.md"), (facts, "transformers.md")]
)
def test_the_table_of_a_page_is_that_of_its_results(made_by: ModuleType, page: str) -> None:
    name = made_by.__name__.removeprefix("benchmarks.")
    content = json.loads((_ROOT / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))
    text = (_ROOT / "docs" / "how-to" / page).read_text(encoding="utf-8")
    assert text.split(made_by.START)[1].split(made_by.END)[0].strip() == made_by.table(content)
