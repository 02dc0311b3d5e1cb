"""Run experiments: `python -m experiments.koh_liang_2017 [id ...] [--quick] [--list]`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")

from experiments.koh_liang_2017 import a, f1, f2a, f2b, f2c, f3, f4, f5a, f5b, f5c, f5d, s53, s54
from experiments.koh_liang_2017.record import Request, rebuild_readme, write

EXPERIMENTS = tuple(
    module.EXPERIMENT for module in (f1, f2a, f2b, f2c, f3, f4, f5a, f5b, f5c, f5d, s53, s54, a)
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named experiments, all of them by default; return how many bars were missed."""
    parser = argparse.ArgumentParser(prog="whence paper", description=__doc__)
    parser.add_argument("ids", nargs="*", help="experiments to run; all by default")
    parser.add_argument("--quick", action="store_true", help="a form of at most two minutes each")
    parser.add_argument("--workers", type=int, default=1, help="processes for items; 1 by default")
    parser.add_argument("--device", default="cpu", help="of frozen networks; cpu by default")
    parser.add_argument("--list", action="store_true", help="list them and stop")
    asked = parser.parse_args(arguments)
    known = {experiment.id: experiment for experiment in EXPERIMENTS}
    if asked.list:
        for experiment in EXPERIMENTS:
            print(f"{experiment.id:<6} {experiment.title}")
        return 0
    unknown = [name for name in asked.ids if name not in known]
    if unknown:
        parser.error(f"Expected one of {', '.join(known)}. Got {unknown[0]!r}.")
    request = Request(quick=asked.quick, workers=asked.workers, device=asked.device)
    missed = 0
    for name in asked.ids or known:
        experiment = known[name]
        start = time.perf_counter()
        outcome = experiment.run(request)
        minutes = (time.perf_counter() - start) / 60
        path = write(experiment, outcome, minutes, quick=asked.quick)
        print(f"{experiment.id}: {experiment.title} ({minutes:.1f} minutes) -> {path}")
        for bar in outcome.bars:
            missed += not bar.met
            state = "met" if bar.met else "MISSED"
            print(f"  {state:<6} {bar.name}: {bar.value:.5g}, to be {bar.bar}")
    if not asked.quick:
        rebuild_readme(EXPERIMENTS)
    return missed


if __name__ == "__main__":
    sys.exit(min(main(), 1))
