"""What `python -m tests.mutation --record` found, and the table of it in the documentation.

python -m tests.mutants --page docs/explanation/reliability.md

tests/mutants.json has the last run of each package and seed, and for each mutation that survived
what was decided on reading it, which is written by hand: "equivalent: " and why it changes no
answer, "test: " and the one that catches it now, "deleted: " and what code, or "open".
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.between import between

START, END = "<!-- mutants -->", "<!-- end of mutants -->"
_FILE = Path(__file__).with_suffix(".json")
_COLUMNS = ("package", "drawn", "caught", "equivalent", "closed since", "open", "seed", "day")


def record(package: str, seed: int, drawn: int, survivors: Sequence[str]) -> None:
    """Write the run of a package over that of its seed; decisions on the same mutations stay."""
    runs = json.loads(_FILE.read_text(encoding="utf-8")) if _FILE.exists() else {}
    another = runs.get(package, {}).get("seed", seed) != seed
    name = f"{package}, seed {seed}" if another else package
    known = runs.get(name, {}).get("survivors", {})
    git = ["git", "rev-parse", "--short", "HEAD"]
    runs[name] = {
        "seed": seed,
        "drawn": drawn,
        "day": date.today().isoformat(),
        "commit": subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip(),
        "survivors": {each: known.get(each, "open") for each in survivors},
    }
    text = json.dumps(dict(sorted(runs.items())), indent=1, ensure_ascii=False)
    _FILE.write_text(text + "\n", encoding="utf-8")


def _counts(run: dict[str, Any]) -> list[int]:
    """Return how many of a run were drawn, caught, equivalent, closed since, and are open."""
    decisions = [text.partition(":")[0] for text in run["survivors"].values()]
    equivalent, still = decisions.count("equivalent"), decisions.count("open")
    closed = len(decisions) - equivalent - still
    return [run["drawn"], run["drawn"] - len(decisions), equivalent, closed, still]


def table() -> str:
    """Return the table of the recorded runs and the two shares of all of them."""
    runs = json.loads(_FILE.read_text(encoding="utf-8"))
    counts = {package: _counts(run) for package, run in runs.items()}
    drawn, caught, equivalent, closed, still = (
        sum(each) for each in zip(*counts.values(), strict=True)
    )
    rows = [
        _COLUMNS,
        ("---", *["---:"] * (len(_COLUMNS) - 1)),
        *((name.split(",")[0], *counts[name], r["seed"], r["day"]) for name, r in runs.items()),
        ("all", drawn, caught, equivalent, closed, still, "", ""),
    ]
    changing = drawn - equivalent
    return "\n".join(
        [
            *("| " + " | ".join(map(str, row)) + " |" for row in rows),
            "",
            f"Of the {changing} that change an answer the tests caught {caught / changing:.0%} when"
            f" they were drawn, and {(caught + closed) / changing:.0%} with the tests added since.",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, help="put the table into this page")
    options = parser.parse_args()
    print(table())
    if options.page:
        text = options.page.read_text(encoding="utf-8")
        written = between(text, START, END, f"\n{table()}\n")
        options.page.write_text(written, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
