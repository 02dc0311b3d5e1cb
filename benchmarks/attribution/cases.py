"""What the leaderboard is about: models with their data and training, and how they are judged.

Two protocols, which are never mixed. *Random halves*: train on halves, average each half's loss
over seeds of start and order, compare with the scores of one training. *One run*: the very training
that is explained is repeated with the same start and order, a few percent of the examples left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TypeAlias, final

import torch
from torch import Tensor, nn

import whence
from benchmarks.attribution import deterministic, gpt, halves, resnet
from benchmarks.machine import name_of
from experiments import datasets
from experiments.koh_liang_2017 import f2c
from whence.evaluation import RetrainingEnsemble, fingerprint, replays, retraining_ensemble
from whence.training.run import Run
from whence.training.train import train

Pair: TypeAlias = tuple[Tensor, Tensor]

BANK = Path(__file__).parent.parent / "bank"


@final
@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How many subsets of what size are retrained, with which seeds."""

    name: str
    kept: float
    subsets: int
    seeds: int = 1


@final
@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, its data and its training.

    Attributes:
        name: Of its files.
        label: For the heads of tables.
        title: What it is.
        data: Gives the training examples and the queries.
        model: The network at its start, for a seed.
        recipe: Its training, for a seed.
        protocols: How scores are judged.
        l2: The penalty that the weight decay of the recipe amounts to.
        convex: Whether the objective is.
        left_out: Methods that are not run, and why.
        too_long: Methods that are run on a GPU only, and why.
        iterated: Queries that conjugate gradients and batches are given; all of them if `None`.
        few: Training examples of the quick form.
        cold: The network at its start in the quick form, where `model` has to be trained first.
        device: Where it is trained and explained.
    """

    name: str
    label: str
    title: str
    data: Callable[[], tuple[Pair, Pair]]
    model: Callable[[int], nn.Module]
    recipe: Callable[[int], whence.Recipe]
    protocols: tuple[Protocol, ...]
    l2: float = 0.0
    convex: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)
    too_long: Mapping[str, str] = field(default_factory=dict)
    iterated: int | None = None
    few: int = 200
    cold: Callable[[int], nn.Module] | None = None
    device: str = "cpu"

    @property
    def skipped(self) -> dict[str, str]:
        """Methods that are not run here, and why."""
        return {**self.left_out, **(self.too_long if self.device == "cpu" else {})}

    def trained(self, seed: int, bank: Path = BANK) -> Run:
        """Return the training with a seed; from disk if it was done before."""
        return train(
            self.model(seed).to(self.device),
            whence.CrossEntropy(),
            self.data()[0],
            self.recipe(seed),
            directory=bank / f"{self.name}-runs" / str(seed),
        )

    def truth(self, protocol: Protocol, bank: Path = BANK, workers: int = 1) -> RetrainingEnsemble:
        """Return the retrainings of a protocol; those not on disk are done."""
        (inputs, _), queries = self.data()
        runs = [self.trained(seed, bank) for seed in range(protocol.seeds)]
        together = halves.together_on(torch.device(self.device))
        note = self._note(protocol, bank)
        if not note.exists():
            note.write_text(name_of(self.device))
        return retraining_ensemble(
            replays(runs, queries, together=together),
            len(inputs),
            subsets=protocol.subsets,
            seeds=protocol.seeds,
            fraction=protocol.kept,
            fingerprint=fingerprint(inputs, queries[0], str(self.recipe(0))),
            directory=self.folder(protocol, bank),
            workers=workers,
        )

    def retrained_on(self, protocol: Protocol, bank: Path = BANK) -> str:
        """Return the GPU that a protocol was retrained on, "" for a CPU."""
        return self._note(protocol, bank).read_text()

    def _note(self, protocol: Protocol, bank: Path) -> Path:
        """Return where the device lies that the retrainings of a protocol began on."""
        folder = self.folder(protocol, bank)
        return folder.with_name(f"{folder.name}.device")

    def folder(self, protocol: Protocol, bank: Path = BANK) -> Path:
        """Return where the retrainings of a protocol lie."""
        return bank / f"{self.name}-{protocol.kept:g}"


def one_run(*subsets: int) -> tuple[Protocol, ...]:
    """Return the protocols of one run, with 1, 5 and 20 % removed."""
    removed = (0.01, 0.05, 0.2)
    return tuple(
        Protocol(name=f"{fraction:.0%} removed", kept=1 - fraction, subsets=count)
        for fraction, count in zip(removed, subsets, strict=False)
    )


def random_halves(subsets: int, seeds: int = 2) -> Protocol:
    """Return the protocol of random halves."""
    return Protocol(name="random halves", kept=0.5, subsets=subsets, seeds=seeds)


def quick(case: Case) -> Case:
    """Return a form of a case that runs in seconds: little data, one epoch or two, few subsets."""

    def data() -> tuple[Pair, Pair]:
        (x, y), (q, t) = case.data()
        return (x[: case.few], y[: case.few]), (q[:8], t[:8])

    def recipe(seed: int) -> whence.Recipe:
        full = case.recipe(seed)
        return replace(full, epochs=min(full.epochs, 2), batch_size=min(full.batch_size, 20))

    protocols = tuple(replace(protocol, subsets=6) for protocol in case.protocols)
    model = case.cold or case.model
    return replace(case, data=data, model=model, recipe=recipe, protocols=protocols)


@cache
def digits(n: int, queries: int) -> tuple[Pair, Pair]:
    """Return MNIST digits as rows of 784 pixels."""
    mnist = datasets.mnist()

    def pair(x: object, y: object, count: int) -> Pair:
        return torch.as_tensor(x)[:count].float(), torch.as_tensor(y)[:count]

    return pair(mnist.x_train, mnist.y_train, n), pair(mnist.x_test, mnist.y_test, queries)


def pictures(n: int, queries: int) -> tuple[Pair, Pair]:
    """Return the same digits as images [n, 1, 28, 28]."""
    (x, y), (q, t) = digits(n, queries)
    return (x.view(-1, 1, 28, 28), y), (q.view(-1, 1, 28, 28), t)


def line(seed: int) -> nn.Module:
    """Return a softmax regression at its start."""
    torch.manual_seed(seed)
    return nn.Linear(784, 10)


def untrained(seed: int) -> nn.Module:
    """Return the paper's network at its start."""
    torch.manual_seed(seed)
    return f2c.network()


