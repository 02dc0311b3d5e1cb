"""The page of the leaderboard, written from the numbers on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.attribution.ladder import METHODS, USUAL
from benchmarks.attribution.measure import TRAINING

HALVES = "random halves"
_MARKERS = {"1% removed": "o", "5% removed": "s", "20% removed": "D"}
_DOCS = Path(__file__).parents[2] / "docs"

_INTRODUCTION = """# Leaderboard

How well do the methods predict retraining, and what do they cost?
`python -m benchmarks.attribution` measures, and writes this page and its figure. `--quick` runs
everything small, in seconds; names of cases limit it to those.

Each number is a **linear datamodeling score** (LDS): the rank correlation, over subsets of the
training data, between a query's loss after training on the subset and what the scores predicted,
as a mean over queries. Behind it stands half the width of its 95 % bootstrap interval.

![LDS of each method, by protocol](../images/leaderboard.png)
"""

_HALVES = """
## Random halves

Train on random halves, and average the loss over seeds of start and order: what *a* training on
this half would do. One model is explained. The ceiling is what a perfect predictor of the average
would reach, as the disagreement of the seeds tells. The last line says where the halves were
trained; scores and their times are of a training on the device that the costs below name.
"""

_ONE_RUN = """
## One run

The very training that is explained, repeated with the same start and order, and 1, 5 or 20 % of the
examples left out. There is no noise, so the ceiling is 1. The metagradient is the exact derivative
of that training; whether a derivative predicts whole removals depends on how smooth the training
is, which [`metasmoothness`](../how-to/evaluate.md#choose-a-training-that-can-be-predicted) tells
beforehand: "MLP" is not, "smooth MLP" is.
"""

_COST = """
## What it costs

Seconds from the trained model to all scores, and the peak memory of the process; of the GPU, where
the head names one. "training" is one training. The metagradient, and what iterates for the ResNet,
are for the first 50 queries, what iterates for the GPT for the first 20; the trainings of an
ensemble do not count.
"""


def write_page(results: Path, names: list[str], docs: Path = _DOCS) -> Path:
    """Write the page and its figure.

    Args:
        results: Where the numbers lie, a JSON file per case.
        names: The cases, in their order; those without a file are left out.
        docs: The folder of the documentation.

    Returns:
        The page.
    """
    paths = [results / f"{name}.json" for name in names]
    records = [json.loads(path.read_text()) for path in paths if path.exists()]
    figure = _figure(records)
    (docs / "images").mkdir(parents=True, exist_ok=True)
    figure.savefig(docs / "images" / "leaderboard.png", dpi=110)
    parts = [
        _INTRODUCTION,
        *(f"- **{record['label']}**: {record['title']}." for record in records),
        _HALVES,
        *_scores(records, halves=True),
        *_beyond(records),
        _ONE_RUN,
        *_scores(records, halves=False),
        _COST,
        *_costs(records),
        *_left_out(records),
    ]
    page = docs / "explanation" / "leaderboard.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(parts).rstrip() + "\n")
    return page


def _columns(records: list[dict[str, Any]], *, halves: bool) -> list[tuple[dict[str, Any], str]]:
    """Return the case and the protocol of each column."""
    return [
        (record, name)
        for record in records
        for name in record["protocols"]
        if (name == HALVES) is halves
    ]


def _methods(records: list[dict[str, Any]]) -> list[str]:
    """Return the methods that were measured anywhere, from the simplest up."""
    return [name for name in METHODS if any(name in record["rows"] for record in records)]


def _scores(records: list[dict[str, Any]], *, halves: bool) -> Iterator[str]:
    """Yield the lines of a table of LDS."""
    columns = _columns(records, halves=halves)
    heads = [record["label"] + ("" if halves else f", {name}") for record, name in columns]
    yield _row(["method", *heads])
    yield _row(["---", *["---:"] * len(columns)])
    best = [_best(record["rows"], name) for record, name in columns]
    for method in _methods(records):
        cells = []
        for (record, name), top in zip(columns, best, strict=True):
            row = record["rows"].get(method)
            cells.append("" if row is None else _score(row["lds"][name], bold=method == top))
        yield _row([method, *cells])
    banks = [record["protocols"][name] for record, name in columns]
    if halves:
        ceilings = ["" if bank["ceiling"] is None else f"{bank['ceiling']:.3f}" for bank in banks]
        yield _row(["*noise ceiling*", *ceilings])
    sizes = [f"{bank['subsets']} × {bank['seeds']}, {bank['queries']}" for bank in banks]
    yield _row(["*subsets × seeds, queries*", *sizes])
    devices = [bank.get("device", "") for bank in banks]
    if any(devices):
        yield _row(["*retrained on*", *(device or "CPU" for device in devices)])


def _beyond(records: list[dict[str, Any]]) -> Iterator[str]:
    """Yield how far methods that are given a few queries are beyond the usual one on these."""
    for record in records:
        found = [
            f"{method} {gain:+.3f} ({low:+.3f} to {high:+.3f})"
            for method, row in record["rows"].items()
            for gain, low, high in [row.get("beyond", {}).get(HALVES, (0.0, 0.0, 0.0))]
            if low < high
        ]
        if found:
            yield f"\n{record['label']}, beyond {USUAL} on the same queries: {'; '.join(found)}."


def _best(rows: dict[str, Any], name: str) -> str:
    """Return the method with the largest LDS; of a few queries only where it is beyond others'."""
    means = {
        method: row["lds"][name]["mean"]
        for method, row in rows.items()
        if "lds" in row and ("beyond" not in row or row["beyond"][name][1] > 0)
    }
    return max(means, key=means.__getitem__, default="")


def _score(found: dict[str, Any], *, bold: bool) -> str:
    """Return one LDS."""
    low, high = found["interval"]
    shown = f"{found['mean']:.3f}"
    return f"{f'**{shown}**' if bold else shown} ± {(high - low) / 2:.3f}"


def _costs(records: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table of costs."""
    gpus = {record["label"]: record.get("device", "") for record in records}
    heads = [label + (f" on {gpu}" if gpu else "") for label, gpu in gpus.items()]
    yield _row(["method", *heads])
    yield _row(["---", *["---:"] * len(records)])
    busy = False
    for method in [TRAINING, *_methods(records)]:
        cells = []
        for record in records:
            row = record["rows"].get(method)
            busy = busy or bool(row and row["busy"])
            cells.append("" if row is None else _cost(row))
        yield _row([method, *cells])
    if busy:
        yield "\n\\* timed while other programs ran: too long. `--retime` measures these again."


def _cost(row: dict[str, Any]) -> str:
    """Return time and memory."""
    star = "\\*" if row["busy"] else ""
    return f"{row['seconds']:.3g} s{star}, {row['peak_gib']:.1f} GiB"


def _left_out(records: list[dict[str, Any]]) -> Iterator[str]:
    """Yield why cells are empty."""
    if any(record["left_out"] for record in records):
        yield "\nNot measured:\n"
    for record in records:
        reasons: dict[str, list[str]] = {}
        for method, reason in record["left_out"].items():
            reasons.setdefault(reason, []).append(method)
        for reason, methods in reasons.items():
            yield f"- {record['label']}: {'; '.join(methods)} ({reason})."


def _row(cells: list[str]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def _figure(records: list[dict[str, Any]]) -> Figure:
    """Draw the LDS of each method, a panel per protocol."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    methods = _methods(records)
    colors = {record["label"]: f"C{i}" for i, record in enumerate(records)}
    for ax, halves, title in zip(axes, (True, False), ("random halves", "one run"), strict=True):
        _panel(ax, _columns(records, halves=halves), methods, colors, title)
    models = [Line2D([], [], color=c, marker="o", label=label) for label, c in colors.items()]
    removed = [
        Line2D([], [], color="0.3", marker=marker, linestyle="", label=name)
        for name, marker in _MARKERS.items()
    ]
    axes[0].legend(handles=models, fontsize=7, loc="lower left")
    axes[1].legend(handles=removed, fontsize=7, loc="lower left")
    axes[0].set_yticks(range(len(methods)), methods)
    axes[0].invert_yaxis()
    return figure


def _panel(
    ax: Axes,
    columns: list[tuple[dict[str, Any], str]],
    methods: list[str],
    colors: dict[str, str],
    title: str,
) -> None:
    """Draw the columns of one protocol, with their intervals."""
    spread = np.linspace(-0.3, 0.3, max(len(columns), 1))
    for shift, (record, name) in zip(spread, columns, strict=False):
        there = [i for i, method in enumerate(methods) if method in record["rows"]]
        found = [record["rows"][methods[i]]["lds"][name] for i in there]
        means = np.array([one["mean"] for one in found])
        ends = np.array([one["interval"] for one in found]).reshape(-1, 2).T
        color = colors[record["label"]]
        ax.errorbar(
            means,
            np.array(there) + shift,
            xerr=np.maximum(np.abs(ends - means), 0),
            fmt=_MARKERS.get(name, "o"),
            color=color,
            markersize=4,
        )
        ceiling = record["protocols"][name]["ceiling"]
        if ceiling is not None:
            ax.axvline(ceiling, color=color, linestyle=":", linewidth=1)
    ax.set_title(title)
    ax.set_xlabel("LDS; dotted: noise ceiling" if title == "random halves" else "LDS")
