"""RelatIF, against its formula with the dense inverse in float64."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whence
from whence.curvature.exact import GGN
from whence.errors import InvalidInput, NotConvergedWarning
from whence.network.objective import ModuleObjective


@pytest.fixture(scope="module")
def case() -> tuple[ModuleObjective, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.arange(20) % 3
    x[4] = 0  # without a bias, an example that moves nothing
    model = nn.Linear(3, 3, bias=False).double()
    weights = torch.linspace(0.5, 2.0, 20, dtype=torch.float64)
    data = (x, y)
    objective = whence.from_torch(
        model, whence.CrossEntropy(), data, l2=0.1, weights=weights, convex=True
    )
    return objective.refit(), (x[:3] + 0.1, y[:3])  # type: ignore[return-value]


@pytest.mark.parametrize("normalize", ["loss", "parameters"])
def test_is_the_papers_ratio(
    case: tuple[ModuleObjective, tuple[Tensor, Tensor]], normalize: Any
) -> None:
    objective, queries = case
    theta, (x, y) = (
        objective.params.reshape(3, 3),
        (objective.train.inputs, objective.train.targets),
    )

    def gradients(x: Tensor, y: Tensor) -> Tensor:
        errors = torch.softmax(x @ theta.T, 1) - nn.functional.one_hot(y, 3)
        return (errors.unsqueeze(2) * x.unsqueeze(1)).flatten(1)

    g, moves = gradients(x, y), torch.linalg.solve(objective.dense_hessian(), gradients(x, y).T)
    found = whence.influence(objective, queries, normalize=normalize)
    for i in range(20):
        length = (g[i] @ moves[:, i]).sqrt() if normalize == "loss" else moves[:, i].norm()
        expected = gradients(*queries) @ moves[:, i] / length if i != 4 else torch.zeros(3)
        np.testing.assert_allclose(found.values[:, i], expected, atol=1e-12)
    assert found.measure.startswith("loss per unit of")
    some = whence.influence(objective, queries, normalize=normalize, indices=[7, 2])
    np.testing.assert_allclose(some.values, found.values[:, [7, 2]], atol=1e-12)


def test_a_change_of_length_one_changes_the_loss_by_at_most_the_gradient(
    case: tuple[ModuleObjective, tuple[Tensor, Tensor]],
) -> None:
    """Cauchy–Schwarz: no example can do more per parameter change than the steepest direction."""
    objective, queries = case
    asked = objective.examples(queries)
    found = whence.influence(objective, queries, normalize="parameters").values
    steepest = objective.gradient_sum(asked, objective.loss, torch.eye(3).double()).norm(dim=0)
    assert (np.abs(found) <= steepest.numpy()[:, None] + 1e-12).all()
    assert np.abs(found).max() > 0.1 * float(steepest.max())


def test_with_ekfac() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.arange(20) % 3
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    A = GGN(objective).damped(0.1)
    g = objective.gradient_sum(objective.train, objective.loss, torch.eye(20).double())
    moves = whence.EKFAC().prepare(A).matmat(g)
    lengths = {"loss": (g * moves).sum(0).sqrt(), "parameters": moves.norm(dim=0)}
    for normalize in ("loss", "parameters"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)
            found = whence.influence(
                objective,
                (x, y),
                solver=whence.EKFAC(),
                damping=0.1,
                normalize=normalize,  # type: ignore[arg-type]
            )
        np.testing.assert_allclose(found.values, g.T @ moves / lengths[normalize], atol=1e-10)


def test_bad_input(case: tuple[ModuleObjective, tuple[Tensor, Tensor]]) -> None:
    objective, queries = case
    with pytest.raises(InvalidInput, match="'both'"):
        whence.influence(objective, queries, normalize="both")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="order='newton'"):
        whence.influence(objective, queries, normalize="loss", order="newton")
