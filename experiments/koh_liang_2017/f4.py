"""Figure 4: an RBF machine and deep features agree on a fish, for different reasons."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from scipy.linalg import cholesky, solve_triangular
from scipy.stats import spearmanr
from sklearn.svm import LinearSVC

import whence
from experiments.koh_liang_2017.models import logistic
from experiments.koh_liang_2017.photos import Photos, photos, squared_distances
from experiments.koh_liang_2017.record import Bar, Experiment, Outcome, Request
from whence.applications.comparison import Comparison, compare_influence
from whence.linear.objective import LinearObjective

_L2, _T = 0.001, 0.001
_GAMMA, _SIDE = 0.05 / 1800, 299  # of the paper, whose photos have 299 pixels a side
_SHOWN = 5


def _rbf(shown: Photos, gamma: float) -> tuple[LinearObjective, np.ndarray]:
    """The paper's RBF machine, linear in the rows of K's Cholesky factor, and the test rows."""
    data = shown.data
    kernel = np.exp(-gamma * squared_distances(data.x_train, data.x_train))
    factor = cholesky(kernel, lower=True)
    between = np.exp(-gamma * squared_distances(data.x_train, data.x_test))
    test = solve_triangular(factor, between, lower=True).T
    machine = LinearSVC(
        loss="hinge",
        C=1 / (_L2 * len(kernel)),
        fit_intercept=False,
        tol=1e-8,
        max_iter=1_000_000,
    ).fit(factor, data.y_train)
    return whence.from_sklearn(machine, factor, data.y_train, temperature=_T), test


def _right(objective: LinearObjective, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which test images a binary model gets right."""
    return (_outputs(objective, x, y) > 0) == (y == 1)


