"""A number in README or site is that of its committed results, and its command exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from benchmarks import page
from benchmarks.attribution import cases
from benchmarks.attribution.table import write_page
from release.build import ROOT
from release.claims import CLAIMS, GENERATED, Claim
from release.evidence import PAGE, written
from tests import mutants


def page_of(claim: Claim) -> str:
    return " ".join((ROOT / claim.page).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text[:50])
def test_a_claim_stands_in_its_page_with_the_numbers_of_its_results(claim: Claim) -> None:
    assert claim.filled() in page_of(claim)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text[:50])
def test_its_command_exists(claim: Claim) -> None:
    first, *rest = shlex.split(claim.command)
    if first == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{rest[0]}:", makefile, re.MULTILINE)
    elif rest[1] == "pytest":
        assert all((ROOT / path).exists() for path in rest[2:])
    else:
        there = ROOT / rest[1].replace(".", "/")
        assert there.with_suffix(".py").exists() or (there / "__main__.py").exists()


def test_every_row_of_what_it_costs_is_a_claim() -> None:
    text = (ROOT / "docs/explanation/cost.md").read_text(encoding="utf-8")
    measured = text.split("## What it costs")[1].split("One Hessian")[0]
    rows = [line for line in measured.splitlines() if line.startswith("|")][2:]
    claims = [claim.filled() for claim in CLAIMS if claim.page.endswith("cost.md")]
    unproved = [line for line in rows if not any(claim in line for claim in claims)]
    # Two rows set numbers in words, and one is a mean of several settings.
    assert len(unproved) <= 2, unproved


def test_the_page_of_evidence_has_every_claim() -> None:
    def plain(text: str) -> str:
        return re.sub(r"(\d{4}-\d\d-\d\d, \w+|not committed yet)", "", text)

    assert plain(PAGE.read_text(encoding="utf-8")) == plain(written()), "run `make evidence`"


@pytest.mark.parametrize("name", [name for name, *_ in GENERATED])
def test_a_generated_page_and_its_files_exist(name: str) -> None:
    sources = next(sources for known, _, sources in GENERATED if known == name)
    assert (ROOT / name).exists()
    assert all((ROOT / source).exists() for source in sources)


def test_the_table_of_mutations_is_that_of_the_recorded_runs() -> None:
    text = (ROOT / "docs/explanation/reliability.md").read_text(encoding="utf-8")
    assert f"{mutants.START}\n{mutants.table()}\n{mutants.END}" in text


def test_the_pages_of_benchmarks_are_written_from_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
    docs = tmp_path / "docs"
    (docs / "images").mkdir(parents=True)
    (docs / "explanation").mkdir()
    committed = ROOT / "docs" / "explanation"
    (docs / "explanation" / "benchmarks.md").write_bytes((committed / "benchmarks.md").read_bytes())
    benchmarks = ROOT / "benchmarks"
    page.main(["--results", str(benchmarks / "results"), "--docs", str(docs)])
    write_page(benchmarks / "attribution" / "results", list(cases.CASES), docs)
    for name in ("benchmarks.md", "leaderboard.md"):
        found = (docs / "explanation" / name).read_text(encoding="utf-8")
        assert found == (committed / name).read_text(encoding="utf-8")
