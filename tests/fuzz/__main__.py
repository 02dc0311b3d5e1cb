"""The fuzz for as long as it is told to: `make fuzz`. Prints every kind of failure once."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import commands, steps
from tests.fuzz.calls import CALLS, FOLDER, OPTIONS
from tests.fuzz.methods import METHODS

_AT_ONCE = 20  # examples of one kind before the next is taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--only", default="", help="names that contain this")
    options = parser.parse_args()
    kinds = [(step, name) for step in steps.OF_CALLS for name in (*CALLS, *METHODS)]
    kinds += [(steps.option, name) for name in OPTIONS]
    kinds += [(step, name) for step in commands.OF_COMMANDS for name in commands.COMMANDS]
    kinds = [(step, name) for step, name in kinds if options.only in name]
    generator = random.Random(options.seed)
    os.chdir(FOLDER)  # some texts are names of files
    end = time.monotonic() + 60 * options.minutes
    failures, calls = Counter[str](), 0

    def batch(step: Any, name: str, start: int) -> None:
        nonlocal calls

        @seed(start)
        @settings(
            max_examples=_AT_ONCE,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(data=st.data())
        def one(data: Any) -> None:
            nonlocal calls
            calls += 1
            try:
                step(name, data)
            except AssertionError as error:
                message = " ".join(str(error).split())
                failures[message] += 1
                if failures[message] == 1:
                    print(f"{step.__name__}: {message:.400}", flush=True)

        one()

    while time.monotonic() < end:
        batch(*generator.choice(kinds), generator.randrange(2**32))
    print(f"{calls} calls, seed {options.seed}: {len(failures)} kinds of failure.")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
