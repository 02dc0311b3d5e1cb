r"""How well does each method predict training on random halves of MNIST, and what does it cost?

5,000 digits, an MLP 784-256-128-10 with ReLU, SGD with momentum 0.9, rate 0.03, weight decay 1e-3,
batches of 64, 20 epochs; 200 queries. Ground truth: 60 random halves, two seeds each (start and
order), kept in a bank that an interrupted run goes on filling. Needs WHENCE_DATA.

Run with `python -m benchmarks.attribution.halves`; about ten minutes on two cores, most of it the
bank.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import whence
from experiments import datasets
from whence.evaluation import lds, noise_ceiling, subset_bank
from whence.evaluation.bank import Together, fingerprint
from whence.objective.training import Run, retrain

N, QUERIES, SUBSETS, SEEDS = 5_000, 200, 60, 2
_ROOT = Path(__file__).parent.parent


def data() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the training digits and the queries."""
    mnist = datasets.mnist()
    x = torch.tensor(mnist.x_train[:N], dtype=torch.float32)
    q = torch.tensor(mnist.x_test[:QUERIES], dtype=torch.float32)
    return (x, torch.tensor(mnist.y_train[:N])), (q, torch.tensor(mnist.y_test[:QUERIES]))


def recipe(seed: int) -> whence.Recipe:
    """Return how it is trained, in an order that the seed decides."""
    return whence.Recipe(
        learning_rate=0.03,
        momentum=0.9,
        weight_decay=1e-3,
        batch_size=64,
        epochs=20,
        seed=seed,
    )


def recorded(train: tuple[Tensor, Tensor], seed: int) -> Run:
    """Train once, from a start and in an order that the seed decides."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    return whence.train(model, whence.CrossEntropy(), train, recipe(seed))


def bank_of(
    runs: Sequence[Run], queries: tuple[Tensor, Tensor], directory: Path
) -> tuple[Tensor, Tensor]:
    """Return the masks [m, n] and the outcomes [s, m, q] of retraining on halves."""

    def outcomes(weights: Tensor, seeds: Sequence[int]) -> Tensor:
        rows = torch.empty(len(seeds), QUERIES)
        for seed in sorted(set(seeds)):
            chosen = [i for i, other in enumerate(seeds) if other == seed]
            run = runs[seed]
            for i, params in zip(chosen, retrain(run, weights[chosen]), strict=True):
                with torch.no_grad():
                    rows[i] = run.program.losses(params, *queries)
        return rows

    bank = subset_bank(
        Together(outcomes, 16),
        N,
        subsets=SUBSETS,
        seeds=SEEDS,
        fingerprint=fingerprint(runs[0].program.inputs, queries[0], str(runs[0].recipe)),
        directory=directory,
    )
    return bank.masks, bank.outcomes


def main() -> None:
    """Print a table of methods, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=Path, default=_ROOT / "bank" / "halves")
    parser.add_argument("--ensemble", type=int, default=10, help="trainings of the ensemble")
    options = parser.parse_args()
    train, queries = data()
    runs = [recorded(train, seed) for seed in range(SEEDS)]
    options.bank.mkdir(parents=True, exist_ok=True)
    masks, outcomes = bank_of(runs, queries, options.bank)

    def objective_of(run: Run) -> Any:
        return whence.from_torch(run.model, whence.CrossEntropy(), train, l2=1e-3)

    def scores(run: Run, **solver: Any) -> np.ndarray:
        return whence.influence(objective_of(run), queries, **solver).values

    methods: dict[str, Callable[[], np.ndarray]] = {
        "gradient dot product": lambda: scores(runs[0], solver=whence.KFAC(), damping=1e6),
        "KFAC": lambda: scores(runs[0], solver=whence.KFAC()),
        "EKFAC, expected": lambda: scores(runs[0], solver=whence.EKFAC()),
        "EKFAC, empirical": lambda: scores(runs[0], solver=whence.EKFAC(fisher="empirical")),
        "EKFAC, sampled": lambda: scores(runs[0], solver=whence.EKFAC(fisher="sampled")),
        "CG from EKFAC, rtol 0.01": lambda: scores(
            runs[0], solver=whence.CG(rtol=0.01, preconditioner=whence.EKFAC())
        ),
        f"EKFAC, mean of {options.ensemble} trainings": lambda: np.mean(
            [
                scores(recorded(train, seed), solver=whence.EKFAC())
                for seed in range(options.ensemble)
            ],
            axis=0,
        ),
    }
    ceiling = noise_ceiling(outcomes)
    print(f"noise ceiling {ceiling.mean:.3f}, agreement of seeds {ceiling.agreement:.3f}")
    rows = []
    for name, make in methods.items():
        start = time.perf_counter()
        values = make()
        seconds = time.perf_counter() - start
        found = lds(values, masks, outcomes)
        rows.append(
            {"method": name, "seconds": seconds, "lds": found.mean, "interval": found.interval}
        )
        low, high = found.interval
        print(f"{name:<32} {seconds:8.1f} s   LDS {found.mean:.3f} [{low:.3f}, {high:.3f}]")
    record = {
        "threads": torch.get_num_threads(),
        "noise ceiling": ceiling.mean,
        "agreement of seeds": ceiling.agreement,
        "methods": rows,
    }
    target = _ROOT / "results" / "halves.json"
    target.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
