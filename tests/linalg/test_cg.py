"""Conjugate gradients: block against single, preconditioned, and each way it can fail."""

from __future__ import annotations

import gc
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whence.errors import Diverged, InvalidInput, NotPositiveDefinite
from whence.linalg import CG, Cholesky, Dense, Diagonal, Direct, LinearOperator, Nystrom


def naive_cg(M, b, rtol):
    """Golub and Van Loan, algorithm 11.3.3, for one right-hand side; returns the steps too."""
    x = torch.zeros_like(b)
    r, p, steps = b.clone(), b.clone(), 0
    while r.norm() > rtol * b.norm():
        q = M @ p
        a = (r @ r) / (p @ q)
        x, new = x + a * p, r - a * q
        p = new + (new @ new) / (r @ r) * p
        r, steps = new, steps + 1
    return x, steps


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 20), st.integers(0, 999))
def test_takes_the_textbook_steps(symmetric, random, p, seed):
    M = symmetric(torch.linspace(1, 8, p), seed=seed)
    b = random(p, seed=seed)
    expected, steps = naive_cg(M, b, 1e-8)
    solution = CG(rtol=1e-8).prepare(Dense(M)).solve(b)
    assert abs(solution.iterations - steps) <= 1  # a residual may sit on the threshold
    torch.testing.assert_close(solution.value, expected, rtol=1e-6, atol=1e-7)


def test_converged_columns_leave_the_product(counting, symmetric, random):
    """Eigenvectors are solved in one step; only the one hard column goes on."""
    M = symmetric(torch.logspace(-2, 0, 40, dtype=torch.float64))
    _, Q = torch.linalg.eigh(M)
    B = torch.cat([Q[:, :9], random(40, 1)], dim=1)
    A = counting(M)
    solution = CG(rtol=1e-6).prepare(A).solve(B)
    assert solution.converged
    assert A.columns <= 10 + (solution.iterations - 1) * 1 + 10 + 5  # steps, and the last check
    assert solution.iterations > 30


def test_ill_conditioned_reaches_its_tolerance_in_fact(symmetric, random):
    """The recurrence's residual drifts at condition number 1e8; the recomputed one must not."""
    M = symmetric(torch.logspace(-8, 0, 60, dtype=torch.float64))
    B = random(60, 3)
    solution = CG(rtol=1e-8, max_iterations=20_000).prepare(Dense(M)).solve(B)
    true = (B - M @ solution.value).norm(dim=0) / B.norm(dim=0)
    assert solution.converged
    assert float(true.max()) <= 1e-8


def test_a_residual_at_the_tolerance_is_enough():
    """The first step leaves a quarter of each entry, exactly: no second one is taken."""
    A = Dense(torch.diag(torch.tensor([3.0, 5.0], dtype=torch.float64)))
    solution = CG(rtol=0.25).prepare(A).solve(torch.ones(2, dtype=torch.float64))
    assert solution.residual == 0.25
    assert solution.converged
    assert solution.iterations == 1


def test_the_size_of_a_right_hand_side_takes_no_steps():
    """Of a vector of norm 20 the tolerance is 20 times that of a unit vector."""
    diagonal, b = torch.logspace(0, 2, 400, dtype=torch.float64), torch.ones(400).double()
    _, steps = naive_cg(torch.diag(diagonal), b, 1e-3)
    solution = CG(rtol=1e-3).prepare(Diagonal(diagonal)).solve(b)
    assert abs(solution.iterations - steps) <= 1


def test_unreachable_tolerance_stops_and_says_so(symmetric, random):
    M = symmetric(torch.logspace(-3, 0, 60, dtype=torch.float64)).float()
    solution = CG(rtol=1e-12, max_iterations=100_000).prepare(Dense(M)).solve(random(60).float())
    assert not solution.converged
    assert solution.iterations < 2_000
    assert 1e-12 < solution.residual < 1e-3


def test_singular_but_consistent_is_solved(symmetric, random):
    M = symmetric(torch.cat([torch.zeros(3), torch.linspace(1, 2, 9)]))
    b = M @ random(12)
    assert CG(rtol=1e-8).prepare(Dense(M)).solve(b).converged


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("preconditioner", [None, "diagonal"])
@pytest.mark.parametrize("smallest", [-2.0, -1e-3, 0.0])
@pytest.mark.parametrize("unit", [1.0, 1e5])
def test_negative_curvature_names_the_damping(
    symmetric, random, smallest, unit, preconditioner, dtype
):
    eigenvalues = torch.cat([torch.tensor([smallest]), torch.linspace(0.5, 4, 29)])
    A = Dense(unit * symmetric(eigenvalues, dtype=dtype))
    M = Diagonal(torch.linspace(0.5, 1, 30, dtype=dtype)) if preconditioner else None
    B = random(30, 3, dtype=dtype)
    with pytest.raises(NotPositiveDefinite, match=r"curvature .*A\.damped") as caught:
        CG(rtol=1e-7 if dtype == torch.float64 else 1e-6, preconditioner=M).prepare(A).solve(B)
    damping = caught.value.sufficient_damping
    assert -smallest < damping / unit < -1.2 * smallest + 1e-2
    found = float(re.search(r"with curvature (\S+)", str(caught.value)).group(1)) / unit
    assert smallest - 1e-3 < found < 1e-5
    assert CG(rtol=1e-3, preconditioner=M).prepare(A.damped(damping)).solve(B).converged


