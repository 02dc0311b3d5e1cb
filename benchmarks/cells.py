"""Cells and tables of the pages of benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.rows import Row


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first two to the right."""
    rule = ["---" if i < 2 else "---:" for i in range(len(header))]
    lines = [header, rule, *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def seconds(value: float | None) -> str:
    """Return seconds to two figures or so."""
    if value is None:
        return "–"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def ratio(row: Row, ours: Row | None) -> str:
    """Return how many times whence's time a row took."""
    if ours is None or row.status != "ok" or ours.seconds == 0:
        return "–"
    return f"{row.seconds / ours.seconds:.2g}"


def timed(row: Row, ours: Row | None) -> list[str]:
    """Return the first cells of a row: whose method, its seconds, and how many times ours."""
    own = [bold(row.library), row.method, seconds(row.prepare_s), seconds(row.query_s)]
    return [*own, ratio(row, ours)]


def bold(library: str) -> str:
    """Return a library's name, whence's in bold."""
    return f"**{library}**" if library == "whence" else library


def failures(rows: Sequence[Row]) -> str:
    """List what did not end well."""
    lines = [
        f"- {row.library} {row.method}, {row.queries}: {row.status}. {row.note}"
        for row in rows
        if row.status != "ok"
    ]
    return "\n".join(lines) + "\n" if lines else ""


def machine_words(row: Row) -> str:
    """Say what the run ran on."""
    m = row.machine
    gpu = f"{m['device']}, {m['device_memory_gb']} GB; " if "device" in m else ""
    return (
        f"{gpu}{m['processor']}, {m['cores']} cores, {m['memory_gb']} GB, {row.threads} threads, "
        f"torch {m['torch']}; large products at {m['float32_gflops']:.0f} GFLOP/s in float32 "
        f"and {m['float64_gflops']:.0f} in float64, memory read at {m['bandwidth_gbs']:.0f} GB/s; "
        f"run `{row.run_id}`"
    )
