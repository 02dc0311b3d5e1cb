"""Draw docs/explanation/benchmarks.md and its figures from the committed rows.

`python -m benchmarks page`. Nothing is measured: the same rows give the same page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import build
from benchmarks import rows as stored
from benchmarks.bars import BARS, each_of, fastest, mean_rows
from benchmarks.cells import bold, failures, machine_words, seconds, table, timed
from benchmarks.drawing import growth_figure, trade_off
from benchmarks.floors import FLOORS
from benchmarks.gpu_page import on_gpu
from benchmarks.methods import METHODS
from benchmarks.rows import Row
from benchmarks.words import PREFER, SETUP, WHY

_ROOT = Path(__file__).parent.parent
_INTRODUCTION = """# Benchmarks

What would you get from the other libraries? Each was given the same data, the same trained model
and the same queries, and was used as its own documentation says.

Every number on this page comes from `python -m benchmarks peers`, which you can run on your own
machine (half an hour; `--quick` to see that everything runs), and the page itself from
`python -m benchmarks page`. Each method ran in a process and an environment of its own, on two
threads. *Prepare* is what is paid once whatever is asked, *query* is from the queries to their
scores of all training examples, *peak* is the process's largest resident memory, data and model
included. **Only ratios within one run mean anything**: seconds belong to the machine below.

What failed is shown with its reason.
"""
_SEARCHED = """A method with a damping or a dimension was tried at three of them, the same number
for all, on queries (and, for networks, on retrained halves) that are not scored here:
`benchmarks/methods.py` states the search, `benchmarks/results/trials.jsonl` what each reached, and
`benchmarks/results/settings.json` what was chosen (`python -m benchmarks tune`).
"""
_UNSEARCHED = """Settings are the middle of the three that `benchmarks/methods.py` states: for W1
the penalty of the problem itself, for networks the mean eigenvalue of the Gauss–Newton matrix.
`python -m benchmarks tune` searches them on other queries; this run did not.
"""


def groups(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, Row]]:
    """Return the rows of each (library, method) by queries, in the order of `methods.py`."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row.library, row.method), {})[row.queries] = row
    workload = rows[0].workload if rows else ""
    listed = [(m.library, m.name) for m in METHODS if m.workload == workload]
    known = [key for key in listed if key in found]
    return {key: found[key] for key in dict.fromkeys([*known, *found])}


def w1_tables(rows: Sequence[Row]) -> str:
    """Return a table for each number of queries, and one of agreement."""
    parts = []
    for queries in ("1 query", "100 queries", "1,000 queries"):
        found = groups([row for row in rows if row.queries == queries])
        ours = found.get(("whence", "exact"), {}).get(queries)
        body = []
        for (library, method), cells in found.items():
            row = cells[queries]
            if row.status != "ok":
                body.append([bold(library), method, row.status, *["–"] * 7])
                continue
            a = row.accuracy
            body.append(
                [
                    *timed(row, ours),
                    f"{row.peak_mb:,.0f}",
                    f"{a['relative error']:.1e}" if "relative error" in a else "no unit",
                    f"{a['pearson']:.3f}",
                    f"{a['spearman']:.3f}",
                    f"{a['pearson with retraining']:.3f}",
                ]
            )
        header = ["library", "method", "prepare, s", "query, s", "times whence's exact"]
        header += ["peak, MB", "relative error", "Pearson", "Spearman", "retraining"]
        parts.append(f"### {queries}\n\n{table(header, body)}")
    return "\n".join(parts)


def w2_tables(rows: Sequence[Row]) -> str:
    """Return the table of W2, the most accurate first."""
    fine = sorted((row for row in rows if row.status == "ok"), key=lambda row: -row.accuracy["LDS"])
    ours = next((row for row in fine if row.library == "whence" and row.method == "EKFAC"), None)
    body = [
        [
            *timed(row, ours),
            f"{row.peak_mb:,.0f}",
            f"{row.accuracy['LDS']:.3f}",
            f"{row.accuracy['low']:.3f} to {row.accuracy['high']:.3f}",
        ]
        for row in fine
    ]
    header = ["library", "method", "prepare, s", "query, s", "times whence's EKFAC", "peak, MB"]
    text = table([*header, "LDS", "95 % interval"], body)
    if fine and "ceiling" in fine[0].accuracy:
        a = fine[0].accuracy
        text += (
            f"\nNoise ceiling {a['ceiling']:.3f}; two trainings of the same half agree at "
            f"{a['agreement of seeds']:.3f}.\n"
        )
    return text


