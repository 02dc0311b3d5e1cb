"""Figure 5: change a few training photos, invisibly, and the prediction of a test photo flips."""

from __future__ import annotations

from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

import whence
from experiments.koh_liang_2017.attacked import Attacked, attacked, unseen
from experiments.koh_liang_2017.record import Bar, Experiment, Outcome, Request
from experiments.koh_liang_2017.resume import each

_COUNTS = (1, 2, 10)
_STEP = 0.002  # half the budget; the paper's 0.02 jumps from corner to corner of the box
_STEPS, _PAPER_STEP = 30, 0.02
_SEED = 0


def run(request: Request) -> Outcome:
    model = attacked(request)
    hard = model.least_certain(2 if request.quick else 40)
    random = model.random(1 if request.quick else 60, _SEED, hard)
    steps = 8 if request.quick else _STEPS
    names = {"least certain": hard, "random": random}
    settings = f"{model.shown.data.name} {len(model.objective.train)} {_STEP} {steps}"
    tries = {
        name: each(
            f"f5a-{name.replace(' ', '-')}",
            [str(i) for i in where],
            partial(_attack_one, request, steps),
            settings=settings,
            workers=request.workers,
        )
        for name, where in names.items()
    }
    share = {
        name: {count: float(np.mean([_flips(item, count) for item in items])) for count in _COUNTS}
        for name, items in tries.items()
    }
    flips = [a for items in tries.values() for item in items for a in item["attacks"] if a["flip"]]
    example = _example(model, tries, hard, steps)
    metrics: dict[str, Any] = {
        "data": model.shown.data.name,
        "test accuracy": float((model.margins > 0).mean()),
        "logit margin, quartiles over the test images": np.percentile(
            model.margins, (25, 50, 75)
        ).tolist(),
        "share flipped by 1, 2, 10 images": share,
        "fewer images are tried where more succeeded": True,
        "median margin of the queries": {
            n: float(np.median(model.margins[w])) for n, w in names.items()
        },
        "steps at most": steps,
        "step size": _STEP,
        "largest pixel change, [-1, 1]": max((a["largest"] for a in flips), default=0.0),
        "feature shift over distance to the nearest photo, median": float(
            np.median([a["shift"] for a in flips]) if flips else 0
        ),
        "flipped with the paper's step size, 10 images, 10 least certain": None
        if request.quick
        else _papers_step(request, hard[:10], steps, settings),
    }
    total = sum(len(items) for items in tries.values())
    bars = (
        Bar.at_least("test images attacked", total, 3 if request.quick else 100),
        Bar.at_least(
            "share of flips that a refit from nothing confirms", _mean(flips, "verified"), 1
        ),
        Bar.at_least(
            "share of flips whose photos are the originals in 8 bits", _mean(flips, "same"), 1
        ),
        unseen(metrics["largest pixel change, [-1, 1]"]),
    )
    return Outcome(metrics=metrics, bars=bars, figure=_draw(model, tries, names, example))


def _attack_one(request: Request, steps: int, key: str) -> dict[str, Any]:
    """Attack with ten images, then with fewer where that succeeded."""
    model, at = attacked(request), int(key)
    query = model.query(at)
    ranked = whence.attacks.strongest(model.objective, query, max(_COUNTS))
    found = []
    for count in sorted(_COUNTS, reverse=True):
        attack = whence.attacks.attack(
            model.objective, query, positions=ranked[:count], steps=steps, step_size=_STEP
        )
        flip = bool(attack.flipped[0])
        found.append(
            {
                "images": count,
                "flip": flip,
                "steps": len(attack.losses) - 1,
                "loss": attack.losses[-1],
                "largest": attack.largest_change,
                "shift": model.feature_shift(attack),
                "verified": bool(attack.verify()[0]) if flip else None,
                "same": model.same_8_bits(attack),
            }
        )
        if not flip:
            break
    return {"query": at, "margin": float(model.margins[at]), "attacks": found}


