"""Networks whose eigenvalues are varied: a perceptron on digits, trained in many ways, and W2's."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

import whence
from benchmarks.attribution.paired import Judge
from benchmarks.compare import bank_of
from benchmarks.workloads import w2
from experiments import datasets
from whence.curvature.directions import Directions, Fisher
from whence.evaluation import fingerprint, noise_ceiling, replays, retraining_ensemble
from whence.network.objective import ModuleObjective
from whence.objective.trained import Examples
from whence.training.run import Run

BANK = Path(__file__).parent.parent / "bank"
_QUERIES, _SUBSETS, _SEEDS, _CHECKPOINTS = 200, 64, 2, 10
_WIDTHS = 64, 40, 10
_OWN = 1_000  # digits from which on the others begin


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How the perceptron is trained.

    Attributes:
        examples: How many digits.
        epochs: Passes over them.
        decay: Weight decay, which is the penalty of the objective too.
    """

    examples: int = 1_000
    epochs: int = 40
    decay: float = 1e-3

    def recipe(self, seed: int) -> whence.Recipe:
        """Return the training."""
        return whence.Recipe(
            learning_rate=0.05,
            momentum=0.9,
            weight_decay=self.decay,
            batch_size=50,
            epochs=self.epochs,
            schedule="cosine",
            seed=seed,
        )


SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {
        "5 epochs": Setting(epochs=5),
        "10 epochs": Setting(epochs=10),
        "20 epochs": Setting(epochs=20),
        "40 epochs": Setting(),
        "80 epochs": Setting(epochs=80),
        "160 epochs": Setting(epochs=160),
        "weight decay 1e-4": Setting(decay=1e-4),
        "weight decay 1e-2": Setting(decay=1e-2),
        "300 digits": Setting(examples=300),
    }
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A trained network, its queries, and the retrainings that judge.

    Attributes:
        objective: R at the end of the training.
        queries: What is asked about.
        others: Examples of the same kind that the network was not trained on.
        path: The objective at checkpoints of the training.
        judge: The retrainings.
        ceiling: The LDS of a perfect predictor.
        dampings: Multiples of EKFAC's mean eigenvalue.
        fewer: Numbers of examples that eigenvalues are estimated from.
        exact: Multiples at which the Gauss–Newton matrix itself is inverted.
        rtol: The relative error of scores by diagonals, `None` for that of rounding.
    """

    objective: ModuleObjective
    queries: Examples
    others: Examples
    judge: Judge
    ceiling: float
    path: tuple[ModuleObjective, ...] = ()
    dampings: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
    fewer: tuple[int, ...] = (60, 250)
    exact: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0)
    rtol: float | None = None

    def directions(self, fisher: Fisher) -> Directions:
        """Return the directions of the outputs; the draws are not those of any basis."""
        return Directions(self.objective.loss, fisher, 1)

    def accuracy(self, examples: Examples) -> float:
        """Return the share of examples that the network gets right."""
        found = self.objective.outputs(examples).argmax(1) == examples.targets
        return float(found.double().mean())


def perceptron(seed: int) -> nn.Module:
    """Return the network at its start."""
    torch.manual_seed(seed)
    first, hidden, last = _WIDTHS
    return nn.Sequential(nn.Linear(first, hidden), nn.ReLU(), nn.Linear(hidden, last))


def of_digits(setting: Setting, directory: Path, subsets: int = _SUBSETS) -> Case:
    """Train, retrain on halves, and return the case; retrainings lie in a directory."""
    split = datasets.digits()
    x, q = (torch.tensor(rows, dtype=torch.float32) for rows in (split.x_train, split.x_test))
    y, t = torch.tensor(split.y_train), torch.tensor(split.y_test)
    n, queries = setting.examples, (q[:_QUERIES], t[:_QUERIES])
    runs = [
        whence.train(perceptron(seed), whence.CrossEntropy(), (x[:n], y[:n]), setting.recipe(seed))
        for seed in range(_SEEDS)
    ]
    ensemble = retraining_ensemble(
        replays(runs, queries),
        n,
        subsets=subsets,
        seeds=_SEEDS,
        fingerprint=fingerprint(x[:n], queries[0], str(setting)),
        directory=directory,
    )
    objective = about(runs[0].model, (x[:n].double(), y[:n]), setting.decay)
    return Case(
        objective=objective,
        queries=objective.examples((queries[0].double(), queries[1])),
        others=objective.examples((x[_OWN:].double(), y[_OWN:])),
        judge=Judge(ensemble.masks.numpy(), ensemble.outcomes.numpy()),
        ceiling=noise_ceiling(ensemble.outcomes).mean,
        path=checkpoints(runs[0], objective),
    )


def about(model: nn.Module, data: tuple[Tensor, Tensor], l2: float) -> ModuleObjective:
    """Return the objective of a network in the precision of its data."""
    own = copy.deepcopy(model).to(data[0].dtype)
    objective = whence.from_torch(own, whence.CrossEntropy(), data, l2=l2)
    assert isinstance(objective, ModuleObjective)
    return objective


def checkpoints(run: Run, objective: ModuleObjective) -> tuple[ModuleObjective, ...]:
    """Return the objective at the ends of equal parts of a training."""
    stops = np.linspace(0, run.steps, _CHECKPOINTS + 1)[1:].round()
    found = []
    for start, stop in run.segments():
        inside = [int(step) - start for step in stops if start < step <= stop]
        states = run.states(start, stop) if inside else []
        found += [objective.at(states[step][0].to(objective.params)) for step in inside]
    return tuple(found)


def of_w2() -> Case:
    """Return W2's network with the retrainings of its bank."""
    bank = bank_of("w2", False)
    w2.build(bank, quick=False)
    problem = w2.problem("200 queries", bank, bank)
    with np.load(bank / "truth.npz") as truth:
        masks, outcomes = truth["masks"], truth["outcomes"]
    objective = about(problem.model, (problem.x, problem.y), problem.l2)
    n, more = len(problem.x), datasets.mnist()
    others = torch.tensor(more.x_train[n : 2 * n]).float(), torch.tensor(more.y_train[n : 2 * n])
    return Case(
        objective=objective,
        queries=objective.examples(problem.queries),
        others=objective.examples(others),
        judge=Judge(masks, outcomes),
        ceiling=noise_ceiling(outcomes).mean,
        dampings=(0.01, 0.1, 1.0, 3.0, 10.0),
        fewer=(500,),
        exact=(),
        rtol=1e-3,
    )
