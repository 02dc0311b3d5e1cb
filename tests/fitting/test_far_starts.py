"""Minima from starts whose first Newton step is far too long, against scikit-learn's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import PoissonRegressor

import whence
from whence.curvature.minimum import gradient
from whence.fitting.l1 import fit_l1
from whence.fitting.newton import newton, newton_steps
from whence.linalg.structured import Identity
from whence.linear.objective import LinearObjective

_RNG = np.random.default_rng(0)
_X = _RNG.normal(size=(60, 4))
_Y = _RNG.poisson(np.exp(0.5 * _X[:, 0] + 1)).astype(float)
_MODEL = PoissonRegressor(alpha=0.1, tol=1e-12, solver="newton-cholesky").fit(_X, _Y)
_MINIMUM = np.append(_MODEL.coef_, _MODEL.intercept_)


def start(intercept: float) -> LinearObjective:
    """The fit with other parameters: a Newton step there is about e^-intercept too long."""
    objective = whence.from_sklearn(_MODEL, _X, _Y)
    assert isinstance(objective, LinearObjective)
    return objective.at(torch.tensor([0.0, 0.0, 0.0, 0.0, intercept], dtype=torch.float64))


@pytest.mark.parametrize("intercept", [-12.0, -5.0, 4.0])
def test_newton_arrives(intercept: float) -> None:
    np.testing.assert_allclose(newton(start(intercept)).params, _MINIMUM, rtol=0, atol=1e-7)


@pytest.mark.parametrize("intercept", [-12.0, -5.0, 4.0])
def test_newton_with_an_l1_penalty_arrives(intercept: float) -> None:
    penalty = 0.2 * torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    found = fit_l1(start(intercept), penalty).params.numpy()
    coef = found[:4]
    errors = np.exp(_X @ coef + found[4]) - _Y
    slope = _X.T @ errors / 60 + 0.1 * coef
    used = coef != 0
    assert 0 < used.sum() < 4
    np.testing.assert_allclose(slope[used], -0.2 * np.sign(coef[used]), rtol=0, atol=1e-9)
    assert (np.abs(slope[~used]) < 0.2).all()
    assert abs(errors.mean()) < 1e-9


@pytest.mark.parametrize("constant", [1e-6, 1e6])  # the column whose weight is the intercept
@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_an_intercept_alone_is_fitted_in_any_unit(constant: float, unit: float) -> None:
    """No coefficient pays its penalty, so that exp(b) is the mean of y."""
    there = start(4.0 / constant)
    there = replace(there, constant=constant, weights=unit * there.weights)
    found = fit_l1(there, unit * torch.tensor([1e3, 1e3, 1e3, 1e3, 0.0]).double()).params
    assert not found[:4].any()
    assert constant * float(found[4]) == pytest.approx(np.log(_Y.mean()), rel=1e-9)


def test_each_of_a_few_steps_is_taken() -> None:
    """At the rate of Newton's method, until there is nothing to gain."""
    there, off = start(1.5), []
    for steps in (1, 2, 3, 8):
        moved = newton_steps(there, steps, Identity(5, dtype=torch.float64))
        off.append(float(np.abs(moved.params.numpy() - _MINIMUM).max()))
    assert off[1] < 0.3 * off[0]
    assert off[2] < 0.1 * off[1]
    assert off[3] < 1e-7
    assert float(gradient(moved).norm()) < 1e-7
