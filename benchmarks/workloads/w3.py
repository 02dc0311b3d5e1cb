"""W3: a tiny GPT, 2,000 x 50 sequences of 128 characters; time and memory.

The network of `benchmarks.attribution.gpt`. LDS is added where that leaderboard's bank of retrained
halves lies beside this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from benchmarks.workloads.leaderboard import lds_where_known, restored, saved
from benchmarks.workloads.problem import Influence

TITLE = "A tiny GPT"
SETS = {"50 queries": 50}
CASE = "gpt"


def build(bank: Path, quick: bool, device: str = "cpu") -> None:
    """Train once; a minute."""
    if not (bank / "trained.pt").exists():
        sizes = {"n": 40, "queries": 4, "context": 16} if quick else {}
        saved(CASE, bank, sizes, device)


def problem(queries: str, bank: Path, folder: Path) -> Influence:
    """Return what an adapter is given; the loss of a sequence is the sum over its characters."""
    from benchmarks.attribution import gpt

    return restored(bank, gpt.model(), folder)


def accuracy(scores: NDArray[Any], queries: str, bank: Path, unit: bool) -> dict[str, float]:
    """Return the LDS, if the leaderboard's bank is at hand."""
    return lds_where_known(CASE, scores, bank)
