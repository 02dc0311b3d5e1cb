r"""How well do metagradients predict retraining, and what do they cost?

The deterministic protocol: one training of an MLP on 1,000 digits (64-16-16-10, tanh, 600 steps of
SGD with momentum, batches of 50); 50 held-out queries; for each fraction removed, 100 random
subsets retrained with the same start, order and recipe. LDS is the mean over queries of the
Spearman correlation of predicted and actual loss.

Run with `python benchmarks/attribution/deterministic.py`; about a minute on one core.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from whence.evaluation.metrics import lds
from whence.methods.metagradient import metagradient
from whence.objective.losses import CrossEntropy
from whence.training.metasmoothness import metasmoothness
from whence.training.recipe import Recipe
from whence.training.replay import retrain
from whence.training.run import Run
from whence.training.train import train

N, QUERIES = 1_000, 50
RECIPE = Recipe(learning_rate=0.02, momentum=0.9, batch_size=50, epochs=30, schedule="cosine")


def digits(queries: int = QUERIES) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return 1,000 training and some query digits, shuffled by a fixed seed."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x = torch.tensor(data.data[order] / 16, dtype=torch.float32)
    y = torch.tensor(data.target[order])
    return (x[:N], y[:N]), (x[N : N + queries], y[N : N + queries])


def mlp(width: int, seed: int = 0) -> nn.Module:
    """Return the network at its start."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10)
    )


def plain_loop(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    """Train as one would without whence, for comparison of times."""
    x, y = data
    optimizer = torch.optim.SGD(
        model.parameters(), lr=RECIPE.learning_rate, momentum=RECIPE.momentum
    )
    batches = RECIPE.batches(len(x))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    for batch in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        schedule.step()


def seconds(function: Callable[[], Any]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def agreement(
    run: Run, scores: Tensor, queries: tuple[Tensor, Tensor], fraction: float, subsets: int
) -> tuple[float, float]:
    """Return the LDS and the mean Pearson correlation for subsets of one size."""
    n = len(run.weights)
    generator = np.random.default_rng(1)
    masks = torch.ones(subsets, n, dtype=torch.bool)
    for row in masks:
        row[generator.choice(n, round(fraction * n), replace=False)] = False
    params = retrain(run, masks.float())
    with torch.no_grad():
        outcomes = torch.stack([run.program.losses(p, *queries) for p in params])
    predicted = (~masks).double() @ scores.double().T
    actual = outcomes.double()
    pearson = np.mean(
        [np.corrcoef(predicted[:, q], actual[:, q])[0, 1] for q in range(predicted.shape[1])]
    )
    return lds(scores, masks, outcomes).mean, float(pearson)


def main() -> None:
    """Print the numbers, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subsets", type=int, default=100, help="subsets for each fraction")
    parser.add_argument("--width", type=int, default=16, help="units of a hidden layer")
    parser.add_argument("--repeats", type=int, default=5, help="timings, of which the median")
    parser.add_argument("--out", type=Path, default=None, help="a JSON file for the numbers")
    options = parser.parse_args()

    data, queries = digits()
    model = mlp(options.width)
    run = train(model, CrossEntropy(), data, RECIPE)
    scores = metagradient(run, queries)
    # In turns, so that whatever else the machine does falls on all alike.
    times = np.array(
        [
            (
                seconds(lambda: plain_loop(mlp(options.width), data)),
                seconds(lambda: train(model, CrossEntropy(), data, RECIPE)),
                seconds(lambda: metagradient(run, queries)),
                seconds(lambda: retrain(run, torch.ones(16, N))),
            )
            for _ in range(options.repeats)
        ]
    )
    plain_s, train_s, back_s, bank_s = np.median(times, axis=0).tolist()
    with torch.no_grad():
        outputs = run.program.outputs(run.params, queries[0])
    found: dict[str, Any] = {
        "parameters": len(run.params),
        "steps": run.steps,
        "accuracy": float((outputs.argmax(1) == queries[1]).float().mean()),
        "plain_loop_s": plain_s,
        "train_s": train_s,
        "metagradient_s": back_s,
        "metagradient_over_train": float(np.median(times[:, 2] / times[:, 1])),
        "metagradient_over_plain_loop": float(np.median(times[:, 2] / times[:, 0])),
        "sixteen_retrainings_s": bank_s,
        "retraining_speedup": float(np.median(16 * times[:, 1] / times[:, 3])),
        "metasmoothness_0.01": metasmoothness(run).mean,
        "metasmoothness_0.2": metasmoothness(run, fraction=0.2).mean,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }
    for fraction in (0.01, 0.05, 0.2):
        rank, pearson = agreement(
            run, torch.from_numpy(scores.values), queries, fraction, options.subsets
        )
        found[f"lds_{fraction:g}"], found[f"pearson_{fraction:g}"] = rank, pearson
    for name, value in found.items():
        print(f"{name:30s}{value:.4g}" if isinstance(value, float) else f"{name:30s}{value}")
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