def _papers_step(request: Request, where: np.ndarray, steps: int, settings: str) -> float:
    """Return the share flipped by ten images at the step size of the paper."""
    items = each(
        "f5a-step",
        [str(i) for i in where],
        partial(_attack_ten, request, steps),
        settings=settings,
        workers=request.workers,
    )
    return float(np.mean([item["flip"] for item in items]))


def _attack_ten(request: Request, steps: int, key: str) -> dict[str, Any]:
    """Attack with ten images at the step size of the paper."""
    model = attacked(request)
    attack = whence.attacks.attack(
        model.objective, model.query(int(key)), n_images=10, steps=steps, step_size=_PAPER_STEP
    )
    return {"flip": bool(attack.flipped[0])}


def _flips(item: dict[str, Any], count: int) -> bool:
    """Whether so many images flipped this query."""
    return any(a["flip"] and a["images"] == count for a in item["attacks"])


def _mean(items: list[dict[str, Any]], name: str) -> float:
    """The mean of a field; 1 where there is nothing to ask it of."""
    return float(np.mean([item[name] for item in items])) if items else 1.0


def _example(
    model: Attacked, tries: dict[str, list[dict[str, Any]]], hard: np.ndarray, steps: int
) -> whence.attacks.Attack:
    """Return the attack by one image that flips the surest of the queries it flips."""
    flipped = [item for items in tries.values() for item in items if _flips(item, 1)]
    at = max(flipped, key=lambda item: item["margin"])["query"] if flipped else int(hard[0])
    return whence.attacks.attack(model.objective, model.query(at), steps=steps, step_size=_STEP)


def _draw(
    model: Attacked,
    tries: dict[str, list[dict[str, Any]]],
    names: dict[str, np.ndarray],
    example: whence.attacks.Attack,
) -> Any:
    """Who flips at which margin; one attack: query, photo before and after, their difference."""
    figure = plt.figure(figsize=(10, 5.8), layout="constrained")
    grid = figure.add_gridspec(2, 4)
    ax = figure.add_subplot(grid[0, :])
    colors = {0: "0.75", 10: "tab:blue", 2: "tab:orange", 1: "tab:red"}
    items = sorted((i for part in tries.values() for i in part), key=lambda item: item["margin"])
    for rank, item in enumerate(items):
        fewest = min((a["images"] for a in item["attacks"] if a["flip"]), default=0)
        ax.bar(rank, item["margin"], width=1, color=colors[fewest])
    for count, color in colors.items():
        label = f"{count} training photo{'s' * (count > 1)}" if count else "not by ten"
        ax.bar(0, 0, color=color, label=label)
    ax.legend(title="flipped by", ncols=4, fontsize=8, title_fontsize=8)
    ax.set_xlabel("attacked test photos, the least certain first")
    ax.set_ylabel("logit margin before")
    before = example.clean.train.inputs[torch.as_tensor(example.positions)][0]
    after = example.inputs[0]
    label = model.shown.classes[int(example.clean.train.targets[int(example.positions[0])])]
    pictures = (
        ((example.queries.inputs[0] + 1) / 2, f"test photo\nloss {example.losses[0]:.2f}"),
        ((before + 1) / 2, f"a training photo ({label})"),
        ((after + 1) / 2, f"the same, changed\nloss of the test photo {example.losses[-1]:.2f}"),
        ((after - before) / (2 * 0.004) / 2 + 0.5, "the change, × 125"),
    )
    for column, (picture, title) in enumerate(pictures):
        ax = figure.add_subplot(grid[1, column])
        ax.imshow(picture.permute(1, 2, 0).clamp(0, 1).numpy())
        ax.set_title(title, fontsize=9)
        ax.set_axis_off()
    return figure


EXPERIMENT = Experiment(
    id="f5a",
    title="Training-set attacks on one prediction",
    paper="1 image flips 57 %, 2 flip 77 %, 10 all but one of 591",
    run=run,
    seed=_SEED,
)
