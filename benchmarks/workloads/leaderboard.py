"""Networks and banks of the leaderboard (`benchmarks.attribution`) as workloads."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.workloads.problem import Influence


def saved(case: str, bank: Path, sizes: dict[str, int], device: str) -> None:
    """Train a case once and keep network and data."""
    module: Any = import_module(f"benchmarks.attribution.{case}")
    bank.mkdir(parents=True, exist_ok=True)
    train, queries = module.data(**sizes)
    # Where the leaderboard keeps its trainings: the one it made is not made again.
    run = module.trained(0, train, bank.parent / f"{case}-runs" / "0", device)
    state = {name: value.clone().cpu() for name, value in run.model.state_dict().items()}
    kept = {"train": train, "queries": queries, "state": state}
    torch.save(kept, bank / "new.pt")
    (bank / "new.pt").rename(bank / "trained.pt")


def restored(bank: Path, model: nn.Module, folder: Path) -> Influence:
    """Return a case as a problem; a setting is the damping in thousandths."""
    kept = torch.load(bank / "trained.pt")
    model.load_state_dict(kept["state"])
    x, y = kept["train"]
    return Influence(
        x=x,
        y=y,
        queries=kept["queries"],
        model=model.eval(),
        l2=0.0,
        base=0.0,
        unit=1e-3,
        margin=0.0,
        params=None,
        folder=folder,
    )


def lds_where_known(case: str, scores: NDArray[Any], bank: Path) -> dict[str, float]:
    """Return the LDS on the leaderboard's random halves, nothing if they are not all there."""
    from benchmarks.attribution.cases import BANK, CASES
    from whence.evaluation import lds

    protocol = CASES[case].protocols[0]
    folder = CASES[case].folder(protocol)
    members = list((folder / "members").glob("*.npz")) if folder.exists() else []
    if bank.parent != BANK or len(members) < protocol.subsets * protocol.seeds:
        return {}
    truth = CASES[case].truth(protocol)
    outcomes = truth.outcomes[:, :, : len(scores)]
    found = lds(np.asarray(scores, dtype=np.float64), truth.masks, outcomes)
    return {"LDS": found.mean, "low": found.interval[0], "high": found.interval[1]}
