"""Run benchmarks: `python -m benchmarks [name ...]`, all of them by default."""

from __future__ import annotations

import argparse
import subprocess
import sys

NAMES = ("orders", "linear", "products", "attribution.deterministic", "attribution")


def main() -> int:
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
