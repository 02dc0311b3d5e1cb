r"""`PowerTransformer`: exponents of largest likelihood, as functions of which rows are there.

The exponent λ of a column makes ∂L/∂λ = 0, so that it moves by −(∂²L/∂λ²)⁻¹ ∂(∂L/∂λ): written here
as one Newton step, zero in value at the fitted exponent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.preprocessing import PowerTransformer
from torch import Tensor

from whence.preprocessing.columns import Columns
from whence.preprocessing.dense import DenseColumns
from whence.preprocessing.step import Leaf

_FLAT = 1e-8  # distance of an exponent from 0 or 2 below which the logarithm stands in


@dataclass(frozen=True, eq=False)
class Powered(Leaf):
    """`PowerTransformer`.

    Args:
        transformer: Fitted.
    """

    transformer: PowerTransformer

    def statistics(self, x: Columns, kept: Tensor) -> tuple[Tensor, ...]:
        """Return exponents, and means and deviations of the transformed columns."""
        cells = x.cells()
        fitted = torch.from_numpy(np.asarray(self.transformer.lambdas_, dtype=np.float64))
        with torch.enable_grad():
            exponents = fitted.clone().requires_grad_()
            likelihood = self._likelihood(cells, exponents, kept)
            (slope,) = torch.autograd.grad(likelihood.sum(), exponents, create_graph=True)
            (curvature,) = torch.autograd.grad(slope.sum(), exponents, retain_graph=True)
        curvature = torch.where(curvature < 0, curvature, torch.full_like(curvature, -torch.inf))
        moved = fitted - (slope - slope.detach()) / curvature.detach()
        mean, variance = self._power(cells, moved).moments(kept)
        varies = variance.detach() > 10 * torch.finfo(variance.dtype).eps
        return moved, mean, torch.where(varies, variance, torch.ones_like(variance)).sqrt()

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return ψ(x, λ), standardized."""
        exponents, mean, scale = statistics
        powered = self._power(x.cells(), exponents)
        return powered.shifted(mean, scale) if self.transformer.standardize else powered

    def _power(self, x: Tensor, exponents: Tensor) -> DenseColumns:
        """Return ψ(x, λ), missing cells as they are."""
        missing = torch.isnan(x)
        numbers = torch.where(missing, torch.ones_like(x), x)
        if self.transformer.method == "box-cox":
            powered = _box_cox(numbers, exponents)
        else:
            positive = numbers >= 0
            up = _box_cox(torch.where(positive, numbers, torch.zeros_like(x)) + 1, exponents)
            down = torch.where(positive, torch.zeros_like(x), -numbers) + 1
            powered = torch.where(positive, up, -_box_cox(down, 2 - exponents))
        return DenseColumns(torch.where(missing, x.detach(), powered))

    def _likelihood(self, x: Tensor, exponents: Tensor, kept: Tensor) -> Tensor:
        """Return the log-likelihood of each column, [d]."""
        there = ~torch.isnan(x)
        numbers = torch.where(there, x, torch.zeros_like(x))
        n = kept @ there.to(x.dtype)
        _, variance = self._power(x, exponents).moments(kept)
        if self.transformer.method == "box-cox":
            logs = torch.log(torch.where(there, x, torch.ones_like(x)))
        else:
            logs = numbers.sign() * torch.log1p(numbers.abs())
        return -n / 2 * variance.log() + (exponents - 1) * (kept @ logs)


def _box_cox(x: Tensor, exponents: Tensor) -> Tensor:
    """Return (x^λ − 1)/λ, or log x at λ = 0, for x > 0."""
    flat = exponents.abs() < _FLAT
    safe = torch.where(flat, torch.ones_like(exponents), exponents)
    logs = x.log()
    return torch.where(flat, logs + exponents * logs.square() / 2, torch.expm1(safe * logs) / safe)
