"""Float32 solves held to a float64 residual, against dense float64 solves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from whence.linalg import CG, Cholesky, Dense
from whence.linalg.cholesky import factor_in_place
from whence.linalg.mixed import MixedInverse, Rounded
from whence.linalg.solver import Inverse, relative_norms

_P = 60


def symmetric(condition: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(_P, _P, generator=generator, dtype=torch.float64))
    spectrum = torch.logspace(0, 1, _P, base=1 / condition, dtype=torch.float64)
    return (q * spectrum) @ q.T


def columns(k: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    scales = torch.logspace(-60, 20, k, dtype=torch.float64)  # beyond float32 at both ends
    return torch.randn(_P, k, generator=generator, dtype=torch.float64) * scales


def mixed(matrix: Tensor, fast: Inverse, rtol: float) -> MixedInverse:
    return MixedInverse(Dense(matrix), fast, fast, rtol=rtol)


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("solver", [Cholesky(), CG(rtol=1e-6)], ids=["factor", "iterate"])
def test_well_conditioned_systems_need_no_correction(
    k: int, solver: Cholesky | CG, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix, B = symmetric(100.0), columns(k)
    fast = solver.prepare(Dense(matrix.float()))
    monkeypatch.setattr("whence.linalg.mixed.CG", None)  # a correction would fail
    solution = mixed(matrix, fast, 1e-5).solve(B)
    exact = torch.linalg.solve(matrix, B)
    assert solution.converged
    assert float(relative_norms(solution.value - exact, exact).max()) < 1e-3
    assert float(relative_norms(B - matrix @ solution.value, B).max()) < 1e-5
    assert solution.residuals.shape == (k,)


def test_residual_of_many_columns_is_estimated_from_a_few_combinations() -> None:
    matrix, B = symmetric(100.0), columns(40)
    inverse = mixed(matrix, Cholesky().prepare(Dense(matrix.float())), 1e-5)
    X = torch.linalg.solve(matrix, B) * (1 + 1e-4 * torch.linspace(-1, 1, 40))
    true = float(relative_norms(B - matrix @ X, B).square().mean().sqrt())
    assert float(inverse._residuals(B, X)[0]) == pytest.approx(true, rel=0.2)
    few = relative_norms(B - matrix @ X, B)[:8]  # up to eight, each by itself
    torch.testing.assert_close(inverse._residuals(B[:, :8], X[:, :8]), few)


@pytest.mark.parametrize("k", [2, 20])
def test_what_float32_cannot_reach_is_corrected_in_float64(k: int) -> None:
    matrix, B = symmetric(1e5), columns(k)
    fast = Cholesky().prepare(Dense(matrix.float()))
    assert float(relative_norms(B - matrix @ Rounded(fast, B.dtype).matmat(B), B).max()) > 1e-10
    solution = mixed(matrix, fast, 1e-10).solve(B)
    assert solution.converged
    assert float(relative_norms(B - matrix @ solution.value, B).max()) <= 1e-10


def test_products_are_the_answers_and_the_preconditioner_is_near() -> None:
    matrix, B = symmetric(1e5), columns(3)
    inverse = mixed(matrix, Cholesky().prepare(Dense(matrix.float())), 1e-10)
    assert torch.equal(inverse @ B, inverse.solve(B).value)
    near = inverse.approximation @ B
    assert 1e-10 < float(relative_norms(B - matrix @ near, B).max()) < 0.1


def test_a_useless_float32_answer_is_dropped() -> None:
    matrix, B = symmetric(10.0), columns(3)
    fast = Cholesky().prepare(Dense(torch.eye(_P) * 1e-30))
    solution = mixed(matrix, fast, 1e-8).solve(B)
    assert float(relative_norms(B - matrix @ solution.value, B).max()) <= 1e-8


def test_a_matrix_that_float32_makes_indefinite_is_solved_in_float64() -> None:
    matrix, B = symmetric(10.0), columns(12)
    indefinite = CG().prepare(Dense((matrix - 2 * torch.eye(_P)).float()))
    preconditioner = Cholesky().prepare(Dense(matrix.float()))
    solution = MixedInverse(Dense(matrix), indefinite, preconditioner, rtol=1e-8).solve(B)
    assert float(relative_norms(B - matrix @ solution.value, B).max()) <= 1e-8


def test_rounded_operator_keeps_the_scale_of_each_column() -> None:
    matrix, B = symmetric(10.0), columns(9)
    rounded = Rounded(Dense(matrix.float()), torch.float64)
    for product in (rounded.matmat(B), rounded.rmatmat(B)):
        assert float(relative_norms(product - matrix @ B, B).max()) < 1e-6


def test_factor_in_place() -> None:
    matrix = symmetric(10.0)
    copy = matrix.clone()
    factor = factor_in_place(copy)
    assert factor is not None
    assert factor.data_ptr() == copy.data_ptr()
    torch.testing.assert_close(factor @ factor.T, matrix)
    assert factor_in_place(symmetric(1e20)) is None
    assert factor_in_place(-matrix) is None
    assert factor_in_place(torch.diag(torch.tensor([1.0, 2e-16]).double())) is None
