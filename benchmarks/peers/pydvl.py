"""pyDVL: solvers for the Hessian, as in its influence notebooks.

`fit` on a data loader, then a `SequentialInfluenceCalculator` over query and training batches.
Values are not divided by n. `regularization` is the damping.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydvl.influence import SequentialInfluenceCalculator
from pydvl.influence.torch import (
    CgInfluence,
    DirectInfluence,
    EkfacInfluence,
    NystroemSketchInfluence,
)
from pydvl.influence.torch.util import NestedTorchCatAggregator
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from benchmarks.peers.loading import loader
from benchmarks.workloads.problem import Ask, Influence, Rows, Suspects

_NUMBERS = 2**27  # in a batch of per-example gradients


def batch_size(problem: Influence) -> int:
    """Return how many examples' gradients fit."""
    return max(1, _NUMBERS // sum(p.numel() for p in problem.model.parameters()))


def asking(fitted: Any, problem: Influence) -> Ask:
    """Return how to ask a fitted model."""
    size = batch_size(problem)
    calculator = SequentialInfluenceCalculator(fitted)

    def ask() -> Any:
        lazy = calculator.influences(
            loader(*problem.queries, size), loader(problem.x, problem.y, size)
        )
        return (lazy.compute(aggregator=NestedTorchCatAggregator()) / problem.n).numpy()

    return ask


def ekfac(problem: Influence, setting: float) -> Ask:
    """Prepare EK-FAC with corrected eigenvalues."""
    model = EkfacInfluence(
        problem.model, update_diagonal=True, hessian_regularization=problem.damping(setting)
    )
    return asking(model.fit(loader(problem.x, problem.y, batch_size(problem))), problem)


def nystroem(problem: Influence, setting: float) -> Ask:
    """Prepare a Nyström sketch of rank 100 of the Hessian."""
    model = NystroemSketchInfluence(
        problem.model, cross_entropy, regularization=problem.damping(setting), rank=100
    )
    return asking(model.fit(loader(problem.x, problem.y, problem.n)), problem)


def cg(problem: Influence, setting: float) -> Ask:
    """Prepare block conjugate gradients, which solves for all queries together.

    Its absolute tolerance is lowered, so that it is the relative one that ends the iteration.
    """
    model = CgInfluence(
        problem.model,
        cross_entropy,
        regularization=problem.damping(setting),
        rtol=1e-4,
        atol=1e-9,
        solve_simultaneously=True,
    )
    return asking(model.fit(loader(problem.x, problem.y, problem.n)), problem)


def self_influence(problem: Suspects, setting: float) -> Ask:
    """Prepare the self-influence of dense rows through a Nyström sketch."""
    x, y = torch.from_numpy(problem.x.toarray()).float(), torch.from_numpy(problem.y).float()
    model = nn.Linear(x.shape[1], 1)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(problem.coef)[None])
        model.bias.fill_(problem.intercept)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(logits.flatten(), labels.flatten())

    sketch = NystroemSketchInfluence(model, loss, regularization=setting * problem.l2, rank=100)
    fitted = sketch.fit(loader(x, y[:, None], len(x)))

    def ask() -> Any:
        return fitted.influences(x, y[:, None]).diagonal().numpy()

    return ask


def direct(problem: Rows, setting: float | None) -> Ask:
    """Prepare the exact Hessian of a linear model that has the estimator's coefficients."""
    n, d = problem.x.shape
    model = nn.Linear(d, 1).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(problem.model.coef_).reshape(1, d))
        model.bias.fill_(float(np.squeeze(problem.model.intercept_)))
    penalty = 1 / problem.model.C if problem.classifies else problem.model.alpha
    loss = binary_cross_entropy_with_logits if problem.classifies else half_squared_error
    size = max(1, _NUMBERS // d)

    def batches(x: Any, y: Any) -> Any:
        return loader(torch.from_numpy(x), torch.from_numpy(y).double()[:, None], size)

    data = batches(problem.x, problem.y)
    fitted = DirectInfluence(model, loss, regularization=penalty / n).fit(data)

    def ask() -> Any:
        lazy = SequentialInfluenceCalculator(fitted).influences(batches(*problem.queries), data)
        return (lazy.compute(aggregator=NestedTorchCatAggregator()) / n).numpy()

    return ask


def half_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of the ridge regression."""
    return 0.5 * mse_loss(outputs, targets)


METHODS = {
    "exact Hessian": direct,
    "EK-FAC": ekfac,
    "Nyström, rank 100": nystroem,
    "block CG": cg,
    "self-influence, Nyström": self_influence,
}
