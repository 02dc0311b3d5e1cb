"""curvlinops: curvature as linear operators, a building block.

It has no scores: per-example gradients and products with them are written here with torch.func, as
a user would.
"""

from __future__ import annotations

from typing import Any

import torch
from curvlinops import (
    CGInverseLinearOperator,
    EKFACLinearOperator,
    HessianLinearOperator,
    KFACInverseLinearOperator,
    KFACLinearOperator,
)
from curvlinops.examples import IdentityLinearOperator
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from benchmarks.peers.loading import loader
from benchmarks.workloads.problem import Ask, Influence

_NUMBERS = 2**27  # in a batch of per-example gradients


def gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of each example's loss, [b, p]."""

    def loss(params: dict[str, Tensor], row: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(functional_call(model, params, (row[None],)), label[None])

    params = {name: value.detach() for name, value in model.named_parameters()}
    rows = vmap(grad(loss), (None, 0, 0))(params, x, y)
    return torch.cat([value.flatten(1) for value in rows.values()], 1)


def asking(inverse: Any, problem: Influence) -> Ask:
    """Return how to ask with an inverse of the curvature."""
    size = max(1, _NUMBERS // inverse.shape[0])

    def ask() -> Any:
        asked = torch.cat([gradients(problem.model, *b) for b in loader(*problem.queries, size)])
        solved = inverse @ asked.T
        parts = [
            gradients(problem.model, *batch) @ solved
            for batch in loader(problem.x, problem.y, size)
        ]
        return (torch.cat(parts).T / problem.n).cpu().numpy()

    return ask


def kronecker(kind: Any) -> Any:
    """Return K-FAC or EK-FAC, inverted with exact damping."""

    def prepare(problem: Influence, setting: float) -> Ask:
        model = problem.model
        operator = kind(
            model,
            nn.CrossEntropyLoss(),
            list(model.parameters()),
            loader(problem.x, problem.y, 1024),
            fisher_type="type-2",
            check_deterministic=False,
            separate_weight_and_bias=False,
            num_data=problem.n,
            num_per_example_loss_terms=1,
        )
        operator.compute_kronecker_factors()
        if kind is EKFACLinearOperator:
            operator.compute_eigenvalue_correction()
        inverse = KFACInverseLinearOperator(
            operator, damping=problem.damping(setting), use_exact_damping=True
        )
        return asking(inverse, problem)

    return prepare


def cg(problem: Influence, setting: float) -> Ask:
    """Prepare conjugate gradients on the Hessian, to a relative residual of 1e-4.

    With its default tolerance it stops after ten steps.
    """
    params = list(problem.model.parameters())
    hessian = HessianLinearOperator(
        problem.model,
        nn.CrossEntropyLoss(),
        params,
        loader(problem.x, problem.y, problem.n),
        check_deterministic=False,
        num_data=problem.n,
    )
    shapes = [tuple(parameter.shape) for parameter in params]
    identity = IdentityLinearOperator(shapes, problem.device, torch.float32)
    damped = hessian + problem.damping(setting) * identity
    return asking(CGInverseLinearOperator(damped, tolerance=1e-4), problem)


METHODS = {
    "EK-FAC": kronecker(EKFACLinearOperator),
    "K-FAC": kronecker(KFACLinearOperator),
    "CG": cg,
}
