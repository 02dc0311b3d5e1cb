"""Figure 2, middle: the same predictions by the paper's stochastic recursion."""

from __future__ import annotations

import warnings

import matplotlib.pyplot as plt

import whence
from experiments.datasets import mnist
from experiments.koh_liang_2017.models import logistic, pearson, slope
from experiments.koh_liang_2017.record import Bar, Experiment, Outcome, Request
from whence.errors import NotConvergedWarning
from whence.linalg import LiSSA

_TEST, _L2, _RETRAINED = 8, 0.01, 500


def run(request: Request) -> Outcome:
    data = mnist(quick=request.quick)
    objective = logistic(data.x_train, data.y_train, l2=_L2)
    at = _TEST if not request.quick else 0
    query = data.x_test[at], data.y_test[at]
    exact = whence.influence(objective, query)
    where = exact.largest(50 if request.quick else _RETRAINED).positions[0]
    # The settings of the authors' script: depth 5,000, batch 1, scale 25, 10 repeats, no damping.
    solver = LiSSA(
        depth=1000 if request.quick else 5000, repeats=2 if request.quick else 10, scale=25.0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)  # its noise is what is measured
        sampled = whence.influence(objective, query, solver=solver)
    predicted = sampled.values[0, where]
    actual = whence.leave_one_out(objective, where, query)[0]
    assert sampled.diagnostics is not None
    metrics = {
        "data": data.name,
        "test index": at,
        "R with retraining": pearson(predicted, actual),
        "slope": slope(predicted, actual),
        "R with the exact influence, all points": pearson(sampled.values[0], exact.values[0]),
        "relative residual of the solve": sampled.diagnostics.residual,
    }
    bars = (Bar.at_least("R", metrics["R with retraining"], 0.99),)
    figure, ax = plt.subplots(figsize=(5, 4.6), layout="constrained")
    ends = [actual.min(), actual.max()]
    ax.plot(ends, ends, color="0.6", linewidth=1, label="identity")
    label = f"LiSSA: R {metrics['R with retraining']:.4f}, slope {metrics['slope']:.3f}"
    ax.scatter(predicted, actual, s=8, label=label)
    ax.set_xlabel("predicted change of the loss, LiSSA (nats)")
    ax.set_ylabel("actual change after retraining (nats)")
    ax.legend()
    return Outcome(metrics=metrics, bars=bars, figure=figure)


EXPERIMENT = Experiment(
    id="f2b",
    title="The same by stochastic estimation",
    paper="near the identity line",
    run=run,
)
