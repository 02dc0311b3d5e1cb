"""Figure 1: what each factor of the influence does, on MNIST 1 against 7."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

import whence
from experiments.datasets import mnist_pair
from experiments.koh_liang_2017.models import logistic, pearson
from experiments.koh_liang_2017.record import Bar, Experiment, Outcome, Request

_TEST, _L2, _RETRAINED = 30, 0.01, 500


def run(request: Request) -> Outcome:
    data = mnist_pair(quick=request.quick)
    objective = logistic(data.x_train, data.y_train, l2=_L2)
    at = _TEST if not request.quick else int(np.flatnonzero(data.y_test == 0)[0])
    query = data.x_test[at], data.y_test[at]
    full = whence.influence(objective, query).values[0]
    sign = np.where(data.y_train == data.y_test[at], 1.0, -1.0)
    losses = objective.loss(objective.outputs(objective.train), objective.train.targets).numpy()
    pull = -np.expm1(-losses)  # σ(−y θᵀx), the factor of the training loss
    inner = data.x_train @ query[0]
    variants = {
        "without the training loss": full / pull,
        "without H": sign * pull * inner,
        "without both": sign * inner,
    }
    where = np.argsort(-np.abs(full))[: min(_RETRAINED, len(full))]
    actual = whence.leave_one_out(objective, where, query)[0]
    same = sign > 0
    harmful = int((full[same] < 0).sum())
    harmful_without = int((variants["without H"][same] < 0).sum())
    metrics = {
        "data": data.name,
        "same-label training points that harm": harmful,
        "the same without H": harmful_without,
        "Pearson with the actual change, full": pearson(full[where], actual),
        **{
            f"Pearson with the full influence, {name}": pearson(values, full)
            for name, values in variants.items()
        },
        **{
            f"Pearson with the actual change, {name}": pearson(values[where], actual)
            for name, values in variants.items()
        },
    }
    bars = (
        Bar.at_least("same-label points that harm", harmful, 1),
        Bar.near("the same without H", harmful_without, 0, 0),
        Bar.at_least("R of the full influence with retraining", pearson(full[where], actual), 0.99),
    )
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.8), layout="constrained")
    for ax, (name, values) in zip(axes, variants.items(), strict=False):
        for chosen, color, label in (
            (same, "tab:green", "same label"),
            (~same, "tab:red", "other"),
        ):
            ax.scatter(
                values[chosen] / np.abs(values).max(), full[chosen], s=4, c=color, label=label
            )
        ax.axhline(0, color="0.7", linewidth=0.8)
        ax.axvline(0, color="0.7", linewidth=0.8)
        ax.set_xlabel(f"{name} (relative)")
    axes[0].set_ylabel("influence: change of the loss\nif removed (nats)")
    axes[0].legend()
    worst = int(np.flatnonzero(same)[np.argmin(full[same])])
    side = int(data.x_train.shape[1] ** 0.5)
    axes[3].imshow(data.x_train[worst].reshape(side, side), cmap="gray_r")
    axes[3].set_title(f"the most harmful training point\nof the same label (row {worst})")
    axes[3].axis("off")
    return Outcome(metrics=metrics, bars=bars, figure=figure)


EXPERIMENT = Experiment(
    id="f1",
    title="Components of influence",
    paper="without H every same-label point looks helpful; with it some are harmful",
    run=run,
)