def test_preconditioners_save_steps(symmetric, random):
    M = symmetric(torch.cat([torch.linspace(1e-2, 5e-2, 180), torch.logspace(0, 3, 20)]).double())
    A, b = Dense(M), random(200)
    plain = CG(rtol=1e-8).prepare(A).solve(b)
    noisy = Dense(M + 1e-5 * torch.eye(200))  # as of a subsample
    for preconditioner in (Nystrom(rank=25), Cholesky().prepare(noisy)):
        fast = CG(rtol=1e-8, preconditioner=preconditioner).prepare(A).solve(b)
        assert fast.converged
        assert fast.iterations < plain.iterations / 3
        torch.testing.assert_close(fast.value, torch.linalg.solve(M, b), rtol=1e-5, atol=1e-4)


def test_exact_preconditioner_takes_one_step(random):
    A = Diagonal(torch.linspace(1, 100, 50, dtype=torch.float64))
    solution = CG(rtol=1e-10, preconditioner=Direct()).prepare(A).solve(random(50, 2))
    assert solution.iterations == 1


@pytest.mark.parametrize("value", [-1.0, 0.0])
def test_indefinite_preconditioner_is_refused(random, value):
    A = Dense(torch.eye(4, dtype=torch.float64))
    M = Diagonal(torch.full((4,), value, dtype=torch.float64))
    with pytest.raises(NotPositiveDefinite, match="preconditioner"):
        CG(preconditioner=M).prepare(A).solve(random(4))


def test_infinite_products_are_told():
    A = Diagonal(torch.tensor([1.0, float("inf")]))
    with pytest.raises(Diverged, match="not finite"):
        CG().prepare(A).solve(torch.ones(2))


def test_budget_is_respected(counting, symmetric, random):
    A = counting(symmetric(torch.logspace(-6, 0, 50, dtype=torch.float64)))
    solution = CG(rtol=1e-10, max_iterations=7).prepare(A).solve(random(50))
    assert solution.iterations == 7
    assert A.columns == 8  # and one product to check
    assert not solution.converged


def test_memory_is_flat(symmetric, random):
    """Bytes of live tensors do not grow from one product to the next."""
    M = symmetric(torch.logspace(-4, 0, 120, dtype=torch.float64))
    sizes = []

    class Watching(LinearOperator):
        shape, dtype, device = (120, 120), torch.float64, torch.device("cpu")

        def matmat(self, V):
            if len(sizes) not in (4, 20, 45):  # a walk over all objects is slow
                sizes.append(0)
                return M @ V
            tensors = [x for x in gc.get_objects() if type(x) is torch.Tensor]
            sizes.append(sum({t.data_ptr(): t.nbytes for t in tensors}.values()))
            return M @ V

        rmatmat = matmat

    CG(rtol=1e-14, max_iterations=50).prepare(Watching()).solve(random(120, 8))
    assert len(sizes) >= 50
    assert 0 < sizes[45] <= sizes[20] <= sizes[4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rtol": 0.0}, "rtol=0.0"),
        ({"rtol": 1.0}, "rtol=1.0"),
        ({"max_iterations": 0}, "max_iterations=0"),
        ({"preconditioner": torch.eye(2)}, "Got a Tensor"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InvalidInput, match=message):
        CG(**options)


def test_preconditioner_of_another_size():
    with pytest.raises(InvalidInput, match="preconditioner of shape"):
        CG(preconditioner=Dense(torch.eye(3))).prepare(Dense(torch.eye(2)))


def test_unchecked_is_one_sweep_and_leaves_zero_columns_at_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(30, 40, generator=generator, dtype=torch.float64)
    matrix = root @ root.T / 40 + torch.eye(30, dtype=torch.float64)
    B = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    B[:, 1] = 0
    inverse = CG(rtol=1e-9).prepare(Dense(matrix))
    X, steps = inverse.unchecked(B)
    assert 1 < steps <= 30
    assert not X[:, 1].any()
    torch.testing.assert_close(X, torch.linalg.solve(matrix, B), rtol=1e-7, atol=1e-9)
    X, steps = inverse.unchecked(B[:, 1:2])
    assert steps == 0
    assert not X.any()


def test_one_iteration_is_allowed() -> None:
    """The least number of iterations is 1: a steepest-descent step, exact for a multiple of I."""
    A = Dense(2 * torch.eye(5, dtype=torch.float64))
    b = torch.arange(1.0, 6.0, dtype=torch.float64)
    solution = CG(max_iterations=1).prepare(A).solve(b)
    assert solution.iterations == 1
    torch.testing.assert_close(solution.value, b / 2)
