"""Arnoldi and Nystrom: exact at full rank, and by their stated rule elsewhere."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whence.errors import Diverged, InvalidInput, NotPositiveDefinite
from whence.linalg import Arnoldi, Dense, Diagonal, Nystrom, materialize
from whence.linalg.low_rank import invert_low_rank

SOLVERS = [Arnoldi, Nystrom]


@pytest.fixture(params=SOLVERS, scope="module")
def kind(request):
    """Each of the two."""
    return request.param


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 6),
    st.floats(0.01, 3),
    st.sampled_from(["last", "zero", "drop"]),
    st.integers(0, 99),
)
def test_exactly_low_rank_is_inverted_by_the_rule(kind, symmetric, r, damping, complement, seed):
    """H of rank r <= the solver's: the twin is written from the eigendecomposition."""
    p = 15
    strong = torch.linspace(1, 4, r, dtype=torch.float64)
    H = symmetric(torch.cat([strong, strong.new_zeros(p - r)]), seed=seed)
    values, U = torch.linalg.eigh(H)
    elsewhere = {"last": 1 / (float(strong[0]) + damping), "zero": 1 / damping, "drop": 0.0}[
        complement
    ]
    inverted = torch.where(values > 0.5, 1 / (values + damping), elsewhere)
    solver = kind(rank=r, complement=complement, seed=seed)
    inverse = materialize(solver.prepare(Dense(H).damped(damping)))
    torch.testing.assert_close(inverse, (U * inverted) @ U.mT, rtol=1e-6, atol=1e-7)


def test_residual_tells_how_good_the_rank_is(kind, symmetric, random):
    A = Dense(symmetric(torch.logspace(-3, 2, 60, dtype=torch.float64))).damped(1e-2)
    B = random(60, 3)
    residuals = [
        kind(rank=r, complement="zero").prepare(A).solve(B).residual for r in (5, 20, 40, 60)
    ]
    assert residuals == sorted(residuals, reverse=True)
    assert residuals[-1] < 1e-8


def test_arnoldi_ranks_by_magnitude(symmetric):
    """A strong negative direction is seen, and refused unless the damping lifts it."""
    H = Dense(symmetric(torch.tensor([-3.0, 0.1, 0.2, 0.3, 2.0])))
    with pytest.raises(NotPositiveDefinite, match="Use damping") as caught:
        Arnoldi(rank=2).prepare(H.damped(1.0))
    assert 3 < caught.value.sufficient_damping < 3.3
    inverse = materialize(Arnoldi(rank=2, complement="drop").prepare(H.damped(4.0)))
    expected = torch.tensor([0, 0, 0, 1 / 6, 1.0], dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.eigvalsh(inverse), expected)


def test_nystrom_refuses_negative_curvature(symmetric):
    H = Dense(symmetric(torch.linspace(-2, 5, 30)))
    with pytest.raises(NotPositiveDefinite, match="semidefinite") as caught:
        Nystrom(rank=10).prepare(H.damped(0.1))
    assert 2 < caught.value.sufficient_damping < 2.2


def test_nystrom_lies_between_nothing_and_the_operator(symmetric):
    """Frangella, Tropp and Udell (2023), lemma 2.1: 0 ≼ Â ≼ A."""
    H = symmetric(torch.logspace(-2, 1, 40, dtype=torch.float64))
    inverse = materialize(Nystrom(rank=10, complement="zero").prepare(Dense(H).damped(1.0)))
    sketch = torch.linalg.inv(inverse) - torch.eye(40)
    assert float(torch.linalg.eigvalsh(sketch)[0]) > -1e-8
    assert float(torch.linalg.eigvalsh(H - sketch)[0]) > -1e-8


def test_nystrom_preconditioner_is_the_published_one(symmetric):
    """Equation (1.3): P⁻¹ = (λ_r + μ) U (Λ + μ)⁻¹ Uᵀ + (I − U Uᵀ), up to its scale."""
    mu = 0.1
    A = Dense(symmetric(torch.logspace(-2, 1, 20, dtype=torch.float64)))
    inverse = materialize(Nystrom(rank=5).prepare(A.damped(mu)))
    sketch = torch.linalg.inv(materialize(Nystrom(rank=5, complement="zero").prepare(A.damped(mu))))
    values, U = torch.linalg.eigh(sketch - mu * torch.eye(20))
    values, U = values[-5:], U[:, -5:]
    published = (values[0] + mu) * (U / (values + mu)) @ U.mT + torch.eye(20) - U @ U.mT
    torch.testing.assert_close(inverse * (values[0] + mu), published, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rank_beyond_the_true_rank_is_harmless(kind, symmetric, random, dtype):
    H = Dense(symmetric(torch.cat([torch.zeros(20), torch.ones(3)]), dtype=dtype))
    solution = (
        kind(rank=10, complement="zero").prepare(H.damped(0.5)).solve(random(23, dtype=dtype))
    )
    assert solution.residual < 1e-4


def test_an_eigenvalue_of_rounding_size_is_no_curvature():
    A = Diagonal(torch.tensor([1.0, 0.5, 1e-18], dtype=torch.float64))
    values = torch.tensor([1.0, 0.5, 1e-18], dtype=torch.float64)
    inverse = invert_low_rank(A, torch.eye(3, dtype=torch.float64), values, 0.0, "drop", 1e-8)
    torch.testing.assert_close(materialize(inverse).diagonal().tolist(), [1.0, 2.0, 0.0])


def test_zero_operator_is_its_damping(kind):
    A = Diagonal(torch.zeros(4)).damped(2.0)
    torch.testing.assert_close(kind(rank=2).prepare(A) @ torch.ones(4), torch.full((4,), 0.5))
    with pytest.raises(NotPositiveDefinite):
        kind(rank=2).prepare(Diagonal(torch.zeros(4)))


def test_bad_input(kind):
    with pytest.raises(InvalidInput, match="rank >= 1"):
        kind(rank=0)
    with pytest.raises(InvalidInput, match="Got 'tail'"):
        kind(rank=1, complement="tail")
    with pytest.raises(InvalidInput, match="damping > 0"):
        kind(rank=1, complement="zero").prepare(Diagonal(torch.tensor([1.0, 2.0, 3.0])))
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(Diverged, match="finite products"):
            kind(rank=2).prepare(Diagonal(torch.tensor([1.0, wrong])))
    with pytest.raises(InvalidInput, match="iterations >= rank"):
        Arnoldi(rank=5, iterations=4)


def test_as_many_steps_as_directions_are_allowed():
    A = Diagonal(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    inverse = Arnoldi(rank=3, iterations=3).prepare(A)
    torch.testing.assert_close(inverse @ torch.ones(3).double(), 1 / A.diagonal)
