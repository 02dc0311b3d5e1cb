"""Figure 5, continued: one training photo against thirty test photos that look alike.

The thirty predictions that the paper attacks at once are of one dog, in many poses. There is no
such dog here; in its place stands a test photo with the 29 of its class whose features are nearest.
The model is that of f5c, as often right as the paper's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

import whence
from experiments.koh_liang_2017.attacked import Attacked, attacked, attacked_coarse
from experiments.koh_liang_2017.record import Bar, Experiment, Outcome, Request
from experiments.koh_liang_2017.resume import each

_SIDE = 28  # as in f5c
_GROUPS = 5  # sets of photos
_TRIES = 3  # photos that are changed alone, one after the other
_MOMENTUM = 0.9
_SEED = 0
_Model = partial[Attacked]


def run(request: Request) -> Outcome:
    made = (
        partial(attacked, request)
        if request.quick
        else partial(attacked_coarse, _SIDE, request.device)
    )
    model = made()
    count, groups, tries, steps = (3, 1, 1, 2) if request.quick else (30, _GROUPS, _TRIES, 180)
    keys = [f"{group} {rank}" for group in range(groups) for rank in range(tries)]
    items = each(
        "f5d",
        keys,
        partial(_attack, made, count, steps),
        settings=f"{model.shown.data.name} {len(model.objective.train)} {count} {steps}",
        workers=request.workers,
    )
    flips = np.array([item["flips"] for item in items]).reshape(groups, tries)
    best = flips.max(1)
    largest = max(item["largest"] for item in items)
    metrics: dict[str, Any] = {
        "data": model.shown.data.name,
        "test accuracy": float((model.margins > 0).mean()),
        "photos attacked together": count,
        "their class, set by set": [
            model.shown.classes[int(model.shown.data.y_test[model.alike(count, group)[0]])]
            for group in range(groups)
        ],
        "median margin, set by set": [
            float(np.median(model.margins[model.alike(count, group)])) for group in range(groups)
        ],
        "flipped by the first, second and third photo, set by set": flips.tolist(),
        "mean loss after, set by set": [item["loss"] for item in items],
        "steps at most": steps,
        "feature shift over distance to the nearest photo, median": float(
            np.median([item["shift"] for item in items])
        ),
    }
    bars = (
        Bar.at_least(
            f"flipped at once, of {count} alike, by 1 image: median of {groups} sets",
            float(np.median(best)),
            16,
        ),
        Bar.at_least("a refit from nothing flips the same", _least(items, "verified"), 1),
        Bar.at_least("the photos are the originals in 8 bits", _least(items, "same"), 1),
        Bar(
            name="largest pixel change",
            value=largest,
            bar=f"<= {1 / 255:.5f}",
            met=largest <= 1 / 255,
        ),
    )
    return Outcome(metrics=metrics, bars=bars, figure=_draw(flips, count))


def _attack(made: _Model, count: int, steps: int, key: str) -> dict[str, Any]:
    """Attack a set of photos at once by one photo of the ranking."""
    model = made()
    group, rank = map(int, key.split())
    queries = model.query(model.alike(count, group))
    ranked = whence.attacks.strongest(model.objective, queries, rank + 1)
    attack = whence.attacks.attack(
        model.objective, queries, positions=ranked[rank:], steps=steps, momentum=_MOMENTUM
    )
    return model.told(attack)


def _least(items: list[dict[str, Any]], name: str) -> float:
    """Return whether all attacks are so, 1 or 0."""
    return float(all(item[name] for item in items))


def _draw(flips: NDArray[np.intp], count: int) -> Any:
    """Draw how many predictions each photo flips, set by set."""
    figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
    groups, tries = flips.shape
    for rank in range(tries):
        places = np.arange(groups) + 0.25 * (rank - (tries - 1) / 2)
        ax.bar(places, flips[:, rank], 0.22, label=f"photo {rank + 1} of the ranking, alone")
    ax.axhline(16, color="0.6", linewidth=0.8, label="the paper's 16 of 30")
    ax.set_xticks(range(groups), [f"set {group + 1}" for group in range(groups)])
    ax.set_ylabel(f"predictions flipped, of {count}")
    ax.set_ylim(0, count)
    ax.legend(fontsize=8)
    ax.set_title("One training photo, no pixel changed by more than half a gray level", fontsize=10)
    return figure


EXPERIMENT = Experiment(
    id="f5d",
    title="One training image against thirty alike",
    paper="one image flips 16 of 30 photos of one dog",
    run=run,
    seed=_SEED,
)
