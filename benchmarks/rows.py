"""Rows of measurements, one JSON object a line; a file is replaced whole, never half-written."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "failed", "timeout", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one method of one library did for one set of queries.

    Attributes:
        library: The library, as its package is named.
        version: Its release.
        method: The method, in the words of the page.
        workload: The workload's id: w1, w2, ...
        queries: The set of queries, in words; with library and method it names the row.
        n_queries: Queries in the set.
        setting: Damping, dimension or tolerance, in the workload's unit; `None` if there is none.
        prepare_s: Wall seconds of what is paid once, whatever is asked.
        query_s: Wall seconds from the queries to their scores of all training examples.
        peak_mb: Peak resident memory of the process, data and model included.
        device_peak_mb: Peak memory of the device that tensors took, data and model included; `None`
            on the CPU.
        accuracy: Measures of agreement with the ground truth, by name.
        status: How it ended.
        note: Why it failed, or what else must be known.
        machine: Processor, cores, memory and measured rates.
        threads: Threads given to it.
        load: Processes that wanted a core, averaged over the minute before it started.
        run_id: The run it belongs to: only rows of one run are compared.
    """

    library: str
    version: str
    method: str
    workload: str
    queries: str
    n_queries: int
    setting: float | None = None
    prepare_s: float | None = None
    query_s: float | None = None
    peak_mb: float | None = None
    device_peak_mb: float | None = None
    accuracy: dict[str, float] = field(default_factory=dict)
    status: Status = "ok"
    note: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    threads: int = 0
    load: float = 0.0
    run_id: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.library, self.method, self.queries

    @property
    def seconds(self) -> float:
        """Preparation and query together; infinite where it did not finish."""
        if self.prepare_s is None or self.query_s is None:
            return float("inf")
        return self.prepare_s + self.query_s


def read(path: Path) -> list[Row]:
    """Return the rows of a file, none if it does not exist."""
    if not path.exists():
        return []
    return [Row(**json.loads(line)) for line in path.read_text().splitlines() if line]


def keep(path: Path, row: Row) -> None:
    """Put a row in its place: the row of the same key is replaced, the others stay."""
    rows = [other for other in read(path) if other.key != row.key]
    write(path, [*rows, row])


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    os.replace(temporary, path)


def by_case(path: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of a file that names them by "case"; none where there is no file yet."""
    if not path.exists():
        return {}
    return {row["case"]: row for row in map(json.loads, path.read_text().splitlines())}
