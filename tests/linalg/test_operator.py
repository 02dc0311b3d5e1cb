"""Operators combine as the matrices they stand for."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whence.errors import InvalidInput, WhenceError
from whence.linalg import (
    BlockDiagonal,
    Composed,
    Dense,
    Identity,
    LinearOperator,
    Scaled,
    Sum,
    Transposed,
    materialize,
)
from whence.linalg.structured import OneSided

LAWS = settings(max_examples=25, deadline=None)
CASES = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 4), st.integers(0, 999))


def pairs(random, m, p, seed):
    """Every kind of combination beside its dense twin."""
    M, N, S = random(m, p, seed=seed), random(m, p, seed=seed + 1), random(p, p, seed=seed + 2)
    A, B, C = Dense(M), Dense(N), Dense(S)
    eye = torch.eye(p, dtype=torch.float64)
    return [
        (A + B, M + N),
        (A - B, M - N),
        (2.5 * A, 2.5 * M),
        (A * 2, 2 * M),
        (A.T, M.mT),
        (A.T.T, M),
        (A @ C, M @ S),
        (A.T @ B, M.mT @ N),
        (C.damped(0.5), S + 0.5 * eye),
        ((C.T + 3.0 * C).damped(0.25) @ C.T, (S.mT + 3 * S + 0.25 * eye) @ S.mT),
        (Identity(p), eye),
        (OneSided(S, (p, 2), left=True), torch.kron(S, torch.eye(2).double())),
        (OneSided(S, (2, p), left=False), torch.kron(torch.eye(2).double(), S)),
        (
            BlockDiagonal((C, Identity(2), 2.0 * C.T)),
            torch.block_diag(S, eye.new_ones(2).diag(), 2 * S.mT),
        ),
        (BlockDiagonal((C,)), S),
    ]


@LAWS
@given(CASES)
def test_combinations_equal_dense_twins(random, case):
    m, p, k, seed = case
    for A, M in pairs(random, m, p, seed):
        assert (A.shape, A.dtype, A.device) == (tuple(M.shape), M.dtype, M.device)
        V, W = random(M.shape[1], k, seed=seed + 3), random(M.shape[0], k, seed=seed + 4)
        torch.testing.assert_close(A @ V, M @ V, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(A.T @ W, M.mT @ W, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(materialize(A, block=2), M, rtol=1e-12, atol=1e-12)


@LAWS
@given(CASES)
def test_adjoint_identity(random, case):
    m, p, _, seed = case
    for A, M in pairs(random, m, p, seed):
        x, y = random(M.shape[1], seed=seed + 5), random(M.shape[0], seed=seed + 6)
        assert float((A @ x) @ y) == pytest.approx(float(x @ (A.T @ y)), rel=1e-11, abs=1e-11)


def test_vector_and_block_agree(random):
    A = Dense(random(4, 3))
    v = random(3, seed=1)
    assert (A @ v).shape == (4,)
    torch.testing.assert_close(A @ v, (A @ v[:, None])[:, 0], rtol=0, atol=0)


def test_transpose_undoes_itself(random):
    A = Dense(random(4, 3))
    assert A.T.T is A


def test_damping_is_remembered(random):
    A = Dense(random(3, 3))
    assert A.damped(0.0) is A
    assert A.undamped() == (A, 0.0)
    base, damping = A.damped(0.5).damped(0.25).undamped()
    assert base is A
    assert damping == 0.75


def test_products_do_not_alias_their_input():
    v = torch.ones(2, dtype=torch.float64)
    product = Identity(2) @ v
    product[0] = 5
    assert v[0] == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.ones(4, dtype=torch.float64), r"shape \[3\] or \[3, k\].*Got \[4\]"),
        (torch.ones(3, 1, 1, dtype=torch.float64), r"Got \[3, 1, 1\]"),
        (torch.tensor(1.0, dtype=torch.float64), r"Got \[\]"),
        (torch.ones(3), r"Expected torch.float64.*Got torch.float32.*Cast"),
        (torch.ones(3, dtype=torch.float64, device="meta"), r"on cpu.*Got meta.*Move"),
        ([1.0, 2.0, 3.0], r"Expected a torch.Tensor.*Got list"),
    ],
)
def test_bad_right_hand_sides(wrong, message):
    with pytest.raises(InvalidInput, match=message):
        Identity(3) @ wrong


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda A: A.damped(0.1), "square operator to damp"),
        (lambda A: Dense(torch.eye(3)).damped(-0.1), r"0 <= λ < inf. Got -0.1"),
        (lambda A: Dense(torch.eye(3)).damped(math.inf), "Got inf"),
        (lambda A: A + A.T, "one shape"),
        (lambda A: A + Dense(torch.ones(4, 3)), "one dtype"),
        (lambda A: A + 1.0, "Got float"),
        (lambda A: A @ A, "as many columns"),
        (lambda A: A * math.nan, "finite number"),
        (lambda A: A * torch.ones(3), "finite number"),
        (lambda A: BlockDiagonal(()), "at least one block"),
        (lambda A: BlockDiagonal((A,)), "square blocks.*index 0"),
        (lambda A: BlockDiagonal((Identity(2), Dense(torch.eye(2)))), "index 1"),
        (lambda A: Dense(torch.ones(3)), r"2 axes. Got \[3\]"),
        (lambda A: Dense(torch.ones(3, 3, dtype=torch.int64)), "Got .*int64"),
    ],
)
def test_bad_combinations(random, build, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        build(Dense(random(4, 3)))
    assert isinstance(caught.value, (WhenceError, ValueError))


def test_every_class_is_abstract_or_a_leaf():
    leaves = [Transposed, Sum, Scaled, Composed]
    assert all(getattr(leaf, "__final__", False) for leaf in leaves)
    with pytest.raises(TypeError, match="abstract"):
        LinearOperator()


def test_repr_is_one_line(random):
    assert repr(2.0 * Dense(random(4, 3))) == "Scaled([4, 3], torch.float64, cpu)"