def nearly_converged(seed: int) -> nn.Module:
    """Return the paper's network after Adam, from where its run starts."""
    recipe = whence.Recipe(
        optimizer="adam",
        learning_rate=2e-3,
        batch_size=500,
        epochs=100,
        weight_decay=1e-3,
        schedule="cosine",
        seed=seed,
    )
    where = BANK / "cnn-starts" / str(seed)
    digits = pictures(5_500, 50)[0]
    return train(untrained(seed), whence.CrossEntropy(), digits, recipe, directory=where).model


_TOO_LARGE = "the matrix is too large to be formed"
_TEN_TRAININGS = "ten trainings take many minutes"
_TWO_STEPS = "two steps take many minutes for a few queries"
_FOUR_PASSES = "the backward pass takes four passes per query and step: hours"
_NEVER = {"exact inverse": _TOO_LARGE}

CASES = {
    case.name: case
    for case in (
        Case(
            name="logistic",
            label="softmax",
            title="Softmax regression on 5,000 MNIST digits",
            data=lambda: digits(5_000, 200),
            model=line,
            recipe=lambda seed: whence.Recipe(
                learning_rate=0.05,
                momentum=0.9,
                weight_decay=1e-2,
                batch_size=100,
                epochs=20,
                schedule="cosine",
                seed=seed,
            ),
            protocols=(random_halves(120), *one_run(100, 100, 100)),
            l2=1e-2,
            convex=True,
        ),
        Case(
            name="mlp",
            label="MLP",
            title="A perceptron 784-256-128-10 with ReLU on 5,000 MNIST "
            "digits, SGD with momentum, 20 epochs",
            data=lambda: digits(halves.N, halves.QUERIES),
            model=halves.model,
            recipe=halves.recipe,
            protocols=(random_halves(128), *one_run(96)),
            l2=1e-3,
            left_out={"exact inverse": _TOO_LARGE},
        ),
        Case(
            name="smooth-mlp",
            label="smooth MLP",
            title="The same perceptron with GELU, a cosine schedule, batches of 100 and 10 epochs, "
            "whose metasmoothness is 0.997",
            data=lambda: digits(halves.N, halves.QUERIES),
            model=lambda seed: halves.model(seed, activation=nn.GELU),
            recipe=lambda seed: replace(
                halves.recipe(seed), batch_size=100, epochs=10, schedule="cosine"
            ),
            protocols=one_run(192, 160, 160),
            l2=1e-3,
            left_out={
                "exact inverse": _TOO_LARGE,
                "EKFAC, mean of 10 trainings": "one run is explained, from one start",
            },
        ),
        Case(
            name="digits",
            label="small MLP",
            title="A perceptron 64-16-16-10 with tanh on 1,000 small "
            "digits, SGD with momentum, 600 steps",
            data=lambda: deterministic.digits(200),
            model=lambda seed: deterministic.mlp(16, seed),
            recipe=lambda seed: replace(deterministic.RECIPE, seed=seed),
            protocols=(random_halves(200), *one_run(200, 200, 200)),
        ),
        Case(
            name="cnn",
            label="CNN",
            title="The convolutional network of Koh & Liang on 5,500 MNIST digits: 88 "
            "steps of SGD from where Adam stopped",
            data=lambda: pictures(5_500, 50),
            model=nearly_converged,
            cold=untrained,
            recipe=lambda seed: whence.Recipe(
                learning_rate=0.003,
                momentum=0.9,
                weight_decay=1e-3,
                batch_size=500,
                epochs=8,
                seed=seed,
            ),
            protocols=one_run(240, 240),
            l2=1e-3,
            left_out={
                **dict.fromkeys(
                    (
                        "EKFAC, then batches",
                        "CG from EKFAC, 2 steps",
                        "CG from EKFAC, 5 steps",
                        "CG from EKFAC, 10 steps",
                    ),
                    "the exact inverse is cheaper",
                ),
                "EKFAC, mean of 10 trainings": "one run is explained, from one start",
            },
        ),
        Case(
            name="resnet",
            label="ResNet",
            title="A small ResNet with group norm on 5,000 images of "
            "CIFAR-10, SGD with momentum, 10 epochs",
            data=lambda: resnet.data(queries=200),
            model=resnet.model,
            recipe=resnet.recipe,
            protocols=(random_halves(256),),
            l2=1e-3,
            left_out=_NEVER,
            too_long={
                "CG from EKFAC, 5 steps": "two steps take six minutes for 50 queries",
                "CG from EKFAC, 10 steps": "two steps take six minutes for 50 queries",
                "EKFAC, mean of 10 trainings": _TEN_TRAININGS,
                "metagradient": _FOUR_PASSES,
            },
            iterated=50,
        ),
        Case(
            name="gpt",
            label="GPT",
            title="A GPT of 4 layers on 2,000 sequences of 128 characters "
            "of Shakespeare, AdamW, 2 epochs",
            data=lambda: gpt.data(queries=150),
            model=gpt.model,
            recipe=gpt.recipe,
            protocols=(random_halves(384),),
            left_out={
                **_NEVER,
                "TRAK, 2,048 dimensions": "the loss of a sequence is no function of one margin",
                "SOURCE, 3 segments": "it is for SGD, this training is by AdamW",
            },
            too_long={
                "EKFAC, then batches": "the work of five products, where two steps are three",
                "CG from EKFAC, 5 steps": _TWO_STEPS,
                "CG from EKFAC, 10 steps": _TWO_STEPS,
                "EKFAC, mean of 10 trainings": _TEN_TRAININGS,
                "metagradient": _FOUR_PASSES,
                "EKFAC, expected": "65 backward passes per sequence",
                "TracIn, 10 checkpoints": "ten times the cost of a dot product",
            },
            iterated=20,
            few=20,
        ),
    )
}
