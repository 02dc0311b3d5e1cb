"""Random halves of MNIST: the perceptron, its training, and the bank of its retrainings.

5,000 digits, an MLP 784-256-128-10 with ReLU, SGD with momentum 0.9, rate 0.03, weight decay 1e-3,
batches of 64, 20 epochs; 200 queries. Ground truth: 60 random halves, two seeds each (start and
order), kept in a bank that an interrupted run goes on filling. Needs WHENCE_DATA.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import whence
from experiments import datasets
from whence.evaluation import fingerprint, replays, retraining_ensemble
from whence.training.run import Run

ON_GPU = 64  # trainings in one stack, which a GPU takes as one
N, QUERIES, SUBSETS, SEEDS = 5_000, 200, 60, 2


def data() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the training digits and the queries."""
    mnist = datasets.mnist()
    x = torch.tensor(mnist.x_train[:N], dtype=torch.float32)
    q = torch.tensor(mnist.x_test[:QUERIES], dtype=torch.float32)
    return (x, torch.tensor(mnist.y_train[:N])), (q, torch.tensor(mnist.y_test[:QUERIES]))


def model(seed: int, d: int = 784, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """Return the network of d pixels at its start."""
    torch.manual_seed(seed)
    hidden = (nn.Linear(d, 256), activation(), nn.Linear(256, 128), activation())
    return nn.Sequential(*hidden, nn.Linear(128, 10))


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
    """Train once, from a start and in an order that the seed decides, where the data are."""
    start = model(seed, train[0].shape[1]).to(train[0].device)
    return whence.train(start, whence.CrossEntropy(), train, recipe(seed))


def together_on(device: torch.device) -> int | None:
    """Return how many trainings a device is given at once, `None` for the library's own rule."""
    return None if device.type == "cpu" else ON_GPU


def bank_of(
    runs: Sequence[Run],
    queries: tuple[Tensor, Tensor],
    directory: Path,
    *,
    subsets: int = SUBSETS,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return the masks [m, n] and the outcomes [s, m, q] of retraining on halves that a seed draws.

    There is a seed of the training for every run.
    """
    bank = retraining_ensemble(
        replays(runs, queries, together=together_on(runs[0].params.device)),
        len(runs[0].program.train),
        subsets=subsets,
        seeds=len(runs),
        fingerprint=fingerprint(runs[0].program.train.inputs, queries[0], str(runs[0].recipe)),
        directory=directory,
        seed=seed,
    )
    return bank.masks, bank.outcomes
