"""One method on one case, in a process of its own, so that its memory is its own."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import whence
from benchmarks.attribution.cases import BANK, CASES, Case
from benchmarks.attribution.ladder import Explained, Values, scores_of
from benchmarks.machine import device_peak_bytes, wait_for

TRAINING = "training"
_BUSY = 0.1  # share of the time spent waiting for a processor from which a timing is not believed


def scores_file(case: Case, method: str, bank: Path = BANK) -> Path:
    """Return where the scores of a method are kept."""
    return bank / f"{case.name}-scores" / f"{method.replace(' ', '-').replace(',', '')}.npy"


def measure(case: Case, method: str, bank: Path = BANK) -> dict[str, Any]:
    """Compute the scores of a method once and keep them; return its time and memory."""
    it = Explained(case, bank)
    path = scores_file(case, method, bank)
    if method != TRAINING:
        # A walk back that was interrupted goes on where it was, and would be timed in part.
        shutil.rmtree(bank / f"{case.name}-runs" / "0" / "reverse", ignore_errors=True)
        assert it.run.steps  # trained, or read, before the clock starts
    wait_for(case.device)  # its start is no method's time
    start, waited = time.perf_counter(), _waited()
    values: Values | None = None
    if method == TRAINING:
        start_of = case.model(0).to(case.device)
        whence.train(start_of, whence.CrossEntropy(), it.train, case.recipe(0))
    else:
        values = scores_of(method, it)
    wait_for(case.device)
    seconds = time.perf_counter() - start
    if values is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp.npy")
        np.save(unfinished, values.astype(np.float32))
        os.replace(unfinished, path)
    return {
        "seconds": seconds,
        "busy": (_waited() - waited) > _BUSY * seconds,
        "peak_gib": _peak_bytes(case.device) / 2**30,
        "threads": torch.get_num_threads(),
    }


def measured_apart(case: Case, method: str, bank: Path) -> dict[str, Any]:
    """Do the same in a new process."""
    command = [sys.executable, "-m", "benchmarks.attribution.measure", case.name, method]
    command += ["--bank", str(bank), "--device", case.device]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak_bytes(device: str) -> int:
    """Return the peak memory of the process, or of the device that is not the CPU."""
    if device != "cpu":
        return device_peak_bytes(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10


def _waited() -> float:
    """Return the seconds that this process was ready to run and others ran; 0 if unknown."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def main() -> None:
    """Measure, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("method")
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    case = replace(CASES[options.case], device=options.device)
    print(json.dumps(measure(case, options.method, options.bank)))


if __name__ == "__main__":
    main()