def _outputs(objective: LinearObjective, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The outputs of a binary model, positive for label 1."""
    return objective.outputs(objective.examples((x, y))).numpy()[:, 0]


def _first_opposite(scores: np.ndarray, opposite: np.ndarray) -> np.ndarray:
    """For each query, the rank of its first helpful image of the other class; inf for none."""
    order = np.argsort(-scores, axis=1, kind="stable")
    helps = np.take_along_axis(scores, order, 1) > 0
    hit = np.take_along_axis(np.broadcast_to(opposite, scores.shape), order, 1) & helps
    return np.where(hit.any(1), hit.argmax(1) + 1, np.inf)


def run(request: Request) -> Outcome:
    shown = photos(request.quick)
    data, fish = shown.data, shown.classes[1]
    gamma = _GAMMA * _SIDE**2 / (data.x_train.shape[1] * data.x_train.shape[2])
    rbf, z_test = _rbf(shown, gamma)
    models = {
        name: (logistic(train, data.y_train, l2=_L2), test)
        for name, (train, test) in shown.features.items()
    }
    right = {name: _right(model, x, data.y_test) for name, (model, x) in models.items()}
    right["RBF"] = _right(rbf, z_test, data.y_test)
    both = np.logical_and.reduce(list(right.values()))
    fishes = np.flatnonzero(both & (data.y_test == 1))
    main = next(iter(models))
    network, features = models[main]
    y = data.y_test
    distances = np.sqrt(squared_distances(data.x_test[fishes], data.x_train))
    opposite = data.y_train == 0
    every = {"RBF": whence.influence(rbf, (z_test[fishes], y[fishes])).values}
    for name, (model, x) in models.items():
        every[name] = whence.influence(model, (x[fishes], y[fishes])).values
    # a fish beyond the margin has no hinge loss, and nothing influences it
    asked = np.flatnonzero(_outputs(rbf, z_test[fishes], y[fishes]) < 1)
    at = int(fishes[asked[0]])
    comparison = compare_influence(rbf, network, (z_test[at], y[at]), (features[at], y[at]))
    monotone = {
        name: np.array([spearmanr(np.abs(values[i]), distances[i]).statistic for i in asked])
        for name, values in every.items()
    }
    firsts = {name: _first_opposite(values, opposite) for name, values in every.items()}
    dogs = {
        name: float(np.median(((values > 0) & opposite).sum(1) / opposite.sum()))
        for name, values in every.items()
    }
    ranks = dict(zip(("RBF", main), comparison.first_opposite, strict=True))
    metrics: dict[str, Any] = {
        "data": data.name,
        "gamma": gamma,
        "test accuracy": {name: float(hits.mean()) for name, hits in right.items()},
        "test index": at,
        "queries: fish that all models get right": len(fishes),
        "of these, inside the margin of the RBF machine": len(asked),
        "rank of the first helpful image of the other class, this fish": ranks,
        "Spearman of absolute influence and pixel distance, this fish": {
            name: float(values[0]) for name, values in monotone.items()
        },
        "Spearman of the two models' influence, this fish": comparison.agreement,
        "Spearman of absolute influence and pixel distance, median over those": {
            name: float(np.median(values)) for name, values in monotone.items()
        },
        "rank of the first helpful image of the other class, median over the fish": {
            name: _finite(float(np.median(values))) for name, values in firsts.items()
        },
        "share of the other class that helps, median over the fish": dogs,
        "share of the fish for which one of the other class is among the 20 most helpful": {
            name: float((values <= 20).mean()) for name, values in firsts.items()
        },
    }
    bars = (
        _below("RBF: Spearman of influence and distance, this fish", float(monotone["RBF"][0]), 0),
        Bar.at_least(
            f"{main}: the same, above RBF's, median over the fish",
            float(np.median(monotone[main]) - np.median(monotone["RBF"])),
            0.1,
        ),
        _below(f"{main}: rank of the first helpful of the other class", ranks[main] or 1e9, 20),
    )
    return Outcome(
        metrics=metrics,
        bars=bars,
        figure=_draw(shown, at, fish, main, comparison, distances[asked[0]]),
    )


def _finite(value: float) -> float | None:
    """A rank, or `None` where no image of the other class helps."""
    return value if np.isfinite(value) else None


def _below(name: str, value: float, most: float) -> Bar:
    """A bar met at or below a bound."""
    return Bar(name=name, value=value, bar=f"<= {most:g}", met=bool(value <= most))


def _draw(
    shown: Photos, at: int, fish: str, main: str, comparison: Comparison, distances: np.ndarray
) -> Any:
    """Influence over distance for both models, and the images that help most under each."""
    data = shown.data
    figure = plt.figure(figsize=(11, 5.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.35))
    for row, (name, scores) in enumerate((("RBF SVM", comparison.a), (main, comparison.b))):
        ax = figure.add_subplot(grid[row, 0])
        values = scores.values[0]
        unit = "hinge loss" if row == 0 else "loss, nats"
        for label, color in ((1, "tab:green"), (0, "tab:red")):
            chosen = data.y_train == label
            name_of = shown.classes[label]
            ax.scatter(distances[chosen], values[chosen], s=5, c=color, label=name_of)
        ax.axhline(0, color="0.6", linewidth=0.8)
        ax.set_ylabel(f"change if removed\n({unit})")
        ax.set_title(f"{name}: influence on one {fish}", fontsize=10)
        ax.ticklabel_format(style="sci", scilimits=(-2, 3), axis="y")
        ax.legend(fontsize=8, title="training", title_fontsize=8)
        if row:
            ax.set_xlabel("Euclidean distance in pixels of [−1, 1]")
        pictures = figure.add_subplot(grid[row, 1])
        _strip(pictures, shown, at, scores.top(len(values)).positions[0])
    return figure


def _strip(ax: Axes, shown: Photos, at: int, order: np.ndarray) -> None:
    """The query, the most helpful images, and the first helpful one of the other class."""
    data = shown.data
    other = np.flatnonzero(data.y_train[order] != data.y_test[at])
    picks = [*range(_SHOWN), int(other[0])]
    images = [data.x_test[at], *(data.x_train[order[i]] for i in picks)]
    titles = ["query", *(f"{i + 1}: {shown.classes[data.y_train[order[i]]]}" for i in picks)]
    side = images[0].shape[1]
    gap = np.full((side, max(1, side // 20), 3), 255, dtype=np.uint8)
    strip = np.concatenate([part for image in images for part in (image, gap)], axis=1)
    ax.imshow(strip)
    for i, title in enumerate(titles):
        ax.text((i + 0.45) * (side + gap.shape[1]), -0.04 * side, title, ha="center", fontsize=8)
    ax.set_axis_off()
    ax.text(
        0,
        1.14 * side,
        f"the {_SHOWN} most helpful, and the first of the other class, with their ranks",
        fontsize=8,
    )


EXPERIMENT = Experiment(
    id="f4",
    title="Two models, one prediction, different reasons",
    paper="RBF influence falls with pixel distance; Inception's does not, and the 20th most "
    "helpful image for a fish is a dog",
    run=run,
)
