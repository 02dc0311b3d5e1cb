"""Linear algebra over operators: products, spectra, solvers. Knows no model."""

from whence.linalg.arnoldi import Arnoldi
from whence.linalg.cg import CG
from whence.linalg.cholesky import Cholesky
from whence.linalg.direct import Direct
from whence.linalg.eigenvalues import (
    ExtremeEigenvalues,
    SpectralDensity,
    extreme_eigenvalues,
    spectral_density,
)
from whence.linalg.lanczos import Tridiagonal, lanczos
from whence.linalg.lissa import LiSSA
from whence.linalg.nystrom import Nystrom
from whence.linalg.operator import (
    Composed,
    Damped,
    LinearOperator,
    Scaled,
    Sum,
    Transposed,
)
from whence.linalg.solver import Inverse, Solution, Solver
from whence.linalg.spectral import Diagonal, KroneckerEigen, LowRank, Spectral, eigendecompose
from whence.linalg.stochastic import StochasticOperator, sample
from whence.linalg.structured import (
    BlockDiagonal,
    Dense,
    Identity,
    OneSided,
    materialize,
)

__all__ = [
    "CG",
    "Arnoldi",
    "BlockDiagonal",
    "Cholesky",
    "Composed",
    "Damped",
    "Dense",
    "Diagonal",
    "Direct",
    "ExtremeEigenvalues",
    "Identity",
    "Inverse",
    "KroneckerEigen",
    "LiSSA",
    "LinearOperator",
    "LowRank",
    "Nystrom",
    "OneSided",
    "Scaled",
    "Solution",
    "Solver",
    "Spectral",
    "SpectralDensity",
    "StochasticOperator",
    "Sum",
    "Transposed",
    "Tridiagonal",
    "eigendecompose",
    "extreme_eigenvalues",
    "lanczos",
    "materialize",
    "sample",
    "spectral_density",
]
