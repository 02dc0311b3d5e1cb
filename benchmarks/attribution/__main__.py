"""The leaderboard: how well does each method predict retraining, and what does it cost?

    python -m benchmarks.attribution [case ...] [--quick] [--retime] [--methods ...]

A metagradient walks back through steps as they were rounded: it takes as many threads
(OMP_NUM_THREADS) as the training that is kept had, one where a bank was built first.

Retrainings and scores lie under benchmarks/bank/, numbers under benchmarks/attribution/results/; an
interrupted run goes on where it was. The full form ends with the table and the figure of
docs/explanation/leaderboard.md. It needs WHENCE_DATA, except for the case `digits`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attribution.cases import BANK, CASES, Case, quick
from benchmarks.attribution.ladder import METHODS, USUAL
from benchmarks.attribution.measure import TRAINING, measure, measured_apart, scores_file
from benchmarks.attribution.paired import Judge, interval
from benchmarks.attribution.table import write_page
from benchmarks.machine import name_of
from whence.evaluation import RetrainingEnsemble, lds, noise_ceiling

RESULTS = Path(__file__).parent / "results"
_WORKERS = 2  # retrainings at a time


def judged(values: Any, truth: RetrainingEnsemble) -> dict[str, Any]:
    """Return the LDS of scores of the first queries of a bank."""
    found = lds(values, truth.masks, truth.outcomes[:, :, : len(values)])
    return {"mean": found.mean, "interval": list(found.interval)}


def beyond(values: Any, others: Any, truth: RetrainingEnsemble) -> list[float]:
    """Return the LDS beyond that of others on the same queries, and the ends of its interval."""
    judge = Judge(truth.masks.numpy(), truth.outcomes[:, :, : len(values)].numpy())
    return interval(judge.lds(values) - judge.lds(others[: len(values)]))


def described(truth: RetrainingEnsemble, kept: float, device: str) -> dict[str, Any]:
    """Return what a bank is, and how far a perfect predictor would come."""
    seeds, subsets, queries = truth.outcomes.shape
    ceiling = noise_ceiling(truth.outcomes).mean if seeds > 1 else None
    sizes = {"kept": kept, "subsets": subsets, "seeds": seeds, "queries": queries}
    return {**sizes, "ceiling": ceiling, "device": device}


def run(
    case: Case,
    methods: list[str],
    results: Path,
    bank: Path,
    *,
    retime: bool = False,
    apart: bool = True,
) -> dict[str, Any]:
    """Fill the results of a case, method by method, and return them."""
    path = results / f"{case.name}.json"
    device = name_of(case.device)
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    # On another device there were other trainings, and other times.
    record = kept if kept.get("device", "") == device else {}
    record |= {"rows": record.get("rows", {})}
    record |= {"label": case.label, "title": case.title, "left_out": case.skipped}
    record["device"] = device
    workers = _WORKERS if apart else 1
    truths = {protocol.name: case.truth(protocol, bank, workers) for protocol in case.protocols}
    record["protocols"] = {
        protocol.name: described(
            truths[protocol.name], protocol.kept, case.retrained_on(protocol, bank)
        )
        for protocol in case.protocols
    }
    rows = record["rows"]
    for method in [TRAINING, *methods]:
        if method in case.skipped:
            continue
        row = rows.get(method)
        scores = scores_file(case, method, bank)
        known = row is not None and (method == TRAINING or scores.exists())
        if not known or (retime and row["busy"]):
            rows[method] = row = (measured_apart if apart else measure)(case, method, bank)
        if method != TRAINING:
            values = np.load(scores).astype(np.float64)
            row["queries"] = len(values)
            row["lds"] = {name: judged(values, truth) for name, truth in truths.items()}
            usual = scores_file(case, USUAL, bank)
            if len(values) < len(case.data()[1][0]) and usual.exists():
                others = np.load(usual).astype(np.float64)
                row["beyond"] = {name: beyond(values, others, t) for name, t in truths.items()}
        _print(method, row)
        _write(path, record)
    return record


def _print(method: str, row: dict[str, Any]) -> None:
    """Print one row."""
    found = "  ".join(f"{name} {one['mean']:.3f}" for name, one in row.get("lds", {}).items())
    busy = "*" if row["busy"] else " "
    print(
        f"{method:<30}{row['seconds']:8.1f} s{busy} {row['peak_gib']:5.1f} GiB  {found}", flush=True
    )


def _write(path: Path, record: dict[str, Any]) -> None:
    """Write the results whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    os.replace(unfinished, path)


def main() -> None:
    """Fill the leaderboard."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attribution",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", help=f"among {', '.join(CASES)}; all by default")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--quick", action="store_true", help="seconds per case; keeps nothing")
    parser.add_argument(
        "--retime", action="store_true", help="measure again what was timed on a busy machine"
    )
    parser.add_argument("--device", default="cpu", help="cuda: train and explain on a GPU")
    parser.add_argument("--page", action="store_true", help="only write the page from the results")
    options = parser.parse_args()
    for name in options.cases:
        if name not in CASES:
            parser.error(f"Expected one of {', '.join(CASES)}. Got {name!r}.")
    names = options.cases or CASES
    chosen = [replace(CASES[name], device=options.device) for name in names]
    with tempfile.TemporaryDirectory() as scratch:
        for case in [] if options.page else chosen:
            print(f"== {case.title}{', quick form' if options.quick else ''}", flush=True)
            if options.quick:
                folder = Path(scratch)
                short = quick(case)
                run(short, options.methods, folder, folder, apart=False)
            else:
                # In one process on a GPU, whose memory is measured apart from the process's.
                apart = options.device == "cpu"
                run(case, options.methods, RESULTS, BANK, retime=options.retime, apart=apart)
    if not options.quick:
        write_page(RESULTS, list(CASES))


if __name__ == "__main__":
    main()
