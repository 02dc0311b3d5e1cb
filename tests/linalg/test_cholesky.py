"""Cholesky: ill-conditioned, singular, indefinite, and refined."""

from __future__ import annotations

import pytest
import torch

from whence.errors import InvalidInput, NotPositiveDefinite
from whence.linalg import Cholesky, Dense


def test_ill_conditioned_still_has_a_small_residual(symmetric, random):
    M = symmetric(torch.logspace(-9, 0, 40, dtype=torch.float64))
    solution = Cholesky(rtol=1e-6).prepare(Dense(M)).solve(random(40, 3))
    assert solution.converged
    assert solution.iterations == 0


def test_refinement_lifts_a_float32_factor_to_float64(symmetric, random):
    M = symmetric(torch.logspace(-3, 0, 50, dtype=torch.float64))
    B = random(50, 4)
    narrow = Cholesky(factor_dtype=torch.float32).prepare(Dense(M)).solve(B)
    refined = Cholesky(factor_dtype=torch.float32, refine=10, rtol=1e-12).prepare(Dense(M)).solve(B)
    assert narrow.residual > 1e-7
    assert refined.converged
    assert 1 <= refined.iterations <= 10
    once = Cholesky(factor_dtype=torch.float32, refine=1, rtol=1e-30).prepare(Dense(M)).solve(B)
    assert once.iterations == 1
    assert once.residual < 1e-3 * narrow.residual
    torch.testing.assert_close(refined.value, torch.linalg.solve(M, B), rtol=1e-8, atol=1e-8)


def test_refinement_keeps_the_better_answer(symmetric, random):
    """With a hopeless tolerance the residual wanders with rounding; more steps never hurt."""
    A = Dense(symmetric(torch.logspace(-6, 0, 30, dtype=torch.float64)).float())
    B = random(30, 4).float()
    answers = [Cholesky(rtol=1e-30, refine=r).prepare(A).solve(B) for r in range(12)]
    residuals = [answer.residual for answer in answers]
    assert residuals == sorted(residuals, reverse=True)
    assert not any(answer.converged for answer in answers)


def test_matrix_free_operators_are_formed_by_products(counting, symmetric, random):
    M = symmetric(torch.linspace(1, 2, 7))
    A = counting(M)
    inverse = Cholesky().prepare(A.damped(0.5))
    assert A.columns == 7
    b = random(7)
    torch.testing.assert_close(inverse @ b, torch.linalg.solve(M + 0.5 * torch.eye(7), b))
    assert A.columns == 7  # a direct solve by @ does not spend products on checking itself


@pytest.mark.parametrize("smallest", [-1.0, -1e-3, 0.0])
@pytest.mark.parametrize("p", [20, 1100])
def test_indefinite_names_the_damping_that_suffices(symmetric, smallest, p):
    M = symmetric(torch.linspace(smallest, 5, p, dtype=torch.float64))
    A = Dense(M)
    with pytest.raises(NotPositiveDefinite, match=r"smallest eigenvalue .*A\.damped") as caught:
        Cholesky().prepare(A)
    damping = caught.value.sufficient_damping
    assert -smallest < damping < -1.2 * smallest + 1e-2
    assert Cholesky().prepare(A.damped(damping)).solve(M[:, 0]).converged


@pytest.mark.parametrize(
    "M",
    [
        torch.tensor([[1.0, 1.0], [1.0, 1.0 + 2.3e-16]], dtype=torch.float64),
        torch.diag(torch.tensor([1.0, 1.0, 1.0, 2.0**-50], dtype=torch.float64)),  # at the bound
    ],
)
def test_a_last_pivot_of_rounding_is_singular(M):
    """LAPACK factors it: the last pivot is 2.2e-16, and the answer would be noise."""
    assert int(torch.linalg.cholesky_ex(M).info) == 0
    with pytest.raises(NotPositiveDefinite, match="smallest eigenvalue"):
        Cholesky().prepare(Dense(M))


@pytest.mark.parametrize("M", [torch.ones(2, 2), torch.diag(torch.tensor([1.0] * 99 + [0.0]))])
def test_a_singular_matrix_is_solved_with_the_damping_its_error_names(M):
    """Its least eigenvalue is rounding: what suffices is rounding of the largest, n times over."""
    A = Dense(M.double())
    with pytest.raises(NotPositiveDefinite) as caught:
        Cholesky().prepare(A)
    Cholesky().prepare(A.damped(caught.value.sufficient_damping))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1.0, 2.0], [0.0, 1.0]], "symmetric operator.*up to 2.00e"),
        ([[1.0, float("nan")], [0.0, 1.0]], "finite matrix"),
        ([[float("inf"), 0.0], [0.0, 1.0]], "finite matrix"),
    ],
)
def test_bad_matrices(matrix, message):
    with pytest.raises(InvalidInput, match=message):
        Cholesky().prepare(Dense(torch.tensor(matrix)))


def test_the_rounding_of_large_entries_is_no_asymmetry():
    M = 1e6 * torch.eye(2, dtype=torch.float64)
    M[0, 1] += 1e-3
    assert Cholesky().prepare(Dense(M)).solve(torch.ones(2).double()).converged
    with pytest.raises(NotPositiveDefinite):
        Cholesky().prepare(Dense(torch.zeros(2, 2)))


def test_bad_options():
    with pytest.raises(InvalidInput, match="refine=-1"):
        Cholesky(refine=-1)
    with pytest.raises(InvalidInput, match="rtol=0"):
        Cholesky(rtol=0)


@pytest.mark.parametrize(
    ("refine", "dtype", "close"),
    [
        (0, None, {}),
        (2, None, {}),
        (0, torch.float32, {"rtol": 1e-3, "atol": 1e-4}),
        (6, torch.float32, {}),
    ],
)
def test_forms_are_those_of_the_inverse(
    refine: int, dtype: torch.dtype | None, close: dict[str, float]
) -> None:
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(7, 7, generator=generator, dtype=torch.float64)
    matrix = half @ half.T + torch.eye(7, dtype=torch.float64)
    rows = torch.randn(5, 3, 7, generator=generator, dtype=torch.float64)
    inverse = Cholesky(refine=refine, factor_dtype=dtype).prepare(Dense(matrix))
    naive = rows @ torch.linalg.inv(matrix) @ rows.mT
    torch.testing.assert_close(inverse.forms(rows), naive, **close)
    torch.testing.assert_close(Dense(matrix).forms(rows), rows @ matrix @ rows.mT)
