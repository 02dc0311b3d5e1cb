"""The section of the page of benchmarks on networks and the index on a GPU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import rows as stored
from benchmarks.bars import fastest
from benchmarks.cells import failures, machine_words, table, timed
from benchmarks.compare import ON_DEVICE
from benchmarks.rows import Row

_INTRODUCTION = """`python -m benchmarks peers --device cuda`: the same networks, data and adapters
on a GPU, in float32. *Peak* is the most memory that tensors took on the GPU. The clock starts
when the GPU is ready, with model and data on it. The networks were trained on it too. Methods
that are not listed were not measured.
"""


def on_gpu(results: Path) -> str:
    """Return the section on networks and the index on a GPU, nothing if it was not measured."""
    parts = []
    for workload in ON_DEVICE:
        rows = stored.read(results / f"{workload}.jsonl")
        if rows:
            title = import_module(f"benchmarks.workloads.{workload}").TITLE
            parts.append(f"### {title}, on a GPU\n\nMeasured on {machine_words(rows[-1])}.\n")
            parts += [gpu_table(rows), failures(rows)]
    index = results / "index.json"
    if index.exists():
        parts.append(gpu_index(json.loads(index.read_text())))
    if not parts:
        return ""
    return "\n".join(["## On a GPU\n", _INTRODUCTION, *(part for part in parts if part)])


def gpu_table(rows: Sequence[Row]) -> str:
    """Return time, memory of the device and agreement of one workload, the fastest first."""
    fine = sorted((row for row in rows if row.status == "ok"), key=lambda row: row.seconds)
    ours = fastest([row for row in fine if row.library == "whence" and row.method == "EKFAC"])
    body = [
        [
            *timed(row, ours),
            f"{row.device_peak_mb or 0.0:,.0f}",
            f"{row.accuracy['LDS']:.3f}" if "LDS" in row.accuracy else "–",
        ]
        for row in fine
    ]
    header = ["library", "method", "prepare, s", "query, s", "times whence's EKFAC", "peak, MB"]
    return table([*header, "LDS"], body)


def gpu_index(content: dict[str, Any]) -> str:
    """Return the table of an index of synthetic rows whose products are a GPU's."""
    body = [
        [
            row["rows"],
            f"{row['n']:,}",
            str(row["queries"]),
            f"{row['gigabytes']:.2f}",
            f"{row['warm_s']:.3f}",
            f"{row['copied_s']:.3f}",
            f"{row['products_s']:.3f}",
        ]
        for row in content["rows"]
    ]
    header = ["rows", "n", "queries", "GB", "query, s", "rows to the GPU alone, s"]
    return (
        f"### An index of {content['rows'][0]['n']:,} rows, on a GPU\n\n"
        f"`python -m benchmarks.index --device cuda` on {content['machine']['device']}: the rows "
        "lie in files that the system has in memory, and go to the GPU as they are stored.\n\n"
        + table([*header, "products alone, s"], body)
    )
