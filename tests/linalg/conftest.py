"""Matrices with a spectrum of one's choice, and the smallest stochastic operator."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from whence.linalg import Dense, LinearOperator, StochasticOperator


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Gaussian entries from a seed of their own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _symmetric(eigenvalues: Tensor, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Q diag(eigenvalues) Qᵀ with a random orthogonal Q, exactly symmetric."""
    p = len(eigenvalues)
    Q, _ = torch.linalg.qr(_random(p, p, seed=seed + 1000))
    M = (Q * eigenvalues.double()) @ Q.mT
    return ((M + M.mT) / 2).to(dtype)


class MeanOfRankOnes(StochasticOperator):
    """(1/n) XᵀX: the Hessian of least squares; a sample takes `batch` rows with replacement."""

    def __init__(self, X: Tensor, batch: int) -> None:
        self.X, self.batch = X, batch

    @property
    def shape(self) -> tuple[int, int]:
        return self.X.shape[1], self.X.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.X.dtype

    @property
    def device(self) -> torch.device:
        return self.X.device

    def matmat(self, V: Tensor) -> Tensor:
        return self.X.mT @ (self.X @ V) / len(self.X)

    def rmatmat(self, W: Tensor) -> Tensor:
        return self.matmat(W)

    def sample(self, generator: torch.Generator) -> LinearOperator:
        rows = torch.randint(len(self.X), (self.batch,), generator=generator)
        return MeanOfRankOnes(self.X[rows], self.batch)

    def batched(self, size: int) -> MeanOfRankOnes:
        return MeanOfRankOnes(self.X, size)


class Counting(LinearOperator):
    """A dense matrix that counts the columns it has been multiplied with."""

    def __init__(self, matrix: Tensor) -> None:
        self.inner, self.columns = Dense(matrix), 0

    @property
    def shape(self) -> tuple[int, int]:
        return self.inner.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.inner.dtype

    @property
    def device(self) -> torch.device:
        return self.inner.device

    def matmat(self, V: Tensor) -> Tensor:
        self.columns += V.shape[1]
        return self.inner.matmat(V)

    def rmatmat(self, W: Tensor) -> Tensor:
        return self.inner.rmatmat(W)


@pytest.fixture(scope="session")
def random() -> Callable[..., Tensor]:
    """Return `random(*shape, seed, dtype)`."""
    return _random


@pytest.fixture(scope="session")
def symmetric() -> Callable[..., Tensor]:
    """Return `symmetric(eigenvalues, seed, dtype)`."""
    return _symmetric


@pytest.fixture(scope="session")
def rank_ones() -> type[MeanOfRankOnes]:
    """Return the stochastic operator's class."""
    return MeanOfRankOnes


@pytest.fixture(scope="session")
def counting() -> type[Counting]:
    """Return the counting operator's class."""
    return Counting
