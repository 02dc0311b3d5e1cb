"""Run libraries side by side, each method in its own process, and keep a row for each.

`python -m benchmarks peers [w1 w2 w3 w4 w5 w6 w8] [--libraries a,b] [--quick]`; networks on a GPU
with `--device cuda`. Interrupted, the same command goes on at the row it had come to.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, rows
from benchmarks.environments import python_of, version_of
from benchmarks.methods import METHODS, Method
from benchmarks.rows import Row

_ROOT = Path(__file__).parent.parent
WORKLOADS = ("w1", "w2", "w3", "w4", "w5", "w6", "w8")
DEFAULT = ("w1", "w2", "w4", "w5", "w8")  # half an hour
ON_DEVICE = ("w2", "w3", "w6")  # networks
THREADS = 2


def results(quick: bool, device: str = "cpu") -> Path:
    """Return where rows are kept; those of quick runs are not committed."""
    folder = _ROOT / "benchmarks" / "results" / ("quick" if quick else "")
    return folder if device == "cpu" else folder / device


def bank_of(workload: str, quick: bool) -> Path:
    """Return where a workload's data and truth are kept."""
    return _ROOT / "benchmarks" / "bank" / ("quick" if quick else "") / workload


def run_name() -> str:
    """Return the name of the run: what is measured, where. The same command continues it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(_ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    # Rows change as the run goes on; they are no change of what is measured.
    changed = git("status", "--porcelain", "--", "src", "benchmarks", ":!benchmarks/results")
    commit = git("rev-parse", "--short", "HEAD") or "unversioned"
    return f"{commit}{' with changes' if changed else ''} on {platform.node() or 'unnamed'}"


def built(workload: str, quick: bool, device: str = "cpu") -> None:
    """Prepare a workload's data and truth, in a process whose memory does not stay."""
    options = "" if device == "cpu" else ", device=sys.argv[4]"
    code = (
        "import sys; from importlib import import_module; from pathlib import Path;"
        "import_module('benchmarks.workloads.' + sys.argv[1])"
        f".build(Path(sys.argv[2]), sys.argv[3] == 'True'{options})"
    )
    bank = bank_of(workload, quick)
    command = [sys.executable, "-W", "ignore", "-c", code, workload, str(bank), str(quick), device]
    subprocess.run(command, check=True, env=_environment(THREADS), cwd=_ROOT)


