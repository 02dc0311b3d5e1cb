"""Figure 2, left: predicted against actual leave-one-out changes of a convex model."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

import whence
from experiments.datasets import mnist
from experiments.koh_liang_2017.models import logistic, pearson, slope
from experiments.koh_liang_2017.record import Bar, Experiment, Outcome, Request
from whence.linear.objective import LinearObjective

_TEST, _L2, _RETRAINED = 8, 0.01, 500


def run(request: Request) -> Outcome:
    data = mnist(quick=request.quick)
    objective = logistic(data.x_train, data.y_train, l2=_L2)
    predicted_labels = objective.outputs(objective.examples((data.x_test, data.y_test))).argmax(1)
    wrong = np.flatnonzero(predicted_labels.numpy() != data.y_test)
    at = _TEST if _TEST in wrong else int(wrong[0])
    query = data.x_test[at], data.y_test[at]
    first = whence.influence(objective, query)
    where = first.largest(50 if request.quick else _RETRAINED).positions[0]
    newton = whence.influence(objective, query, order="newton", indices=where).values[0]
    actual = whence.leave_one_out(objective, where, query)[0]
    linear = first.values[0, where]
    theirs = _with_the_mean_over_the_rest(objective, where, query)
    metrics = {
        "data": data.name,
        "test index": at,
        "retrained": len(where),
        "first: R": pearson(linear, actual),
        "first: slope": slope(linear, actual),
        "newton: R": pearson(newton, actual),
        "newton: slope": slope(newton, actual),
        "first against the mean over n - 1: R": pearson(linear, theirs),
        "first against the mean over n - 1: slope": slope(linear, theirs),
        "the mean over n - 1 less weight zero, median (nats)": float(np.median(theirs - actual)),
        "its spread": float(np.std(theirs - actual)),
    }
    bars = (
        Bar.at_least("first: R", metrics["first: R"], 0.9999),
        Bar.near("first: slope", metrics["first: slope"], 1, 0.01),
        Bar.near("newton: slope", metrics["newton: slope"], 1, 0.001),
    )
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained", sharey=True)
    for ax, name, predicted in ((axes[0], "first order", linear), (axes[1], "newton", newton)):
        ends = [actual.min(), actual.max()]
        ax.plot(ends, ends, color="0.6", linewidth=1, label="identity")
        r, s = pearson(predicted, actual), slope(predicted, actual)
        ax.scatter(predicted, actual, s=8, label=f"R {r:.5f}, slope {s:.4f}")
        ax.set_xlabel(f"predicted change of the loss, {name} (nats)")
        ax.legend()
    axes[0].set_ylabel("actual change after retraining (nats)")
    return Outcome(metrics=metrics, bars=bars, figure=figure)


def _with_the_mean_over_the_rest(
    objective: LinearObjective, where: np.ndarray, query: tuple[np.ndarray, int]
) -> np.ndarray:
    """Return the changes when the mean is taken over n - 1, as the paper's scripts refit."""
    n = len(objective.train)
    lighter = objective.reweighted(objective.weights * n / (n - 1)).refit()
    asked = objective.examples(query)
    shift = [
        float(model.loss(model.outputs(asked), asked.targets)[0]) for model in (lighter, objective)
    ]
    return whence.leave_one_out(lighter, where, query)[0] + shift[0] - shift[1]


EXPERIMENT = Experiment(
    id="f2a",
    title="Leave-one-out retraining of a linear model",
    paper="near the identity line",
    run=run,
)
