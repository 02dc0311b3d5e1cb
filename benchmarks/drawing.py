"""Figures of the page: what accuracy costs, and how time grows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullFormatter

from benchmarks.bars import mean_rows
from benchmarks.rows import Row

_SHOWN = {
    "w1": ("100 queries", "spearman", "Spearman with exact influence, all examples"),
    "w2": ("200 queries", "LDS", "LDS"),
    "w4": ("", "found at 20%", "flipped labels found, 20 % checked"),
}
# Each library looks the same in every figure.
_MARKERS = {
    "whence": "*",
    "kronfluence": "o",
    "curvlinops": "s",
    "pydvl": "D",
    "captum": "^",
    "traker": "v",
    "dattri": "P",
    "cleanlab": "X",
    "bergson": "h",
}


def trade_off(workload: str, rows: Sequence[Row], images: Path) -> Path | None:
    """Draw agreement against total time, a mark for each method; `None` if there is none."""
    if workload not in _SHOWN:
        return None
    queries, name, label = _SHOWN[workload]
    shown = mean_rows(rows) if not queries else [row for row in rows if row.queries == queries]
    shown = [row for row in shown if row.status == "ok"]
    if not shown:
        return None
    figure, ax = plt.subplots(figsize=(8.5, 4.8), layout="constrained")
    ax.set_xscale("log")
    for i, (library, marker) in enumerate(_MARKERS.items()):
        own = [row for row in shown if row.library == library]
        if not own:
            continue
        ax.plot(
            [row.seconds for row in own],
            [row.accuracy[name] for row in own],
            linestyle="",
            marker=marker,
            color=f"C{i}",
            markersize=12 if library == "whence" else 7,
            label=library,
        )
        for row in own:
            place = (row.seconds, row.accuracy[name])
            ax.annotate(row.method, place, xytext=(5, 4), textcoords="offset points", fontsize=7)
    left, right = ax.get_xlim()
    ax.set_xlim(left, 2 * right)  # room for the names of the slowest
    if "ceiling" in shown[0].accuracy:
        ax.axhline(shown[0].accuracy["ceiling"], color="0.5", linestyle="--", linewidth=1)
        ax.text(left, shown[0].accuracy["ceiling"], " noise ceiling", va="bottom", fontsize=8)
    ax.set_xlabel("preparation and query, seconds")
    ax.set_ylabel(label)
    ax.legend(fontsize=8)
    path = images / f"benchmarks-{workload}.png"
    figure.savefig(path, dpi=110, metadata={"Software": ""})
    plt.close(figure)
    return path


def growth_figure(measured: dict[str, Any], path: Path) -> dict[tuple[str, str], float]:
    """Draw time and memory against sizes on log axes; return time's slopes by (method, axis)."""
    series = measured["series"]
    axes_of = list(dict.fromkeys(item["axis"] for item in series))
    figure, axes = plt.subplots(2, len(axes_of), figsize=(4.2 * len(axes_of), 6.4), squeeze=False)
    slopes = {}
    for ax, below, axis in zip(*axes, axes_of, strict=True):
        for item in (item for item in series if item["axis"] == axis):
            sizes, times = np.array(item["sizes"], float), np.array(item["seconds"], float)
            slope = float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
            slopes[item["method"], axis] = slope
            ax.loglog(sizes, times, "o-", label=f"{item['method']}: slope {slope:.2f}")
            below.loglog(sizes, item["peak_mb"], "o-", label=item["method"])
        below.set_xlabel(axis)
        ax.set_ylabel("seconds")
        below.set_ylabel("peak memory, MB")
        for one in (ax, below):
            one.xaxis.set_minor_formatter(NullFormatter())
            one.grid(alpha=0.3, which="both")
        ax.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": ""})
    plt.close(figure)
    return slopes
