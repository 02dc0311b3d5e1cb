"""Figure 5, continued: how sure may a prediction be for one changed photo to flip it?

The networks have seen these dogs and fish, and a model on their features is right on all photos,
with margins near 10 and few examples near the border. So the photos are shrunk to 28 pixels a side
and enlarged again: the model is right on fewer of them, as the paper's was, and changes give more.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

import whence
from experiments.koh_liang_2017.attacked import (
    Attacked,
    all_are,
    attacked,
    attacked_coarse,
    unseen,
)
from experiments.koh_liang_2017.record import Bar, Experiment, Outcome, Request
from experiments.koh_liang_2017.resume import each

_SIDE, _RIGHT = 28, 0.97
_COUNTS, _SHARES = (1, 2, 10), (0.57, 0.77)
_MOMENTUM = 0.9
_TRIES = 3  # photos that are changed alone, one after the other, until one flips the query
_SEED = 0
_Model = partial[Attacked]


def run(request: Request) -> Outcome:
    made = (
        partial(attacked, request)
        if request.quick
        else partial(attacked_coarse, _SIDE, request.device)
    )
    model = made()
    count, together, steps = (2, 3, 2) if request.quick else (47, 30, 60)
    none = np.empty(0, dtype=np.intp)
    settings = f"{model.shown.data.name} {len(model.objective.train)} {steps}"
    singles = each(
        "f5c",
        [str(at) for at in model.random(60, _SEED, none)[:count]],  # as many as time allowed
        partial(_alone, made, steps),
        settings=settings,
        workers=request.workers,
    )
    (many,) = each(
        "f5c-together",
        ["both classes"],
        partial(_together, made, model.random(together, _SEED + 1, none), 3 * steps),
        settings=settings,
        workers=request.workers,
    )
    margins = np.array([item["margin"] for item in singles])
    fewest = np.array([item["fewest"] for item in singles])
    shares = {count: float((fewest <= count).mean()) for count in _COUNTS}
    attacks = [attack for item in singles for attack in item["attacks"]] + [many]
    largest = max(attack["largest"] for attack in attacks)
    accuracy = float((model.margins > 0).mean())
    metrics: dict[str, Any] = {
        "data": model.shown.data.name,
        "test accuracy": accuracy,
        "test images attacked": len(singles),
        "logit margin of these, quartiles": np.percentile(margins, (25, 50, 75)).tolist(),
        "share flipped by 1, 2, 10 images": {str(m): shares[m] for m in _COUNTS},
        "margin up to which 57 %, 77 % are flipped": {
            str(m): [_margin(margins, fewest <= m, share) for share in _SHARES] for m in _COUNTS
        },
        "largest margin flipped": {
            str(m): float(margins[fewest <= m].max(initial=0)) for m in _COUNTS
        },
        "photos attacked together": together,
        "of these flipped by one image": many["flips"],
        "mean loss of these after": many["loss"],
        "steps at most": [steps, 3 * steps],
        "largest pixel change, [-1, 1]": largest,
        "feature shift over distance to the nearest photo, median": float(
            np.median([attack["shift"] for attack in attacks])
        ),
    }
    bars = (
        Bar.at_least("right before", accuracy, _RIGHT),
        Bar.at_least("flipped by 1 image", shares[1], _SHARES[0]),
        Bar.at_least("flipped by 2 images", shares[2], _SHARES[1]),
        Bar.at_least("flipped at once, of 30, by 1 image", many["flips"], 16),
        Bar.at_least("a refit from nothing flips the same", all_are(attacks, "verified"), 1),
        Bar.at_least("the photos are the originals in 8 bits", all_are(attacks, "same"), 1),
        unseen(largest),
    )
    return Outcome(metrics=metrics, bars=bars, figure=_draw(model, margins, fewest))


def _alone(made: _Model, steps: int, key: str) -> dict[str, Any]:
    """Attack one query by one, two and ten photos; stop where so few flip it."""
    model, at = made(), int(key)
    query = model.query(at)
    ranked = whence.attacks.strongest(model.objective, query, max(_COUNTS))
    chosen = [*(ranked[i : i + 1] for i in range(_TRIES)), *(ranked[:m] for m in _COUNTS[1:])]
    attacks = []
    fewest = float("inf")
    for positions in chosen:
        attack = whence.attacks.attack(
            model.objective, query, positions=positions, steps=steps, momentum=_MOMENTUM
        )
        attacks.append(model.told(attack))
        if attack.flipped.all():
            fewest = len(positions)
            break
    return {"query": at, "margin": float(model.margins[at]), "fewest": fewest, "attacks": attacks}


def _together(made: _Model, where: NDArray[np.intp], steps: int, key: str) -> dict[str, Any]:
    """Attack queries of one group at once by the photo that moves their mean loss most."""
    model = made()
    attack = whence.attacks.attack(
        model.objective, model.query(where), steps=steps, momentum=_MOMENTUM
    )
    return model.told(attack)


def _margin(margins: NDArray[np.float64], flipped: NDArray[np.bool_], share: float) -> float:
    """Return the largest margin of a query up to which so large a share is flipped, 0 for none."""
    order = np.argsort(margins, kind="stable")
    shares = np.cumsum(flipped[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(shares >= share)
    return float(margins[order][enough[-1]]) if len(enough) else 0.0


def _draw(model: Attacked, margins: NDArray[np.float64], fewest: NDArray[np.float64]) -> Any:
    """Draw the share of queries flipped up to each margin."""
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    order = np.argsort(margins)
    for count in _COUNTS:
        shares = np.cumsum(fewest[order] <= count) / np.arange(1, len(order) + 1)
        label = f"by {count} photo{'s' * (count > 1)}: {100 * shares[-1]:.0f} % of all"
        ax.step(margins[order], 100 * shares, where="post", label=label)
    for share in _SHARES:
        ax.axhline(100 * share, color="0.8", linewidth=0.8)
    ax.set_xlabel("logit margin of the attacked photos")
    ax.set_ylabel("flipped up to this margin (%)")
    ax.legend(fontsize=8)
    ax.set_title(f"No pixel changed by more than half a gray level ({model.shown.data.name})")
    ax.title.set_fontsize(8)
    return figure


EXPERIMENT = Experiment(
    id="f5c",
    title="At which margin one training image flips a prediction",
    paper="1 image flips 57 %, 2 flip 77 %, 16 of 30 at once",
    run=run,
    seed=_SEED,
)
