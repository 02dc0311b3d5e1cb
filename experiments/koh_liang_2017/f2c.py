"""Figure 2, right: leave-one-out retraining of a convolutional network that has not converged.

A shorter protocol than the paper's 500,000 + 100 x 30,000 steps: Adam with a cosine schedule to θ̃,
then gradient descent on all points goes on from there, or on all but one. T steps of rate η move
along an eigenvector of curvature h by 1 − (1 − ηh)^T of the way to the new optimum, close to
h / (h + 1/(ηT)): the protocol itself says which damping belongs to it. (In batches, what a point
does depends on which batch it comes in, of which influence knows nothing: R was 0.86 then.)
"""

from __future__ import annotations

from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn

import whence
from experiments import datasets
from experiments.koh_liang_2017.models import pearson, slope
from experiments.koh_liang_2017.record import Bar, Experiment, Outcome, Request
from experiments.koh_liang_2017.resume import each
from whence.training.replay import retrain

_L2 = 0.001
_N, _RETRAINED = 5_500, 100
_ADAM_EPOCHS, _ADAM_BATCH = 300, 500
_STEPS, _RATE, _MOMENTUM = 15, 0.03, 0.9
_SEED = 0


def run(request: Request) -> Outcome:
    train, test, name = _data(request.quick)
    count = 4 if request.quick else _RETRAINED
    settings = f"losses, {name} {len(train[1])} {_ADAM_EPOCHS} {_STEPS} {_RATE} {_MOMENTUM}"
    start = _trained(train, 30 if request.quick else _ADAM_EPOCHS)
    recipe = whence.Recipe(
        learning_rate=_RATE,
        momentum=_MOMENTUM,
        batch_size=len(train[1]),
        epochs=_STEPS,
        weight_decay=_L2,
        seed=_SEED,
    )
    run = whence.train(start, whence.CrossEntropy(), train, recipe)
    with torch.no_grad():
        predicted_labels = start(test[0]).argmax(1)
    wrong = torch.nonzero(predicted_labels != test[1]).flatten()
    at = int(wrong[0])
    query = test[0][at : at + 1], test[1][at : at + 1]
    objective = whence.from_torch(start, whence.CrossEntropy(), train, l2=_L2)
    damping = 1 / _moved(run.steps)
    damped = whence.influence(objective, query, damping=damping)
    where = damped.largest(count).positions[0]
    exact = whence.metagradient(run, query).values[0, where]
    base = _loss(run, run.params, query)

    parts = each(
        "f2c",
        [str(i) for i in where],
        partial(_without, run, query),
        settings=settings,
        workers=request.workers,
    )
    actual = np.array([part["loss"] - base for part in parts])
    predictions = {"damped influence": damped.values[0, where], "metagradient": exact}
    found = damped.diagnostics
    assert found is not None
    metrics: dict[str, Any] = {
        "data": name,
        "parameters": len(objective.params),
        "protocol": f"Adam 1e-3 to 0 (cosine), {_ADAM_EPOCHS} epochs of batches of {_ADAM_BATCH}; "
        f"then {run.steps} steps of gradient descent on all points, rate {_RATE}, momentum "
        f"{_MOMENTUM}, the same with each point left out",
        "test accuracy": float((predicted_labels == test[1]).double().mean()),
        "test index": at,
        "gradient norm at θ̃": found.gradient_norm,
        "damping": damping,
        "solver": found.solver,
        "slopes": {key: slope(value, actual) for key, value in predictions.items()},
    }
    bars = (
        Bar.at_least("damped influence: R", pearson(predictions["damped influence"], actual), 0.9),
        Bar.at_least("metagradient: R", pearson(exact, actual), 0.99),
    )
    return Outcome(metrics=metrics, bars=bars, figure=_draw(predictions, actual))


def _without(run: whence.Run, query: tuple[Tensor, Tensor], key: str) -> dict[str, Any]:
    """Return the loss of the query after a training without one point."""
    weights = torch.ones(1, len(run.weights))
    weights[0, int(key)] = 0
    (end,) = retrain(run, weights, together=1)
    return {"loss": _loss(run, end, query)}


def network() -> nn.Module:
    """The paper's: five convolutions of 3 x 3, one of 1 x 1, tanh, a mean over space, a line."""
    channels, strides = (1, 8, 8, 8, 8, 8), (1, 2, 1, 2, 1)
    layers: list[nn.Module] = []
    for i, stride in enumerate(strides):
        layers += [nn.Conv2d(channels[i], channels[i + 1], 3, stride=stride), nn.Tanh()]
    layers += [nn.Conv2d(8, 10, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(10, 10))


def _moved(steps: int) -> float:
    """Return how far descent with momentum moves along a constant gradient of 1."""
    velocities = np.cumsum(_MOMENTUM ** np.arange(steps))
    return float(_RATE * velocities.sum())


def _trained(train: tuple[Tensor, Tensor], epochs: int) -> nn.Module:
    """Return the network at θ̃."""
    torch.manual_seed(_SEED)
    recipe = whence.Recipe(
        optimizer="adam",
        learning_rate=1e-3,
        batch_size=_ADAM_BATCH,
        epochs=epochs,
        weight_decay=_L2,
        schedule="cosine",
        seed=_SEED,
    )
    return whence.train(network(), whence.CrossEntropy(), train, recipe).model


def _data(quick: bool) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], str]:
    """Return a tenth of MNIST, or scikit-learn's digits enlarged three times."""
    data = datasets.mnist(quick=quick)
    where = np.random.default_rng(_SEED).permutation(len(data.y_train))[: 120 if quick else _N]

    def images(x: np.ndarray) -> Tensor:
        side = round(x.shape[1] ** 0.5)
        pictures = torch.tensor(x, dtype=torch.float32).reshape(-1, 1, side, side)
        return pictures if side == 28 else pictures.repeat_interleave(3, 2).repeat_interleave(3, 3)

    train = images(data.x_train[where]), torch.tensor(data.y_train[where])
    return train, (images(data.x_test), torch.tensor(data.y_test)), data.name


def _loss(run: Any, params: Tensor, query: tuple[Tensor, Tensor]) -> float:
    """Return the loss of the query."""
    with torch.no_grad():
        return float(run.program.losses(params, *query)[0])


def _draw(predictions: dict[str, np.ndarray], actual: np.ndarray) -> Any:
    """Predicted against actual, one panel per method."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained", sharey=True)
    ends = [float(actual.min()), float(actual.max())]
    for ax, (name, predicted) in zip(axes, predictions.items(), strict=True):
        ax.plot(ends, ends, color="0.6", linewidth=1, label="identity")
        label = f"R {pearson(predicted, actual):.3f}, slope {slope(predicted, actual):.3f}"
        ax.scatter(predicted, actual, s=10, label=label)
        ax.set_xlabel(f"predicted change of the loss, {name} (nats)")
        ax.legend()
    axes[0].set_ylabel("actual change after retraining (nats)")
    return figure


EXPERIMENT = Experiment(
    id="f2c",
    title="A network that has not converged",
    paper="R = 0.86",
    run=run,
    seed=_SEED,
)
