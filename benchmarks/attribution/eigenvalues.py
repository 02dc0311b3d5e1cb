"""Why does KFAC predict the retrainings of W2 better than EKFAC? Eigenvalues between the two.

Both have one eigenbasis there, so that KFAC's eigenvalues, products of those of two factors, and
EKFAC's, the true second moments, can be mixed. An LDS for each answer to:

- Is it the damping? Each mixture at multiples of EKFAC's mean eigenvalue, 0.1 to 100.
- Is it noise? EKFAC estimates p eigenvalues from n examples: both from fewer digits than the model
  was trained on, and from ten times as many.
- Is it that the network knows its training digits by heart? Both from other digits only.

Run it with `python -m benchmarks.attribution.eigenvalues` after `python -m benchmarks peers w2`,
whose bank it reads; needs WHENCE_DATA. It writes eigenvalues.json beside this file; what is known
of the answers is in benchmarks/NOTES.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import whence
from benchmarks.compare import bank_of
from benchmarks.workloads import w2
from benchmarks.workloads.problem import Influence
from experiments import datasets
from whence.curvature.exact import GGN, Gradients
from whence.curvature.kronecker import Approximation
from whence.evaluation import lds
from whence.linalg.spectral import KroneckerEigen
from whence.linalg.structured import BlockDiagonal
from whence.network.objective import ModuleObjective
from whence.objective.losses import measure_of

DAMPINGS = (0.1, 1.0, 10.0, 100.0)
SHARES = (0.0, 0.5, 1.0)
_RESULT = Path(__file__).parent / "eigenvalues.json"


@dataclass(frozen=True, eq=False)
class Question:
    """W2's network, its queries and its retrained halves.

    Attributes:
        problem: Model, data and queries.
        masks: Which digits a half keeps, [m, n].
        outcomes: Losses of the queries, [s, m, q].
    """

    problem: Influence
    masks: NDArray[np.bool_]
    outcomes: NDArray[np.float64]

    @cached_property
    def own(self) -> ModuleObjective:
        """The objective of the trained network on its training digits."""
        return self.about(self.problem.x, self.problem.y)

    def about(self, x: Any, y: Any) -> ModuleObjective:
        """Return the objective of the trained network on some digits."""
        objective = whence.from_torch(
            self.problem.model, whence.CrossEntropy(), (x, y), l2=self.problem.l2
        )
        assert isinstance(objective, ModuleObjective)
        return objective

    def agreement(self, approximation: Approximation, damping: float) -> tuple[float, float]:
        """Return the LDS under an approximation, and half the width of its interval."""
        objective = self.own
        # Layers are those of the objective whose gradients are taken.
        layers = whence.EKFAC(fisher="expected").approximate(GGN(objective)).layers
        inverse = whence.EKFAC().inverse(replace(approximation, layers=layers), damping)
        measure = measure_of(objective.loss, "loss")
        asked = Gradients(objective, objective.examples(self.problem.queries), measure)
        scores, _ = inverse.between(asked, Gradients(objective, objective.train, measure))
        found = lds(scores.double().cpu().numpy(), self.masks, self.outcomes)
        return found.mean, (found.interval[1] - found.interval[0]) / 2


def question(bank: Path) -> Question:
    """Return what W2's bank holds."""
    with np.load(bank / "truth.npz") as truth:
        return Question(w2.problem("200 queries", bank, bank), truth["masks"], truth["outcomes"])


def mixture(about: ModuleObjective, share: float) -> Approximation:
    """Return an approximation whose eigenvalues are share · EKFAC's + (1 − share) · KFAC's."""
    kfac = whence.KFAC(fisher="expected").approximate(GGN(about))
    ekfac = whence.EKFAC(fisher="expected").approximate(GGN(about))
    pairs = zip(kfac.operator.inner.blocks, ekfac.operator.inner.blocks, strict=True)
    blocks = tuple(mixed(product, moments, share) for product, moments in pairs)
    return replace(ekfac, operator=replace(ekfac.operator, inner=BlockDiagonal(blocks)))


def mixed(product: Any, moments: Any, share: float) -> KroneckerEigen:
    """Return one layer's block."""
    if not torch.allclose(product.left.abs(), moments.left.abs(), atol=1e-2):
        raise ValueError("Expected one eigenbasis of both. Got two.")
    values = torch.lerp(product.values, moments.values, share)
    return KroneckerEigen(moments.left, moments.right, values)


def rows(asked: Question, counts: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return an LDS for each choice."""
    digits = datasets.mnist()
    x = torch.tensor(digits.x_train, dtype=torch.float32)
    y = torch.tensor(digits.y_train)
    n, found, own = len(asked.problem.x), list[dict[str, Any]](), asked.own
    unit = mixture(own, 1.0).mean_eigenvalue

    def add(what: str, about: ModuleObjective, share: float, multiple: float) -> None:
        mean, half = asked.agreement(mixture(about, share), multiple * unit)
        row = {"eigenvalues from": what, "EKFAC's share": share, "damping": multiple}
        found.append({**row, "LDS": mean, "half width": half})
        print(found[-1], flush=True)

    for count in counts:
        for first, name in ((0, "the first"), (n, "other")):
            some = asked.about(x[first : first + count], y[first : first + count])
            for share in (0.0, 1.0):
                add(f"{name} {count:,} digits", some, share, 1.0)
    for share in SHARES:
        for multiple in DAMPINGS:
            add("the training digits", own, share, multiple)
    return found


def main() -> None:
    """Print the numbers and keep them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=Path, default=bank_of("w2", False))
    parser.add_argument("--counts", type=int, nargs="*", default=[500, 5_000, 50_000])
    options = parser.parse_args()
    content = rows(question(options.bank), tuple(options.counts))
    _RESULT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
