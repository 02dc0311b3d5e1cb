"""W6: a small ResNet with group norm, 5,000 x 100 images of CIFAR-10; time and memory.

The network of `benchmarks.attribution.resnet`. LDS is added where that leaderboard's bank of
retrained halves lies beside this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from benchmarks.workloads.leaderboard import lds_where_known, restored, saved
from benchmarks.workloads.problem import Influence

TITLE = "A small ResNet"
SETS = {"100 queries": 100}
CASE = "resnet"


def build(bank: Path, quick: bool, device: str = "cpu") -> None:
    """Train once; a minute."""
    if not (bank / "trained.pt").exists():
        sizes = {"n": 40, "queries": 4} if quick else {}
        saved(CASE, bank, sizes, device)


def problem(queries: str, bank: Path, folder: Path) -> Influence:
    """Return what an adapter is given."""
    from benchmarks.attribution import resnet

    return restored(bank, resnet.model(), folder)


def accuracy(scores: NDArray[Any], queries: str, bank: Path, unit: bool) -> dict[str, float]:
    """Return the LDS, if the leaderboard's bank is at hand."""
    return lds_where_known(CASE, scores, bank)
