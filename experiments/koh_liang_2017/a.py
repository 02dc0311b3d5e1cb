"""The appendix: the derivative of the optimum, and influence at parameters that are no optimum."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from torch import nn

import whence
from experiments.koh_liang_2017.record import Bar, Experiment, Outcome, Request

_ALPHA, _DAMPING = 1.0, 0.2
_STEP = 1e-5  # of the central difference in ε
_SEED = 0


def run(request: Request) -> Outcome:
    x, y = load_diabetes(return_X_y=True)
    y = (y - y.mean()) / y.std()
    count = 20 if request.quick else len(y)
    fitted = Ridge(alpha=_ALPHA, fit_intercept=False).fit(x, y)
    objective = whence.from_sklearn(fitted, x, y)
    predicted = -whence.influence_on_parameters(objective, range(count)) * len(y)
    actual = np.stack([_derivative(x, y, i) for i in range(count)])
    of_optimum = _gap(predicted, actual)
    newton = whence.influence(objective, (x[:5], y[:5]), order="newton").values[:, :count]
    retrained = whence.leave_one_out(objective, range(count), (x[:5], y[:5]))
    of_removal = _gap(newton, retrained)
    of_step = _damped_newton_step(count)
    metrics: dict[str, Any] = {
        "data": "diabetes (442 x 10) under ridge regression; a tanh network that has not converged",
        "training points": count,
    }
    bars = tuple(
        Bar(name=name, value=value, bar=f"<= {most:g}", met=value <= most)
        for name, value, most in (
            ("I_up,params against the derivative of the retrained optimum", of_optimum, 1e-6),
            ("removal by a Newton step against retraining", of_removal, 1e-10),
            ("damped influence against the shifted minimum of the damped quadratic", of_step, 1e-8),
        )
    )
    return Outcome(metrics=metrics, bars=bars, figure=_draw(predicted, actual))


def _fit(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The optimum of ridge regression with example weights, in closed form."""
    return np.linalg.solve((x.T * weights) @ x + _ALPHA * np.eye(x.shape[1]), x.T @ (weights * y))


def _derivative(x: np.ndarray, y: np.ndarray, i: int) -> np.ndarray:
    """∂θ̂/∂ε when example i is weighted 1/n + ε, by a central difference of two retrainings."""
    n, up, down = len(y), np.ones(len(y)), np.ones(len(y))
    up[i] += _STEP * n
    down[i] -= _STEP * n
    return (_fit(x, y, up) - _fit(x, y, down)) / (2 * _STEP)


def _damped_newton_step(count: int) -> float:
    """Compare damped influence at θ̃ with how far a removal moves the damped quadratic's minimum.

    The quadratic at θ̃ is ∇Rᵀδ + ½ δᵀ(C + λ I)δ, with C the Gauss-Newton matrix.
    """
    torch.manual_seed(_SEED)
    x = torch.randn(60, 3, dtype=torch.float64)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    run = whence.train(
        model,
        whence.CrossEntropy(),
        (x, y),
        whence.Recipe(learning_rate=0.3, batch_size=60, epochs=150),
    )
    objective = whence.from_torch(run.model.double(), whence.CrossEntropy(), (x, y))
    count = min(count, len(y))
    changes = whence.influence_on_parameters(objective, range(count), damping=_DAMPING)
    eye = torch.eye(len(objective.params), dtype=torch.float64)
    curvature = objective.ggnvp(eye) + _DAMPING * eye
    gradients = objective.gradient_sum(
        objective.train, objective.loss, torch.eye(len(y), dtype=torch.float64)
    )
    total = gradients.mean(1, keepdim=True)
    before = torch.linalg.solve(curvature, -total)
    after = torch.linalg.solve(curvature, -(total - gradients[:, :count] / len(y)))
    return _gap(changes, (after - before).T.numpy())


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference over the largest value."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def _draw(predicted: np.ndarray, actual: np.ndarray) -> Any:
    """Every parameter's derivative in every example's weight, predicted against retrained."""
    figure, ax = plt.subplots(figsize=(4.5, 4.2), layout="constrained")
    ends = [float(actual.min()), float(actual.max())]
    ax.plot(ends, ends, color="0.6", linewidth=0.8, label="identity")
    ax.scatter(actual.ravel(), predicted.ravel(), s=4, label="parameter and training point")
    ax.set_xlabel("∂θ̂/∂ε by retraining")
    ax.set_ylabel("I_up,params")
    ax.legend(fontsize=8)
    return figure


EXPERIMENT = Experiment(
    id="a",
    title="Appendix: the two readings of influence",
    paper="derivations",
    run=run,
    seed=_SEED,
)
