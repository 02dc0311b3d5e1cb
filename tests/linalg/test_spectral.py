"""Matrices that know their spectrum: products, functions and inverses beside dense twins."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whence.errors import InvalidInput, NotPositiveDefinite
from whence.linalg import (
    BlockDiagonal,
    Dense,
    Diagonal,
    Direct,
    KroneckerEigen,
    LowRank,
    eigendecompose,
    materialize,
)
from whence.linalg.structured import Reordered

LAWS = settings(max_examples=25, deadline=None)
CASES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 999))


def orthogonal(random, n, seed):
    """A random orthogonal matrix."""
    return torch.linalg.qr(random(n, n, seed=seed))[0]


def pairs(random, m, d, seed):
    """Every kind of spectral operator, positive definite, beside its dense twin."""
    p = m * d
    r = max(1, p // 2)
    values = random(m, d, seed=seed).abs() + 0.1
    left, right = orthogonal(random, m, seed + 1), orthogonal(random, d, seed + 2)
    kron = torch.kron(left, right)  # row-major flattening of [out, in]
    U = orthogonal(random, p, seed + 3)[:, :r]
    s = random(r, seed=seed + 4).abs() + 0.1
    V = random(p, r, seed=seed + 5)
    eye = torch.eye(p, dtype=torch.float64)
    M = V @ V.mT + 0.3 * eye
    kronecker = kron @ torch.diag(values.flatten()) @ kron.mT
    listed = [
        (Diagonal(values.flatten()), torch.diag(values.flatten())),
        (LowRank(U, s, 0.7), U @ torch.diag(s) @ U.mT + 0.7 * eye),
        (KroneckerEigen(left, right, values), kronecker),
        (eigendecompose(M), M),
    ]
    order = torch.randperm(2 * p, generator=torch.Generator().manual_seed(seed))
    inner = BlockDiagonal((listed[2][0], listed[1][0]))
    moved = torch.empty(2 * p, 2 * p, dtype=torch.float64)
    moved[order.unsqueeze(1), order] = torch.block_diag(listed[2][1], listed[1][1])
    listed.append((Reordered(inner, order), moved))
    listed.append(
        (BlockDiagonal(tuple(A for A, _ in listed)), torch.block_diag(*(M for _, M in listed)))
    )
    return listed


@LAWS
@given(CASES)
def test_products_and_spectra_equal_dense_twins(random, case):
    m, d, seed = case
    for A, M in pairs(random, m, d, seed):
        torch.testing.assert_close(materialize(A), M, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(A.T @ random(len(M), 2), M @ random(len(M), 2))
        assert (A.dtype, A.device) == (M.dtype, M.device)
        least, most = A.extremes()
        torch.testing.assert_close(
            torch.tensor([least, most], dtype=torch.float64),
            torch.linalg.eigvalsh(M)[[0, -1]],
            rtol=1e-9,
            atol=1e-10,
        )
        torch.testing.assert_close(
            A.eigenvalues().sort().values, torch.linalg.eigvalsh(M), rtol=1e-9, atol=1e-10
        )


@LAWS
@given(CASES)
def test_functions_of_a_matrix(random, case):
    m, d, seed = case
    for A, M in pairs(random, m, d, seed):
        root = materialize(A.map_spectrum(torch.sqrt))
        torch.testing.assert_close(root @ root, M, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(root, root.mT, rtol=1e-9, atol=1e-9)


@LAWS
@given(CASES, st.floats(0, 2), st.floats(0.1, 3))
def test_direct_inverts_damped_and_scaled(random, case, damping, factor):
    m, d, seed = case
    for A, M in pairs(random, m, d, seed):
        B = random(len(M), 3, seed=seed + 9)
        damped = (factor * A).damped(damping)
        twin = factor * M + damping * torch.eye(len(M), dtype=torch.float64)
        inverse = Direct().prepare(damped)
        solution = inverse.solve(B)
        assert solution.converged
        assert solution.iterations == 0
        torch.testing.assert_close(solution.value, torch.linalg.solve(twin, B))
        torch.testing.assert_close(inverse @ (damped @ B), B)
        assert inverse.shape == A.shape


def test_kronecker_is_a_weight_sandwich(random):
    """On a torch weight [out, in], flattened: Q_out (Λ ⊙ Q_outᵀ W Q_in) Q_inᵀ."""
    left, right = orthogonal(random, 2, 0), orthogonal(random, 3, 1)
    values, W = random(2, 3, seed=2), random(2, 3, seed=3)
    expected = left @ (values * (left.mT @ W @ right)) @ right.mT
    product = KroneckerEigen(left, right, values) @ W.flatten()
    torch.testing.assert_close(product, expected.flatten())


def test_full_rank_has_no_complement(random, symmetric):
    """1/0 at the unused shift must not spoil the inverse."""
    M = symmetric(torch.tensor([1.0, 2.0, 3.0]))
    inverse = eigendecompose(M).map_spectrum(torch.reciprocal)
    torch.testing.assert_close(materialize(inverse), torch.linalg.inv(M))


@pytest.mark.parametrize("values", [[1.0, 0.0], [1.0, -2.0], [1e8, 1e-9], [1e-12, 0.0]])
def test_direct_refuses_a_flat_direction(values):
    A = Diagonal(torch.tensor(values, dtype=torch.float64))
    with pytest.raises(NotPositiveDefinite, match=r"smallest .*damped") as caught:
        Direct().prepare(A)
    damping = caught.value.sufficient_damping
    assert max(-values[1], 0) < damping < 1.06 * max(-values[1], 0) + 1e-12 * values[0]
    Direct().prepare(A.damped(damping))


def test_direct_refuses_zero():
    with pytest.raises(NotPositiveDefinite):
        Direct().prepare(Diagonal(torch.zeros(2)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Direct().prepare(Dense(torch.eye(2))), "knows its spectrum"),
        (lambda: Direct().prepare(Dense(torch.ones(2, 3))), "square"),
        (lambda: BlockDiagonal((Dense(torch.eye(2)),)).eigenvalues(), "every block"),
        (lambda: Diagonal(torch.eye(2)), "1 axis"),
        (lambda: LowRank(torch.eye(3), torch.ones(2)), r"values \[r\]"),
        (lambda: Diagonal([1.0]), "floating-point tensor with 1 axis. Got list"),
        (lambda: LowRank(torch.ones(2, 3), torch.ones(3)), "r <= p"),
        (lambda: LowRank(torch.eye(3), torch.ones(3).double()), "one dtype"),
        (lambda: KroneckerEigen(torch.eye(2), torch.eye(2), torch.ones(2, 3)), r"right \[3, 3\]"),
        (lambda: KroneckerEigen(torch.eye(3), torch.eye(3), torch.ones(2, 3)), r"left \[2, 2\]"),
        (lambda: KroneckerEigen(torch.eye(2), torch.eye(3).double(), torch.ones(2, 3)), "dtype"),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(InvalidInput, match=message):
        build()
