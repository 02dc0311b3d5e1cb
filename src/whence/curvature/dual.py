r"""The inverse Hessian of a linear model with several outputs and few rows, by matrices of rows.

With a penalty ηₐ per output, K = Z Zᵀ [n, n] the products of the rows and S their curvature in the
outputs, Woodbury's identity inverts the Hessian of the coefficients, of [c d, c d] numbers, by

```
A⁻¹ = Λ⁻¹ − Λ⁻¹ Zᵀ Q Z Λ⁻¹,   Q = (K/η + S⁻¹)⁻¹
```

Where outputs curve alone, S = D is diagonal and Q = E below. Under softmax, with D = diag(w p)/n
and R the sum over outputs, S = D − D R (Rᵀ D R)⁻¹ Rᵀ D, so that Q takes one factor of [n, n] for
each output and one more, in place of one of [c n, c n]:

```
Q = E − E R (Σₐ Eₐ)⁻¹ Rᵀ E,   Eₐ = Dₐ½ (I + Dₐ½ K Dₐ½/ηₐ)⁻¹ Dₐ½
```

Intercepts, h = κ for every row, are eliminated by their Schur complement hᵀ Q h + η₀.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import final

import torch
from torch import Tensor

from whence.errors import InvalidInput, NotPositiveDefinite
from whence.linalg.operator import LinearOperator
from whence.linalg.solver import Inverse, Solution, default_rtol
from whence.linear.features import Features
from whence.linear.objective import LinearObjective
from whence.objective.losses import output_hessian
from whence.objective.objective import Objective

_LEAST = 500  # parameters from which another route than their own matrix is worth while
_PER_ROW = 2  # parameters for each row, more than which n x n matrices are the smaller ones
_BYTES = 2**31  # of factors that are held
_SAME = 1e-10  # relative difference of a loss's curvature from that of softmax


@singledispatch
def by_rows(objective: Objective) -> LinearObjective | None:
    """Return the objective if `dual` takes it, else `None`.

    Args:
        objective: R at θ̂.

    Returns:
        A wide objective with several outputs, softmax and a penalty for each output, or `None`.
    """
    return None


@by_rows.register
def _(objective: LinearObjective) -> LinearObjective | None:
    n, p, c = len(objective.train), len(objective.params), objective.c
    if c < 2 or p < _LEAST or p <= _PER_ROW * n or objective.free is not None:
        return None
    penalties = objective.l2[: c * (p // c - (objective.constant is not None))].reshape(c, -1)
    alike = bool((penalties == penalties[:, :1]).all()) and bool((penalties > 0).all())
    taken = alike and (c + 1) * n * n * 8 <= _BYTES and _shares(objective) is not None
    return objective if taken else None


def _shares(objective: LinearObjective) -> tuple[Tensor, bool] | None:
    """Return D of each row and output, without its weight, [n, c], and whether it is softmax's.

    `None` if outputs curve together in another way than under softmax.
    """
    outputs = objective.outputs(objective.train)
    curvature = output_hessian(objective.loss, outputs, objective.train.targets)
    own, p = curvature.diagonal(dim1=1, dim2=2), outputs.softmax(1)
    if torch.equal(curvature, torch.diag_embed(own)):
        return own, False
    curvature = curvature - torch.diag_embed(p) + p.unsqueeze(2) * p.unsqueeze(1)
    return (p, True) if float(curvature.abs().max()) <= _SAME else None


def dual(objective: LinearObjective, operator: LinearOperator, damping: float) -> DualInverse:
    """Return (H + λ I)⁻¹ of a wide model with several outputs.

    Args:
        objective: R at θ̂, from `by_rows`.
        operator: H + λ I, flat directions lifted to curvature 1.
        damping: λ.

    Raises:
        InvalidInput: If `by_rows` does not take the objective.
        NotPositiveDefinite: If outputs or weights are not finite, or no row tells an intercept.

    Cost:
        K, and c + 1 factors of n³/3 operations; as many matrices of n² numbers.

    References:
        Rasmussen & Williams (2006), section 3.5, for Q under softmax and section 2.7 for intercepts
        without a penalty.
    """
    found = _shares(objective)
    if found is None:
        raise InvalidInput("Expected outputs that curve alone, or as under softmax. Got others.")
    c, train, n = objective.c, objective.train, len(objective.train)
    there = objective.weights > 0
    rows = train.features.rows(there.nonzero().flatten().numpy())
    shares = found[0][there] * objective.weights[there].unsqueeze(1) / n
    eta = objective.l2[: -c if objective.constant is not None else None].reshape(c, -1)[:, 0]
    eta = eta + damping
    products, roots = rows.similarities(), shares.sqrt().T
    factors, total = [], torch.zeros_like(products)
    for root, penalty in zip(roots, eta, strict=True):
        matrix = products * root * (root.unsqueeze(1) / penalty)
        matrix.diagonal().add_(1)
        factor = _factor(matrix)
        factors.append(factor)
        if found[1]:
            half = torch.linalg.solve_triangular(factor, torch.diag(root), upper=False)
            total.addmm_(half.T, half)
    inverse = DualInverse(
        operator=operator,
        rows=rows,
        eta=eta,
        roots=roots,
        per_output=tuple(factors),
        coupling=_factor(total) if found[1] else None,
    )
    if objective.constant is None:
        return inverse
    return inverse.with_intercepts(
        objective.constant, objective.l2[-c:] + damping, objective.flat_directions()[-c:]
    )


def _factor(matrix: Tensor) -> Tensor:
    """Return L with A = L Lᵀ."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        raise NotPositiveDefinite(
            "Expected finite outputs, and examples that tell every intercept. Got others: every "
            "prediction is certain. Fit with a stronger penalty, or pass damping=."
        )
    return torch.as_tensor(factor)


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Intercepts:
    """What the elimination of the intercepts takes.

    Args:
        constant: κ.
        pulls: Q h, by output, row and intercept, [c, n, c].
        schur: Cholesky factor of hᵀ Q h + η₀, flat directions lifted, [c, c].
    """

    constant: float
    pulls: Tensor
    schur: Tensor


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DualInverse(Inverse):
    """(H + λ I)⁻¹ by matrices of rows; made by `dual`.

    Args:
        operator: H + λ I.
        rows: The training rows with a weight, [n, d].
        eta: The penalty of each output's coefficients, λ included, [c].
        roots: √(w p/n), [c, n].
        per_output: Cholesky factors of I + D½ K D½/η for each output, [n, n].
        coupling: Cholesky factor of Σₐ Eₐ, [n, n]; `None` where outputs curve alone.
        intercepts: What their elimination takes, or `None`.
    """

    operator: LinearOperator
    rows: Features
    eta: Tensor
    roots: Tensor
    per_output: tuple[Tensor, ...]
    coupling: Tensor | None
    intercepts: Intercepts | None = None

    def with_intercepts(self, constant: float, penalties: Tensor, flat: Tensor) -> DualInverse:
        """Return the inverse of a model with intercepts.

        Args:
            constant: κ.
            penalties: η₀ of each intercept, λ included, [c].
            flat: The intercepts' part of directions along which R is constant, [c, r].
        """
        c, n = self.roots.shape
        ones = self.roots.new_full((c, n, 1), constant)
        each = torch.stack([self._alone(a, ones[a]) for a in range(c)]).squeeze(2)  # Eₐ h
        pulls = self._coupled(torch.diag_embed(each.T).transpose(0, 1))
        schur = constant * pulls.sum(1) + torch.diag(penalties) + flat @ flat.T
        found = Intercepts(constant=constant, pulls=pulls, schur=_factor((schur + schur.T) / 2))
        return replace(self, intercepts=found)

    def matmat(self, V: Tensor) -> Tensor:
        """Return (H + λ I)⁻¹ V."""
        (c, n), k, own = self.roots.shape, V.shape[1], self.intercepts
        coef = (V if own is None else V[:-c]).reshape(c, -1, k) / self.eta.reshape(c, 1, 1)
        seen = self.rows.matmul(coef.transpose(0, 1).reshape(-1, c * k)).reshape(n, c, k)
        pulled = self._coupled(torch.stack([self._alone(a, seen[:, a]) for a in range(c)]))
        if own is None:
            return self._coefficients(coef, pulled)
        moved = torch.cholesky_solve(V[-c:] - own.constant * pulled.sum(1), own.schur)
        return torch.cat([self._coefficients(coef, pulled + own.pulls @ moved), moved])

    def solve_columns(self, B: Tensor) -> Solution:
        """Return the solution with its residual."""
        return Solution.checked(
            self.operator, B, self.matmat(B), rtol=default_rtol(B.dtype), iterations=0
        )

    def of_rows(self, rows: Features) -> Tensor:
        """Return J (H + λ I)⁻¹ Jᵀ of some rows, none of whose gradients is formed.

        Args:
            rows: The m rows, [m, d].

        Returns:
            The matrices, [m, c, c].

        Cost:
            3 c n² operations for each row.
        """
        c, own, coupling = len(self.roots), self.intercepts, self.coupling
        dense = rows.dense()
        products = self.rows.matmul(dense.T)  # [n, m]
        squares, pulled = [], []
        for root, factor, penalty in zip(self.roots, self.per_output, self.eta, strict=True):
            half = root.unsqueeze(1) * products / penalty
            half = torch.linalg.solve_triangular(factor, half, upper=False)
            squares.append(dense.square().sum(1) / penalty - half.square().sum(0))
            whole = torch.linalg.solve_triangular(factor.T, half, upper=True)
            pulled.append(root.unsqueeze(1) * whole)  # Eₐ k/ηₐ
        forms = torch.diag_embed(torch.stack(squares, 1))
        # 1ᵀ (δ − Q k) by intercept and output: what a row pulls beyond what the others hold.
        moved = torch.diag_embed(1 - torch.stack([each.sum(0) for each in pulled], 1))
        if coupling is not None:
            ones = self.roots.new_ones(self.roots.shape[1], 1)
            heads = torch.cat([self._alone(a, ones) for a in range(c)], 1)
            heads = torch.linalg.solve_triangular(coupling, heads, upper=False)
            halves = torch.stack(
                [torch.linalg.solve_triangular(coupling, each, upper=False) for each in pulled]
            )
            forms = forms + torch.einsum("anm,bnm->mab", halves, halves)
            moved = moved + torch.einsum("nb,anm->mba", heads, halves)
        if own is None:
            return forms
        half = torch.linalg.solve_triangular(own.schur, own.constant * moved, upper=False)
        return torch.baddbmm(forms, half.mT, half)

    def _alone(self, output: int, rows: Tensor) -> Tensor:
        """Return Eₐ W for W [n, k]."""
        root = self.roots[output].unsqueeze(1)
        return root * torch.cholesky_solve(root * rows, self.per_output[output])

    def _coupled(self, each: Tensor) -> Tensor:
        """Return Q W from Eₐ Wₐ, [c, n, k]."""
        if self.coupling is None:
            return each
        shared = torch.cholesky_solve(each.sum(0), self.coupling)
        return each - torch.stack([self._alone(a, shared) for a in range(len(each))])

    def _coefficients(self, coef: Tensor, pulled: Tensor) -> Tensor:
        """Return Λ⁻¹ (V − Zᵀ pulled), for Λ⁻¹ V [c, d, k] and pulled [c, n, k], as [c d, k]."""
        c, n, k = pulled.shape
        inside = self.rows.rmatmul(pulled.transpose(0, 1).reshape(n, c * k)).reshape(-1, c, k)
        return (coef - inside.transpose(0, 1) / self.eta.reshape(c, 1, 1)).reshape(-1, k)
