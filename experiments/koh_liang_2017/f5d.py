"""Figure 5, continued: one training photo against thirty of one subject, or of its kind.

The thirty predictions that the paper attacks at once are of one dog, in many poses. There are no
thirty photos of one dog here. In their place stand thirty views of one test photo: parts of it,
turned, some mirrored, darker or lighter. Beside them stand thirty photos of a kind: one and the 29
of its class whose features are nearest. The model is that of f5c, as often right as the paper's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import whence
from experiments import datasets
from experiments.koh_liang_2017.attacked import (
    Attacked,
    all_are,
    attacked,
    attacked_coarse,
    unseen,
)
from experiments.koh_liang_2017.photos import resized, signed, views
from experiments.koh_liang_2017.record import Bar, Experiment, Outcome, Request
from experiments.koh_liang_2017.resume import each

_SIDE = 28  # as in f5c
_SETS = 5  # of one subject, and as many of a kind
_MOMENTUM = 0.9
_SEED = 0
_Queries = tuple[Tensor, NDArray[Any]]


def run(request: Request) -> Outcome:
    model = _model(request)
    count, sets, steps = (3, 1, 2) if request.quick else (30, _SETS, 90)
    keys = [f"{what} {seed}" for what in ("subject", "kind") for seed in range(sets)]
    items = each(
        "f5d",
        keys,
        partial(_attack, request, count, steps),
        settings=f"{model.shown.data.name} {len(model.objective.train)} {count} {steps}",
        workers=request.workers,
    )
    found = {"thirty views of one photo": items[:sets], "thirty photos of a kind": items[sets:]}
    largest = max(item["largest"] for item in items)
    metrics: dict[str, Any] = {
        "data": model.shown.data.name,
        "test accuracy": float((model.margins > 0).mean()),
        "attacked together": count,
        "steps at most": steps,
    }
    for name, sets_of in found.items():
        metrics[name] = {
            key: [item[key] for item in sets_of]
            for key in ("class", "margin", "flips", "loss", "shift")
        }
    flips = {name: [item["flips"] for item in sets_of] for name, sets_of in found.items()}
    bars = (
        Bar.at_least("right before", metrics["test accuracy"], 0.97),
        Bar.at_least(
            "views of one photo flipped by 1 image, of 30, median over five photos",
            float(np.median(flips["thirty views of one photo"])),
            16,
        ),
        Bar.at_least("a refit from nothing flips the same", all_are(items, "verified"), 1),
        Bar.at_least("the photos are the originals in 8 bits", all_are(items, "same"), 1),
        unseen(largest),
    )
    return Outcome(metrics=metrics, bars=bars, figure=_draw(flips, count))


def _model(request: Request) -> Attacked:
    """The model of f5c; quick: that of the photos as they are."""
    return attacked(request) if request.quick else attacked_coarse(_SIDE, request.device)


def _attack(request: Request, count: int, steps: int, key: str) -> dict[str, Any]:
    """Attack a set at once by the one photo that moves its mean loss most."""
    model = _model(request)
    what, seed = key.split()
    if what == "kind":
        queries = model.query(model.alike(count, int(seed)))
    else:
        queries = _of_one(model, count, int(seed), quick=request.quick)
    attack = whence.attacks.attack(model.objective, queries, steps=steps, momentum=_MOMENTUM)
    label = int(queries[1][0])
    return {
        **model.told(attack),
        "class": model.shown.classes[label],
        "margin": float(np.median(_margins(model, queries))),
    }


def _of_one(model: Attacked, count: int, seed: int, *, quick: bool) -> _Queries:
    """Return views of one test photo that the model reads right."""
    (at,) = model.random(1, seed, np.empty(0, dtype=np.intp))
    data = model.shown.data if quick else datasets.dogfish()
    seen = views(data.x_test[at], 2 * count, seed)
    if not quick:
        seen = resized(resized(seen, _SIDE), seen.shape[1])
    queries = signed(seen), np.repeat(data.y_test[at], len(seen))
    where = np.flatnonzero(_margins(model, queries) > 0)[:count]
    return queries[0][where], queries[1][where]


def _margins(model: Attacked, queries: _Queries) -> NDArray[np.float64]:
    """Return how far on the right side of zero logits are, [q]."""
    logits = model.objective.outputs(model.objective.examples(queries)).flatten().numpy()
    margins: NDArray[np.float64] = (2 * queries[1] - 1) * logits
    return margins


def _draw(flips: dict[str, list[int]], count: int) -> Any:
    """Draw how many predictions one photo flips, set by set."""
    figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for place, (name, found) in enumerate(flips.items()):
        ax.bar(np.arange(len(found)) + 0.4 * place - 0.2, found, 0.36, label=name)
    ax.axhline(16, color="0.6", linewidth=0.8, label="the paper's 16 of 30, of one dog")
    ax.set_xticks(range(len(found)), [f"set {i + 1}" for i in range(len(found))])
    ax.set_ylabel(f"predictions flipped, of {count}")
    ax.set_ylim(0, count)
    ax.legend(fontsize=8)
    ax.set_title("One training photo, no pixel changed by more than half a gray level", fontsize=10)
    return figure


EXPERIMENT = Experiment(
    id="f5d",
    title="One training image against thirty views of one subject",
    paper="one image flips 16 of 30 photos of one dog",
    run=run,
    seed=_SEED,
)
