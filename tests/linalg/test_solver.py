"""Laws that every solver obeys, where it is exact."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whence.errors import InvalidInput, NotConvergedWarning
from whence.linalg import CG, Arnoldi, Cholesky, Dense, LiSSA, Nystrom
from whence.linalg.signs import random_signs
from whence.linalg.solver import Solution

LAWS = settings(max_examples=15, deadline=None)
P = 12
EXACT = [  # each exact to 1e-8 on a well-conditioned matrix of size P
    Cholesky(),
    Cholesky(refine=8, rtol=1e-12, factor_dtype=torch.float32),
    CG(rtol=1e-12),
    CG(rtol=1e-12, preconditioner=Nystrom(rank=4)),
    CG(rtol=1e-12, preconditioner=Cholesky(factor_dtype=torch.float32)),
    Arnoldi(rank=P),
    Nystrom(rank=P),
    LiSSA(depth=500),
]
NAMES = [f"{i}-{type(solver).__name__}" for i, solver in enumerate(EXACT)]


@pytest.fixture(params=EXACT, ids=NAMES, scope="module")
def solver(request):
    """Each solver in turn."""
    return request.param


@pytest.fixture(scope="module")
def M(symmetric):
    """A matrix with condition number 20."""
    return symmetric(torch.linspace(0.5, 10, P), seed=4)


@LAWS
@given(st.integers(0, 999), st.integers(1, 4), st.floats(-3, 3))
def test_inverse_laws(solver, M, random, seed, k, c):
    A = Dense(M)
    inverse = solver.prepare(A)
    X, Y = random(P, k, seed=seed), random(P, k, seed=seed + 1)
    torch.testing.assert_close(inverse @ (A @ X), X, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(A @ (inverse @ X), X, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(
        inverse @ (X + c * Y), inverse @ X + c * (inverse @ Y), rtol=1e-7, atol=1e-7
    )
    torch.testing.assert_close(X.mT @ (inverse.T @ Y), (inverse @ X).mT @ Y, rtol=1e-7, atol=1e-7)


def test_equals_dense_solve_and_tells_its_residual(solver, M, random):
    B = random(P, 5, seed=2)
    solution = solver.prepare(Dense(M)).solve(B)
    torch.testing.assert_close(solution.value, torch.linalg.solve(M, B), rtol=1e-7, atol=1e-7)
    true = (B - M @ solution.value).norm(dim=0) / B.norm(dim=0)
    torch.testing.assert_close(solution.residuals, true, rtol=1e-3, atol=1e-14)
    assert solution.residual == float(solution.residuals.max())
    assert solution.converged


def test_products_between_rows_and_of_rows_with_themselves(solver, M, random):
    left, right = random(3, P, seed=6), random(300, P, seed=7)
    inverse = solver.prepare(Dense(M))
    products, solution = inverse.between(Dense(left), Dense(right))
    exact = torch.linalg.inv(M)
    torch.testing.assert_close(products, left @ exact @ right.T, rtol=1e-6, atol=1e-7)
    assert solution is not None
    torch.testing.assert_close(solution.value, exact @ left.T, rtol=1e-6, atol=1e-7)
    squares = inverse.quadratic(Dense(right))  # more rows than a block
    torch.testing.assert_close(squares, ((right @ exact) * right).sum(1), rtol=1e-6, atol=1e-7)
    assert inverse.downdated(Dense(left), torch.ones(3).double()) is None


def test_the_right_side_may_be_narrower(M, random):
    left, right = Dense(random(2, P, seed=6)), Dense(random(5, P, seed=7).float())
    products, solution = Cholesky().prepare(Dense(M)).between(left, right)
    assert products.dtype == solution.value.dtype == torch.float32
    assert solution.residual < 1e-12  # of the float64 answer


def test_what_a_solver_and_its_inverse_do_not_offer(solver, M):
    inverse = solver.prepare(Dense(M))
    assert solver.default_damping(Dense(M)) is None
    assert inverse.closed_form is None
    assert inverse.gradient_rtol is None
    assert not inverse.factors
    near = inverse.approximation @ torch.ones(P).double()
    assert float(near.norm()) > 0


def test_an_answer_at_the_tolerance_has_converged():
    A, B = Dense(torch.eye(2, dtype=torch.float64)), torch.eye(2, dtype=torch.float64)
    solution = Solution.checked(A, B, B * torch.tensor([0.5, 1.0]), rtol=0.5, iterations=3)
    assert solution.converged
    assert (solution.residual, solution.iterations) == (0.5, 3)
    assert solution.residuals.tolist() == [0.5, 0.0]


def test_random_signs():
    signs = random_signs((4000,), torch.Generator().manual_seed(0), torch.ones(1).double())
    assert signs.dtype == torch.float64
    assert signs.unique().tolist() == [-1.0, 1.0]
    assert abs(float(signs.mean())) < 0.05


def test_many_rows_on_the_left_are_solved_together(M, random):
    left, right = random(600, P, seed=8), random(4, P, seed=9)
    products, solution = Cholesky().prepare(Dense(M)).between(Dense(left), Dense(right))
    torch.testing.assert_close(products, left @ torch.linalg.inv(M) @ right.T)
    assert solution.value.shape == (P, 600)


def test_one_column_and_many_agree(solver, M, random):
    B = random(P, 4, seed=3)
    inverse = solver.prepare(Dense(M))
    together = inverse.solve(B)
    for j in range(4):
        alone = inverse.solve(B[:, j])
        assert alone.value.shape == (P,)
        assert alone.residuals.shape == (1,)
        torch.testing.assert_close(alone.value, together.value[:, j], rtol=1e-9, atol=1e-11)


def test_zero_and_tiny_columns(solver, M, random):
    """A zero column is solved by zero; the scale of a column does not decide its accuracy."""
    B = random(P, 3, seed=5)
    B[:, 0] = 0
    B[:, 1] *= 1e-180  # its square is not representable
    solution = solver.prepare(Dense(M)).solve(B)
    assert solution.converged
    assert bool((solution.value[:, 0] == 0).all())
    expected = torch.linalg.solve(M, B[:, 1] * 1e180)
    torch.testing.assert_close(solution.value[:, 1] * 1e180, expected, rtol=1e-7, atol=1e-7)
    empty = solver.prepare(Dense(M)).solve(B[:, :0])
    assert empty.converged
    assert empty.value.shape == (P, 0)


def test_float32_in_float32_out(solver, M, random):
    if isinstance(solver, (CG, Cholesky)):
        solver = type(solver)(rtol=1e-4)
    B = random(P, 2, seed=6)
    solution = solver.prepare(Dense(M.float())).solve(B.float())
    assert solution.value.dtype == torch.float32
    torch.testing.assert_close(
        solution.value.double(), torch.linalg.solve(M, B), rtol=1e-3, atol=1e-4
    )


def test_same_twice(solver, M, random):
    B = random(P, 2, seed=7)
    first, second = (solver.prepare(Dense(M)).solve(B).value for _ in range(2))
    assert torch.equal(first, second)


def test_answers_carry_no_graph(solver, M, random):
    matrix = M.clone().requires_grad_()
    b = random(P, seed=8).requires_grad_()
    assert not solver.prepare(Dense(matrix)).solve(b).value.requires_grad


def test_bad_right_hand_sides(solver, M, random):
    inverse = solver.prepare(Dense(M))
    B = random(P, 3, seed=9)
    B[4, 1] = math.nan
    with pytest.raises(InvalidInput, match="Got nan at row 4 of column 1"):
        inverse.solve(B)
    with pytest.raises(InvalidInput, match=r"Got \[11\]"):
        inverse.solve(torch.ones(P - 1, dtype=torch.float64))
    with pytest.raises(InvalidInput, match=r"Got torch\.float32"):
        inverse.solve(torch.ones(P))


def test_rectangular_operators_are_refused(solver):
    with pytest.raises(InvalidInput, match="square"):
        solver.prepare(Dense(torch.ones(3, 2, dtype=torch.float64)))


@pytest.mark.parametrize(
    "solver", [CG(max_iterations=2), LiSSA(depth=2), Cholesky(refine=1, rtol=1e-30)]
)
def test_falling_short_is_told(solver, M, random):
    inverse = solver.prepare(Dense(M))
    b = random(P, seed=1)
    assert not inverse.solve(b).converged
    with pytest.warns(NotConvergedWarning, match="relative residual"):
        inverse @ b