def w4_tables(rows: Sequence[Row]) -> str:
    """Return the table of W4, means of the three sets of flips."""
    means = mean_rows(rows)
    ours = next((row for row in means if row.library == "whence"), None)
    body = [
        [
            *timed(row, ours),
            f"{row.peak_mb:,.0f}",
            *[f"{value:.3f}" for value in row.accuracy.values()],
        ]
        for row in means
    ]
    names = list(means[0].accuracy) if means else []
    header = ["library", "method", "prepare, s", "query, s", "times whence's", "peak, MB", *names]
    return table(header, body)


def w5_tables(rows: Sequence[Row]) -> str:
    """Return the table of W5, seconds for each retraining."""
    body = []
    for row in (row for row in rows if row.status == "ok"):
        agreement = ", ".join(f"{name} {value:.2g}" for name, value in row.accuracy.items())
        cells = [bold(row.library), row.method, row.queries, str(row.n_queries)]
        cells += [f"{each_of(row):.3f}", f"{row.peak_mb:,.0f}", agreement]
        body.append(cells)
    header = ["library", "method", "what", "measured", "s per retraining", "peak, MB", "agreement"]
    return table(header, body)


def plain_tables(rows: Sequence[Row]) -> str:
    """Return the table of a workload that is about time and memory."""
    ours = fastest([row for row in rows if row.library == "whence" and row.method == "EKFAC"])
    body = []
    for row in (row for row in rows if row.status == "ok"):
        agreement = ", ".join(f"{name} {value:.3f}" for name, value in row.accuracy.items())
        body.append([*timed(row, ours), f"{row.peak_mb:,.0f}", agreement or "–"])
    header = ["library", "method", "prepare, s", "query, s", "times whence's EKFAC", "peak, MB"]
    return table([*header, "LDS"], body)


def w8_tables(rows: Sequence[Row]) -> str:
    """Return the table of W8: what each method took for all tables, and how it agrees."""
    body = []
    for (library, method), cells in groups(rows).items():
        fine = [row for row in cells.values() if row.status == "ok"]
        if not fine:
            continue
        agreement = [row.accuracy["pearson"] for row in fine]
        errors = [row.accuracy["relative error"] for row in fine]
        body.append(
            [
                bold(library),
                method,
                f"{len(fine)} of {len(cells)}",
                f"{sum(row.seconds for row in fine):.2f}",
                f"{max(row.seconds for row in fine):.2f}",
                f"{max(row.peak_mb or 0.0 for row in fine):,.0f}",
                f"{np.mean(agreement):.5f}",
                f"{min(agreement):.5f}",
                f"{np.mean([row.accuracy['spearman'] for row in fine]):.5f}",
                f"{np.median(errors):.1e}",
                f"{max(errors):.1e}",
            ]
        )
    header = ["library", "method", "tables", "s, all", "s, slowest", "peak, MB", "Pearson"]
    return table([*header, "lowest", "Spearman", "relative error, median", "highest"], body)


TABLES = {"w1": w1_tables, "w2": w2_tables, "w4": w4_tables, "w5": w5_tables}
TABLES |= {"w3": plain_tables, "w6": plain_tables, "w8": w8_tables}


def promises(workload: str, rows: Sequence[Row]) -> str:
    """Return the promises and what became of them."""
    words = {True: "yes", False: "**no**", None: "not measured"}
    body = [[b.text, b.wanted, b.measured, words[b.held]] for b in BARS[workload](rows)]
    return table(["promise", "wanted", "measured", "held"], body)


def not_first(workload: str, rows: Sequence[Row]) -> str:
    """Say where a peer took less time than whence, and what the time bought."""
    lines = []
    if workload in ("w4", "w8"):
        rows = mean_rows(rows)
    for queries in dict.fromkeys(row.queries for row in rows):
        here = [row for row in rows if row.queries == queries and row.status == "ok"]
        ours = min(
            (r for r in here if r.library == "whence"), key=lambda r: r.seconds, default=None
        )
        if ours is None or workload == "w5":
            continue
        for row in sorted(here, key=lambda row: row.seconds):
            if row.library != "whence" and row.seconds < ours.seconds:
                why = WHY.get((row.library, row.method), "")
                reached = ", ".join(f"{n} {v:.2g}" for n, v in list(row.accuracy.items())[:3])
                lines.append(
                    f"- {queries}: {row.library} {row.method} took {seconds(row.seconds)} s, "
                    f"whence's fastest ({ours.method}) {seconds(ours.seconds)} s. "
                    + (f"It {why}; " if why else "")
                    + f"it reached {reached}."
                )
    return "\n".join(lines) + "\n" if lines else "Nowhere in this run.\n"


