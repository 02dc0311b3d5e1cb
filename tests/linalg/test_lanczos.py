"""The Lanczos process: its defining relation, to rounding, even where it breaks down."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whence.errors import Diverged, InvalidInput
from whence.linalg import Dense, Diagonal, lanczos


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 25), st.integers(1, 30), st.integers(0, 999))
def test_defining_relation(symmetric, random, p, steps, seed):
    M = symmetric(random(p, seed=seed), seed=seed)
    T = lanczos(Dense(M), steps, seed=seed)
    Q, r = T.basis, min(p, steps)
    assert Q.shape == (p, r)
    eye = torch.eye(r, dtype=torch.float64)
    torch.testing.assert_close(Q.mT @ Q, eye, rtol=0, atol=1e-12)
    tri = torch.diag(T.diagonal) + torch.diag(T.off_diagonal, 1) + torch.diag(T.off_diagonal, -1)
    torch.testing.assert_close(Q.mT @ M @ Q, tri, rtol=0, atol=1e-11)
    gap = M @ Q - Q @ tri
    torch.testing.assert_close(gap[:, :-1], torch.zeros_like(gap[:, :-1]), rtol=0, atol=1e-11)
    assert float(gap[:, -1].norm()) == pytest.approx(T.remainder, abs=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ill_conditioned_stays_orthogonal(symmetric, dtype):
    """Without reorthogonalization, orthogonality is lost as soon as the top eigenvalue settles."""
    M = symmetric(torch.logspace(-12, 3, 80, dtype=torch.float64), dtype=dtype)
    Q = lanczos(Dense(M), 80).basis
    eps = torch.finfo(dtype).eps
    assert float((Q.mT @ Q - torch.eye(80, dtype=dtype)).abs().max()) < 100 * eps


def test_breakdown_goes_on_and_finds_repeated_eigenvalues(random):
    d = torch.tensor([2.0] * 4 + [-1.0] * 3 + [0.0] * 2, dtype=torch.float64)
    T = lanczos(Diagonal(d), 9)
    assert int((T.off_diagonal == 0).sum()) == 3  # three subspaces exhausted, sizes 3, 3, 2, 1
    torch.testing.assert_close(T.ritz()[0], d.sort().values, rtol=0, atol=1e-12)


def test_zero_operator():
    T = lanczos(Diagonal(torch.zeros(4)), 4)
    assert bool((T.ritz()[0] == 0).all())
    assert T.remainder == 0


def test_start_and_seed_decide(random):
    A = Diagonal(torch.arange(1.0, 6.0, dtype=torch.float64))
    b = random(5)
    torch.testing.assert_close(lanczos(A, 2, start=b).basis[:, 0], b / b.norm())
    assert torch.equal(lanczos(A, 3, seed=1).basis, lanczos(A, 3, seed=1).basis)
    assert not torch.equal(lanczos(A, 3, seed=1).basis, lanczos(A, 3, seed=2).basis)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: lanczos(Dense(torch.ones(2, 3)), 2), InvalidInput, "square"),
        (lambda: lanczos(Diagonal(torch.ones(2)), 0), InvalidInput, "steps >= 1. Got 0"),
        (lambda: lanczos(Diagonal(torch.ones(2)), 1, start=torch.zeros(2)), InvalidInput, "zero"),
        (lambda: lanczos(Diagonal(torch.tensor([1.0, torch.nan])), 2), Diverged, "Got nan"),
        (lambda: lanczos(Diagonal(torch.tensor([1.0, torch.inf])), 2), Diverged, "Got inf"),
    ],
)
def test_bad_input(build, error, message):
    with pytest.raises(error, match=message):
        build()
