"""W2: an MLP on 5,000 MNIST digits, 200 queries; random halves retrained are the truth.

784-256-128-10 with ReLU, SGD as in `benchmarks.attribution.halves`, whose bank this is: 60 halves,
two seeds each. Settings are chosen by 20 other halves and 100 other queries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.workloads.problem import Influence

TITLE = "MLP on 5,000 digits"
L2 = 1e-3
SETS = {"200 queries": 200}
_TUNING_QUERIES, _TUNING_SUBSETS = slice(1000, 1100), 20


def build(bank: Path, quick: bool, device: str = "cpu") -> None:
    """Train, and retrain on halves; ten minutes, resumed where it was interrupted."""
    # Imported here, so that no library is charged for the memory of whence.
    from benchmarks.attribution import halves
    from benchmarks.workloads.margins import mean_eigenvalue, mean_square
    from experiments import datasets

    if (bank / "truth.npz").exists():
        return
    bank.mkdir(parents=True, exist_ok=True)
    mnist = datasets.digits() if quick else datasets.mnist()
    n, subsets = (300, 6) if quick else (halves.N, halves.SUBSETS)
    first, other = (slice(0, 40), slice(40, 80)) if quick else (slice(200), _TUNING_QUERIES)
    train = _tensors(mnist.x_train[:n], mnist.y_train[:n], device)
    queries = _tensors(mnist.x_test[first], mnist.y_test[first], device)
    tuning = _tensors(mnist.x_test[other], mnist.y_test[other], device)
    runs = [halves.recorded(train, seed) for seed in range(halves.SEEDS)]
    truth = _bank(runs, queries, bank / "halves", subsets, 0)
    chosen = _bank(runs[:1], tuning, bank / "tuning", min(subsets, _TUNING_SUBSETS), 1)
    model = runs[0].model
    state = {name: value.clone().cpu() for name, value in model.state_dict().items()}
    torch.save(state, bank / "mlp.pt")
    np.savez(
        bank / "data.npz",
        x=train[0].cpu().numpy(),
        y=train[1].cpu().numpy(),
        queries_x=queries[0].cpu().numpy(),
        queries_y=queries[1].cpu().numpy(),
        tuning_x=tuning[0].cpu().numpy(),
        tuning_y=tuning[1].cpu().numpy(),
        unit=mean_eigenvalue(model, train[0], 10),
        margin=mean_square(model, *train),
    )
    with (bank / "new.npz").open("wb") as file:
        np.savez(
            file,
            masks=truth[0].numpy(),
            outcomes=truth[1].numpy(),
            tuning_masks=chosen[0].numpy(),
            tuning_outcomes=chosen[1].numpy(),
        )
    (bank / "new.npz").rename(bank / "truth.npz")


def _bank(
    runs: list[Any], queries: tuple[Tensor, Tensor], folder: Path, subsets: int, seed: int
) -> tuple[Tensor, Tensor]:
    from benchmarks.attribution import halves

    folder.mkdir(exist_ok=True)
    return halves.bank_of(runs, queries, folder, subsets=subsets, seed=seed)


def _tensors(x: NDArray[Any], y: NDArray[Any], device: str) -> tuple[Tensor, Tensor]:
    return torch.tensor(x, dtype=torch.float32, device=device), torch.tensor(y, device=device)


def network(d: int) -> nn.Module:
    """Return the network that `benchmarks.attribution.halves` trains."""
    return nn.Sequential(
        nn.Linear(d, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def problem(queries: str, bank: Path, folder: Path) -> Influence:
    """Return what an adapter is given."""
    part = "tuning" if queries == "tuning" else "queries"
    with np.load(bank / "data.npz") as data:
        x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
        asked = torch.from_numpy(data[f"{part}_x"]), torch.from_numpy(data[f"{part}_y"])
        unit, margin = float(data["unit"]), float(data["margin"])
    model = network(x.shape[1])
    model.load_state_dict(torch.load(bank / "mlp.pt"))
    return Influence(
        x=x,
        y=y,
        queries=asked,
        model=model.eval(),
        l2=L2,
        base=L2,
        unit=unit,
        margin=margin,
        params=None,
        folder=folder,
    )


def accuracy(scores: NDArray[Any], queries: str, bank: Path, unit: bool) -> dict[str, float]:
    """Return the linear datamodeling score with its interval, and the ceiling of the truth."""
    from whence.evaluation import lds

    part = "tuning_" if queries == "tuning" else ""
    with np.load(bank / "truth.npz") as truth:
        masks, outcomes = truth[f"{part}masks"], truth[f"{part}outcomes"]
    found = lds(np.asarray(scores, dtype=np.float64), masks, outcomes)
    named = {"LDS": found.mean, "low": found.interval[0], "high": found.interval[1]}
    if found.ceiling is not None:
        named |= {"ceiling": found.ceiling.mean, "agreement of seeds": found.ceiling.agreement}
    return named