def measure(
    method: Method,
    queries: str,
    *,
    setting: float | None,
    quick: bool,
    memory_mb: float,
    python: Path,
    device: str = "cpu",
) -> Row:
    """Run one method for one set of queries and return its row, whatever happens."""
    workload = import_module(f"benchmarks.workloads.{method.workload}")
    bank = bank_of(method.workload, quick)
    row = Row(
        library=method.library,
        version=version_of(method.library),
        method=method.name,
        workload=method.workload,
        queries=queries,
        n_queries=0,
        setting=setting,
        threads=THREADS,
        load=round(os.getloadavg()[0], 2),
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        work = Path(folder) / "work"
        out.mkdir()
        work.mkdir()
        spec = {
            "workload": method.workload,
            "library": method.library,
            "method": method.name,
            "queries": queries,
            "setting": setting,
            "threads": THREADS,
            # A GPU's driver reserves addresses far beyond the memory.
            "memory_mb": memory_mb if device == "cpu" else None,
            "device": device,
            "bank": str(bank),
            "out": str(out),
        }
        ended, errors = _run(python, spec, work, method.timeout)
        if ended is None:
            return replace(row, status="timeout", note=f"Stopped after {method.timeout:.0f} s.")
        if ended != 0 or not (out / "found.json").exists():
            return replace(row, status="failed", note=_reason(ended, errors))
        found = json.loads((out / "found.json").read_text())
        scores = np.load(out / "scores.npy")
        row = replace(row, n_queries=len(scores), **found)
        if not np.isfinite(scores).all():
            return replace(row, status="failed", note="The scores are not all finite.")
        return replace(row, accuracy=workload.accuracy(scores, queries, bank, method.unit))


def _run(python: Path, spec: Any, work: Path, timeout: float) -> tuple[int | None, str]:
    """Run the child in an empty folder; return its status, `None` past the time, and errors."""
    log = work.parent / "log.txt"
    command = [str(python), "-W", "ignore", "-m", "benchmarks.child", json.dumps(spec)]
    with log.open("w") as file:
        child = subprocess.Popen(
            command,
            cwd=work,
            env=_environment(THREADS),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return child.wait(timeout), log.read_text(errors="replace")
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _environment(threads: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    path = f"{_ROOT}{os.pathsep}{_ROOT / 'src'}"
    return {**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONPATH": path}


def _reason(ended: int, errors: str) -> str:
    lines = [line for line in errors.strip().splitlines() if line.strip()]
    if ended < 0:
        return f"Ended by signal {-ended} ({signal.Signals(-ended).name})."
    return (lines[-1] if lines else f"Ended with status {ended}.")[:300]


def compare(
    workloads: Sequence[str],
    *,
    libraries: Sequence[str] | None,
    quick: bool,
    fresh: bool,
    memory_mb: float,
    run_id: str | None = None,
    device: str = "cpu",
    methods: Sequence[str] | None = None,
    timeout: float | None = None,
) -> int:
    """Measure all that is asked for and not yet kept; return how many rows are not ok."""
    run_id = run_id or run_name()
    chosen = [
        replace(m, timeout=min(m.timeout, timeout or m.timeout))
        for m in METHODS
        if (libraries is None or m.library in libraries) and (methods is None or m.name in methods)
    ]
    wrong = 0
    for workload in workloads:
        module = import_module(f"benchmarks.workloads.{workload}")
        built(workload, quick, device)
        here = machine.described(THREADS, device)
        path = results(quick, device) / f"{workload}.jsonl"
        done = {row.key: row for row in rows.read(path) if row.run_id == run_id and not fresh}
        for method in [m for m in chosen if m.workload == workload]:
            python = python_of(method.library)
            broken = ""
            for queries in module.SETS:
                if not asks(module, method, queries):
                    continue
                row = done.get((method.library, method.name, queries))
                if row is None:
                    if broken:
                        row = _skipped(method, queries, broken)
                    else:
                        row = measure(
                            method,
                            queries,
                            setting=method.setting(),
                            quick=quick,
                            memory_mb=memory_mb,
                            python=python,
                            device=device,
                        )
                    row = replace(row, machine=here, run_id=run_id)
                    rows.keep(path, row)
                if row.status != "ok":
                    broken = f"Not tried: {queries} ended as {row.status}."
                    wrong += 1
                print(line(row), flush=True)
    return wrong


def asks(module: Any, method: Method, queries: str) -> bool:
    """Whether a workload puts a set to a method; all to all, unless it says otherwise."""
    chosen = getattr(module, "ASKED", {}).get(method.name)
    return chosen is None or queries in chosen


def _skipped(method: Method, queries: str, why: str) -> Row:
    return Row(
        library=method.library,
        version=version_of(method.library),
        method=method.name,
        workload=method.workload,
        queries=queries,
        n_queries=0,
        status="skipped",
        note=why,
        threads=THREADS,
    )


def line(row: Row) -> str:
    """Return a row as a line for a person."""
    start = f"{row.workload} {row.library:12} {row.method:28} {row.queries:14}"
    if row.status != "ok":
        return f"{start} {row.status}: {row.note}"
    agreement = "  ".join(f"{name} {value:.3g}" for name, value in row.accuracy.items())
    times = f"{row.prepare_s:7.2f} + {row.query_s:7.2f} s {row.peak_mb:6.0f} MB"
    return f"{start} {times}  {agreement}"


def main(arguments: Sequence[str]) -> int:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers", description=__doc__)
    parser.add_argument("workloads", nargs="*", default=[])
    parser.add_argument("--libraries", help="only these, separated by commas")
    parser.add_argument("--methods", nargs="+", help="only these; all by default")
    parser.add_argument("--timeout", type=float, help="seconds for each row, at most")
    parser.add_argument("--quick", action="store_true", help="small data: does everything run?")
    parser.add_argument("--fresh", action="store_true", help="measure again what this run has")
    parser.add_argument("--run-id", help="the run to begin or go on with; else the commit")
    parser.add_argument("--memory", type=float, help="GB for each method; else 85 %% of all")
    parser.add_argument("--device", default="cpu", help=f"cuda: {', '.join(ON_DEVICE)} on a GPU")
    options = parser.parse_args(arguments)
    unknown = set(options.workloads) - set(WORKLOADS)
    if unknown:
        parser.error(f"Expected workloads among {WORKLOADS}. Got {sorted(unknown)}.")
    if options.device != "cpu" and (wrong := set(options.workloads) - set(ON_DEVICE)):
        parser.error(f"Expected workloads among {ON_DEVICE} on a device. Got {sorted(wrong)}.")
    default = DEFAULT if options.device == "cpu" else ON_DEVICE
    memory = options.memory or 0.85 * machine.physical_memory() / 2**30
    failed = compare(
        options.workloads or default,
        libraries=options.libraries.split(",") if options.libraries else None,
        quick=options.quick,
        fresh=options.fresh,
        memory_mb=memory * 1024,
        run_id=options.run_id,
        device=options.device,
        methods=options.methods,
        timeout=options.timeout,
    )
    print(f"{failed} rows did not end well; the rows say why." if failed else "All ended well.")
    return 0
