"""Choose every method's setting: each of its three is tried once, on what is not scored.

`python -m benchmarks tune [w1 w2]`. W1: 20 other queries, the highest Pearson correlation with
exact influence. W2: 100 other queries on 20 other random halves, the highest LDS. The choice goes
to `results/settings.json`, every trial to `results/trials.jsonl`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace

from benchmarks import machine, rows
from benchmarks.compare import built, line, measure, results, run_name
from benchmarks.environments import python_of
from benchmarks.methods import METHODS

_JUDGED_BY = {"w1": "pearson", "w2": "LDS"}


def main(arguments: Sequence[str]) -> int:
    """Try, choose and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks tune", description=__doc__)
    parser.add_argument("workloads", nargs="*", default=[])
    parser.add_argument("--libraries", help="only these, separated by commas")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    libraries = options.libraries.split(",") if options.libraries else None
    memory = 0.85 * machine.physical_memory() / 2**20
    folder, run_id = results(options.quick), run_name()
    trials, chosen_path = folder / "trials.jsonl", folder / "settings.json"
    chosen = json.loads(chosen_path.read_text()) if chosen_path.exists() else {}
    for workload in options.workloads or _JUDGED_BY:
        built(workload, options.quick)
        for method in METHODS:
            wanted = libraries is None or method.library in libraries
            if method.workload != workload or len(method.settings) < 2 or not wanted:
                continue
            best = float("-inf")
            for setting in method.settings:
                row = measure(
                    # Only accuracy is judged: a busy machine must not decide the search.
                    replace(method, timeout=3 * method.timeout),
                    "tuning",
                    setting=setting,
                    quick=options.quick,
                    memory_mb=memory,
                    python=python_of(method.library),
                )
                print(f"{setting:6g}", line(row), flush=True)
                # A trial is named by its setting, so that all three stay.
                name = f"{workload}, setting {setting:g}"
                rows.keep(trials, replace(row, queries=name, run_id=run_id))
                score = row.accuracy.get(_JUDGED_BY[workload], float("-inf"))
                if score > best:
                    best = score
                    chosen[f"{workload} {method.library} {method.name}"] = setting
        chosen_path.write_text(json.dumps(dict(sorted(chosen.items())), indent=1) + "\n")
    return 0
