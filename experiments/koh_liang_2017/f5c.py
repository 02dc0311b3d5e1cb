"""Figure 5, continued: how sure may a prediction be for one changed photo to flip it?"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import whence
from experiments.koh_liang_2017.attacked import Attacked, attacked
from experiments.koh_liang_2017.record import Bar, Experiment, Outcome
from experiments.koh_liang_2017.resume import each

_NETWORK = "SqueezeNet 1.1"
_STEPS = 16
_COUNTS = (1, 2)
_SEED = 0


def run(quick: bool) -> Outcome:
    model = attacked(quick, "MobileNetV2" if quick else _NETWORK)
    count, steps = (3, 4) if quick else (20, _STEPS)
    queries = model.random(count, _SEED, np.empty(0, dtype=np.intp))
    together = model.random(3 if quick else 30, _SEED + 1, np.empty(0, dtype=np.intp))
    settings = f"{model.shown.data.name} {_NETWORK} {len(model.objective.train)} {steps}"
    tries = each(
        "f5c",
        [str(at) for at in queries],
        lambda key: _attacks(model, np.array([int(key)]), _COUNTS, steps),
        settings=settings,
    )
    (many,) = each(
        "f5c-together",
        ["all"],
        lambda _: _attacks(model, together, (1,), 2 * steps)["1"],
        settings=f"{settings} {len(together)}",
    )
    ones = [item["1"] for item in tries]
    left = {m: np.array([item[str(m)]["left"] for item in tries]) for m in _COUNTS}
    flipped = {m: np.array([item[str(m)]["flipped"] for item in tries]) for m in _COUNTS}
    before = np.array([item["before"] for item in ones])
    flips = [item[str(m)] for item in tries for m in _COUNTS if item[str(m)]["flipped"]]
    accuracy = float((model.margins > 0).mean())
    metrics: dict[str, Any] = {
        "data": model.shown.data.name,
        "network": _NETWORK,
        "test accuracy": accuracy,
        "logit margin, quartiles over the test images": np.percentile(
            model.margins, (25, 50, 75)
        ).tolist(),
        "share flipped by 1, 2 images": {str(m): float(flipped[m].mean()) for m in _COUNTS},
        "share of the margin that is left, median": {
            str(m): float(np.median(left[m] / before)) for m in _COUNTS
        },
        "fall of the margin, quartiles": {
            str(m): np.percentile(before - left[m], (25, 50, 75)).tolist() for m in _COUNTS
        },
        "test images whose margin is below the median fall": {
            str(m): float((model.margins < np.median(before - left[m])).mean()) for m in _COUNTS
        },
        "largest margin flipped": {
            str(m): float(before[flipped[m]].max(initial=0)) for m in _COUNTS
        },
        "smallest margin not flipped": {
            str(m): float(before[~flipped[m]].min(initial=np.inf)) for m in _COUNTS
        },
        "test photos attacked together": len(together),
        "flipped of these by one image": many["flips"],
        "steps at most": steps,
        "largest pixel change, [-1, 1]": max(i["largest"] for i in [*ones, many]),
        "feature shift over distance to the nearest photo, median": float(
            np.median([item["shift"] for item in ones])
        ),
    }
    same = [item["same"] for item in [*ones, *(item["2"] for item in tries), many]]
    largest = metrics["largest pixel change, [-1, 1]"]
    bars = (
        Bar.at_least("accuracy of the attacked model", accuracy, 0.9 if quick else 0.97),
        Bar.at_least("flipped by 1 image", float(flipped[1].mean()), 0.57),
        Bar.at_least("flipped by 2 images", float(flipped[2].mean()), 0.77),
        Bar.at_least("flipped at once, of 30, by 1 image", many["flips"], 16),
        Bar.at_least(
            "share of flips that a refit from nothing confirms",
            float(np.mean([item["verified"] for item in flips])) if flips else 1.0,
            1,
        ),
        Bar.at_least("the photos are the originals in 8 bits", float(min(same)), 1),
        Bar(
            name="largest pixel change",
            value=largest,
            bar=f"<= {1 / 255:.5f}",
            met=largest <= 1 / 255,
        ),
    )
    return Outcome(metrics=metrics, bars=bars, figure=_draw(before, left))


def _attacks(
    model: Attacked, where: np.ndarray, counts: tuple[int, ...], steps: int
) -> dict[str, Any]:
    """Attack queries with few images; return what is left of their margin, on average."""
    query = model.query(where)
    ranked = whence.attacks.strongest(model.objective, query, max(counts))
    found = {}
    for count in counts:
        attack = whence.attacks.attack(
            model.objective, query, positions=ranked[:count], steps=steps
        )
        signs = 2.0 * attack.queries.targets.clamp_min(0).numpy() - 1
        left = signs * attack.poisoned.outputs(attack.queries)[:, 0].numpy()
        flips = int(attack.flipped.sum())
        found[str(count)] = {
            "before": float(model.margins[where].mean()),
            "left": float(left.mean()),
            "flipped": bool(attack.flipped.all()),
            "flips": flips,
            "verified": bool((attack.verify() == attack.flipped).all()) if flips else None,
            "same": model.same_8_bits(attack),
            "largest": attack.largest_change,
            "shift": model.feature_shift(attack),
        }
    return found


def _draw(before: np.ndarray, left: dict[int, np.ndarray]) -> Any:
    """The margin of each query before and after."""
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    order = np.argsort(before)
    ax.bar(np.arange(len(order)), before[order], width=0.9, color="0.85", label="before")
    for (count, values), color in zip(left.items(), ("tab:blue", "tab:red"), strict=True):
        label = f"after {count} changed photo{'s' * (count > 1)}"
        ax.plot(np.arange(len(order)), values[order], "o", color=color, label=label)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xlabel("attacked test photos, the least certain first")
    ax.set_ylabel("logit margin")
    ax.legend(fontsize=8)
    ax.set_title("SqueezeNet 1.1: no pixel changed by more than half a gray level", fontsize=10)
    return figure


EXPERIMENT = Experiment(
    id="f5c",
    title="At which margin one training image flips a prediction",
    paper="1 image flips 57 %, 2 flip 77 %, 16 of 30 at once",
    run=run,
    seed=_SEED,
)
