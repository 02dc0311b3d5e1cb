"""A two-level start for linear models: exact where it leads, Kronecker elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy import sparse
from torch import Tensor

import whence
from tests.linear.test_objective import _INDICES, CASES, build, examples, hessian, random
from whence.curvature import two_level as rule
from whence.curvature.two_level import applies, two_level
from whence.linear.features import SparseFeatures
from whence.linear.objective import LinearObjective
from whence.objective.losses import output_hessian


@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize(
    "name", ["softmax", "softmax without intercept", "softmax, unpenalized", "one versus rest"]
)
def test_two_level_inverse_is_exact_where_all_components_lead(name: str, damping: float) -> None:
    objective = CASES[name]()
    rough = two_level(objective, damping)
    assert rough is not None
    eye = torch.eye(len(objective.params), dtype=torch.float64)
    M, flat = rough.matmat(eye), objective.flat_directions()
    exact = torch.linalg.inv(hessian(objective) + damping * eye + flat @ flat.T)
    torch.testing.assert_close(M, exact, rtol=1e-6, atol=1e-6)


def test_two_level_inverse_saves_products() -> None:
    generator = torch.Generator().manual_seed(0)
    n, d = 400, 120
    scale = torch.logspace(0, -3, d, dtype=torch.float64)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) * scale
    y = torch.randint(3, (n,), generator=generator)
    small = build(whence.CrossEntropy(), 3, _INDICES, constant=None)
    objective = replace(
        small,
        train=examples(x, y),
        weights=torch.ones(n, dtype=torch.float64),
        params=random(3 * d) / 10,
        l2=torch.full((3 * d,), 1e-6, dtype=torch.float64),
    )
    rough = two_level(objective)
    assert rough is not None
    M = rough.matmat(torch.eye(3 * d, dtype=torch.float64))
    torch.testing.assert_close(M, M.T, rtol=1e-8, atol=1e-8 * float(M.max()))
    H = objective.dense_hessian()
    before = torch.linalg.eigvalsh(H)
    after = torch.linalg.eigvals(M @ H).real
    assert float(after.min()) > 0
    assert float(after.max() / after.min()) < 0.01 * float(before.max() / before.min())


def naive(objective: LinearObjective, damping: float, r: int, rows: Tensor) -> Tensor:
    """M by matrices: H + λ on r components and the intercepts, S̄ ⊗ diag(s) on the others."""
    c, (n, d) = objective.c, rows.shape
    variances, vectors = torch.linalg.eigh(rows.T @ rows / n)
    order = variances.argsort(descending=True)
    variances, vectors = variances[order], vectors[:, order]
    intercepts = 0 if objective.constant is None else c
    turn = torch.block_diag(torch.kron(torch.eye(c), vectors), torch.eye(intercepts).double())
    H = hessian(objective)
    flat = objective.flat_directions()
    turned = turn.T @ (H + damping * torch.eye(len(H)).double() + flat @ flat.T) @ turn
    leads = torch.tensor([j < r for _ in range(c) for j in range(d)] + [True] * intercepts)
    where = leads.nonzero()[:, 0]
    found = torch.zeros_like(H)
    found[where.unsqueeze(1), where] = torch.linalg.inv(turned[where.unsqueeze(1), where])
    step = -(-len(objective.train) // n)
    f, y = objective.outputs(objective.train)[::step], objective.train.targets[::step]
    typical = output_hessian(objective.loss, f, y).mean(0) * objective.weights.mean()
    apart = torch.kron(typical, torch.diag(variances[r:]))
    apart += (damping + float(objective.l2[: c * d].mean())) * torch.eye(len(apart)).double()
    others = (~leads).nonzero()[:, 0]
    found[others.unsqueeze(1), others] = torch.linalg.inv(apart)
    return turn @ found @ turn.T


@pytest.mark.parametrize("name", ["softmax", "softmax without intercept", "one versus rest"])
@pytest.mark.parametrize(("columns", "leading"), [(1, 1), (8, 2), (60, 4)])
@pytest.mark.parametrize("sample", [100, 20])
def test_it_is_the_matrix_that_is_stated(
    name: str, columns: int, leading: int, sample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule, "_COMPONENTS", 1)
    monkeypatch.setattr(rule, "_SAMPLE", sample)
    objective = CASES[name]()
    rough = two_level(objective, 0.2, columns)
    assert rough is not None
    rows = objective.train.features.dense()[:: 2 if sample == 20 else 1]
    exact = naive(objective, 0.2, leading, rows)
    found = rough.matmat(torch.eye(len(exact), dtype=torch.float64))
    torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-9)
    monkeypatch.setattr(rule, "_LARGEST", 3 * objective.c)
    limited = two_level(objective, 0.2, 1000)
    assert limited is not None
    assert limited.eigenvalues.shape[1] == 2  # of five components three lead


def test_who_has_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = CASES["softmax"]()
    assert applies(objective)
    assert not applies(CASES["logistic"]())
    assert two_level(CASES["logistic"]()) is None
    held = torch.arange(len(objective.params))
    assert not applies(replace(objective, free=held))
    matrix = SparseFeatures(sparse.csr_array(objective.train.features.dense().numpy()))
    assert not applies(replace(objective, train=replace(objective.train, features=matrix)))
    monkeypatch.setattr(rule, "_WIDEST", 5)
    assert applies(objective)
    monkeypatch.setattr(rule, "_WIDEST", 4)
    assert not applies(objective)


def test_what_cannot_be_factored_has_none() -> None:
    objective = CASES["softmax without intercept"]()
    assert two_level(replace(objective, weights=-objective.weights), 0.0) is None


def test_more_columns_buy_a_better_start() -> None:
    generator = torch.Generator().manual_seed(0)
    n, d = 300, 120
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    objective = replace(
        build(whence.CrossEntropy(), 3, _INDICES, constant=None),
        train=examples(x, torch.randint(3, (n,), generator=generator)),
        weights=torch.ones(n, dtype=torch.float64),
        params=random(3 * d) / 10,
        l2=torch.full((3 * d,), 1e-3, dtype=torch.float64),
    )
    few, many = two_level(objective, columns=1), two_level(objective, columns=1000)
    assert few is not None
    assert many is not None
    assert many.eigenvalues.shape[1] == 0 < few.eigenvalues.shape[1]
    eye = torch.eye(3 * d, dtype=torch.float64)
    torch.testing.assert_close(many.matmat(eye), torch.linalg.inv(objective.dense_hessian()))