def floors(workload: str, rows: Sequence[Row]) -> str:
    """Return the least times that the machine allows."""
    if workload not in FLOORS or not rows:
        return ""
    body = [[what, how, f"{value:.2g}"] for what, how, value in FLOORS[workload](rows[0].machine)]
    return "**Floors** at the rates of this run:\n\n" + table(["what", "counted as", "s"], body)


def section(workload: str, rows: Sequence[Row], images: Path) -> str:
    """Return the section of a workload, its figure drawn."""
    title = import_module(f"benchmarks.workloads.{workload}").TITLE
    runs = sorted({row.run_id for row in rows})
    mixed = "" if len(runs) == 1 else f"\n**Rows of {len(runs)} runs are mixed here.**\n"
    loads = [row.load for row in rows if row.status == "ok"]
    figure = trade_off(workload, rows, images)
    parts = [
        f"## {workload.upper()}: {title}\n\n{SETUP[workload]}\n",
        f"Measured on {machine_words(rows[-1])}; load before a row {min(loads, default=0):.1f} to "
        f"{max(loads, default=0):.1f}.\n{mixed}",
        f"![Time and agreement](../images/{figure.name})\n" if figure else "",
        TABLES[workload](rows),
        promises(workload, rows),
        floors(workload, rows),
        f"**Where whence is not first.**\n\n{not_first(workload, rows)}",
    ]
    if failed := failures(rows):
        parts.append(f"**What did not end well.**\n\n{failed}")
    return "\n".join(part for part in parts if part)


def preferences(rows: Sequence[Row]) -> str:
    """Say when to prefer each peer."""
    versions = {row.library: row.version for row in rows}
    lines = [
        f"- **{library}** {versions.get(library, '')}: prefer it for {words}".replace(" :", ":")
        for library, words in PREFER.items()
    ]
    return "## When to prefer which\n\n" + "\n".join(lines) + "\n"


def growth(results: Path, images: Path) -> str:
    """Return the section on growth, its figure drawn."""
    path = results / "growth.json"
    if not path.exists():
        return ""
    measured: dict[str, Any] = json.loads(path.read_text())
    slopes = growth_figure(measured, images / "benchmarks-growth.png")
    body = [[name, axis, f"{slope:.2f}"] for (name, axis), slope in slopes.items()]
    return (
        "## Growth\n\nTime and memory against the number of training examples, parameters and "
        "queries, `python -m benchmarks growth`; the slope is the power with which time grows. The "
        'last column of the figure is data on disk, `np.load(..., mmap_mode="r")`, of up to ten '
        "times the memory that the operating system lets the process take; the memory drawn is the "
        "process's own.\n\n"
        "![Growth](../images/benchmarks-growth.png)\n\n"
        + table(["method", "against", "slope"], body)
    )


def written(results: Path, page: Path, images: Path) -> str:
    """Write the page and its figures; return the page."""
    images.mkdir(parents=True, exist_ok=True)
    searched = (results / "settings.json").exists()
    parts, everything = [_INTRODUCTION, _SEARCHED if searched else _UNSEARCHED], []
    for workload in BARS:
        rows = stored.read(results / f"{workload}.jsonl")
        if rows:
            parts.append(section(workload, rows, images))
            everything += rows
    parts += [build.section(results / "build.json"), on_gpu(results / "cuda")]
    parts += [growth(results, images), preferences(everything)]
    text = "\n".join(part for part in parts if part)
    page.write_text(text)
    return text


def main(arguments: Sequence[str]) -> int:
    """Read the rows, write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks page", description=__doc__)
    parser.add_argument("--results", type=Path, default=_ROOT / "benchmarks" / "results")
    parser.add_argument("--docs", type=Path, default=_ROOT / "docs")
    options = parser.parse_args(arguments)
    page = options.docs / "explanation" / "benchmarks.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    written(options.results, page, options.docs / "images")
    print(f"Wrote {page}.")
    return 0
