"""Run benchmarks: `python -m benchmarks [name ...]`, all of whence's own by default.

`python -m benchmarks peers` runs whence beside its peers, `tune` chooses the settings of all,
`page` draws docs/explanation/benchmarks.md from the committed rows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib import import_module

NAMES = ("orders", "linear", "products", "attribution.deterministic", "attribution")


COMMANDS = {"peers": "compare", "tune": "tune", "page": "page", "growth": "growth"}


def main() -> int:
    """Run a command, or each named benchmark in a process of its own; return how many failed."""
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        command = import_module(f"benchmarks.{COMMANDS[sys.argv[1]]}")
        status: int = command.main(sys.argv[2:])
        return status
    return run_names()


def run_names() -> int:
    """Run each named benchmark in a process of its own; return how many failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"among {', '.join(NAMES)}")
    failed = 0
    for name in parser.parse_args().names or NAMES:
        if name not in NAMES:
            parser.error(f"Expected one of {', '.join(NAMES)}. Got {name!r}.")
        print(f"== {name}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
