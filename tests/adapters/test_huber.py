"""HuberRegressor as the objective it minimized: its derivatives by autograd, and its refits."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import HuberRegressor
from torch.autograd.functional import hessian, jacobian

import whence
from whence.adapters.huber import ScaledHuber


def test_derivatives_of_the_loss_and_its_scale() -> None:
    loss = ScaledHuber(epsilon=1.35)
    outputs = torch.tensor([[0.5, 0.7], [3.0, 0.4], [-1.0, 2.0], [0.0, 0.3]], dtype=torch.float64)
    targets = torch.tensor([0.9, 0.0, 0.5, 0.1], dtype=torch.float64)
    tangents = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    for f, y, slope, moved, tangent in zip(
        outputs,
        targets,
        loss.gradient(outputs, targets),
        loss.hvp(outputs, targets, tangents),
        tangents,
        strict=True,
    ):

        def value(f: torch.Tensor, y: torch.Tensor = y) -> torch.Tensor:
            return loss(f[None], y[None])[0]

        torch.testing.assert_close(slope, jacobian(value, f))
        torch.testing.assert_close(moved, hessian(value, f) @ tangent)


def test_effects_are_those_of_refits() -> None:
    x, y = load_diabetes(return_X_y=True)
    x, y = x[:80, :3] * 20, y[:80]
    model = HuberRegressor(alpha=0.1, tol=1e-10, max_iter=5000).fit(x, y)
    assert 0 < model.outliers_.sum() < 40
    objective = whence.from_sklearn(model, x, y)
    found = whence.influence(
        objective, (x[:2], y[:2]), measure=lambda outputs, _: outputs[:, 0]
    ).values
    actual = []
    for i in range(10, 22):
        rest = np.delete(np.arange(80), i)
        fresh = clone(model).fit(x[rest], y[rest])
        actual.append(fresh.predict(x[:2]) - model.predict(x[:2]))
    assert np.corrcoef(found[:, 10:22].ravel(), np.ravel(np.transpose(actual)))[0, 1] > 0.99
