"""Environments with the oldest and the newest of what whence needs, of each Python: `make compat`.

Each gets whence's own source on its path and runs `release.works`, which fits, explains and refits
a model of each kind. Needs uv, which finds or brings each Python; what cannot be had is said. The
results go into benchmarks/results/compat.json and docs/explanation/versions.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.between import between
from release.build import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "compat.json"
PAGE = ROOT / "docs" / "explanation" / "versions.md"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
_START, _END = "<!-- make compat -->\n", "<!-- end -->"


def requirements() -> list[str]:
    """Return what whence needs, as pyproject.toml says it."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = text.split("dependencies = [")[1].split("]")[0]
    return re.findall(r'"([\w.-]+>=[\w.]+)"', listed)


def tried(python: str, which: str, torch: str | None) -> dict[str, Any]:
    """Return what came of one environment."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    with tempfile.TemporaryDirectory() as folder:
        there = f"{folder}/env/bin/python"
        resolution = "lowest-direct" if which == "oldest" else "highest"
        wanted = requirements()  # a lowest-direct resolution takes the lower bounds
        if torch:
            wanted = [torch if each.startswith("torch>") else each for each in wanted]
        steps = (
            [uv, "venv", "--quiet", "--python", python, f"{folder}/env"],
            [
                uv,
                "pip",
                "install",
                "--quiet",
                "--python",
                there,
                "--resolution",
                resolution,
                "--only-binary",
                ":all:",
            ]
            + wanted,
        )
        for step, missing in zip(steps, ("no such Python here", "no such versions"), strict=True):
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                return {"refused": missing}
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        environment["OMP_NUM_THREADS"] = "2"
        done = subprocess.run(
            [there, "-m", "release.works"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return {"refused": done.stderr.strip()[-300:]}
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| Python | versions | NumPy | pandas | SciPy | scikit-learn | torch | checks that hold |",
        "|---|---|---|---|---|---|---|---:|",
    ]
    for name, result in results.items():
        python, which = name.split(" ")
        if "refused" in result:
            lines.append(
                f"| {python} | {which} | – | – | – | – | – | not run: {result['refused']} |"
            )
            continue
        versions = [result["versions"][each] for each in _COLUMNS]
        held = sum(isinstance(value, float) for value in result["checks"].values())
        counts = f"{held} of {len(result['checks'])}"
        lines.append(f"| {result['python']} | {which} | {' | '.join(versions)} | {counts} |")
    return "\n".join(lines) + "\n"


_COLUMNS = ("numpy", "pandas", "scipy", "sklearn", "torch")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", help="only these; all by default")
    parser.add_argument("--only", choices=("oldest", "newest"))
    parser.add_argument("--torch", help="a requirement in place of the newest torch")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for python in options.python or PYTHONS:
        for which in [options.only] if options.only else ["oldest", "newest"]:
            print(f"Python {python}, {which} ...", flush=True)
            results[f"{python} {which}"] = tried(python, which, options.torch)
            print(json.dumps(results[f"{python} {which}"]), flush=True)
            ordered = dict(sorted(results.items(), key=lambda item: _order(item[0])))
            RESULTS.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
            page = PAGE.read_text(encoding="utf-8")
            written = between(page, _START, _END, table(ordered))
            PAGE.write_text(written, encoding="utf-8")
    failed = [
        check
        for result in results.values()
        for check, value in result.get("checks", {}).items()
        if not isinstance(value, float)
    ]
    return bool(failed)


def _order(name: str) -> tuple[int, str]:
    return int(name.split(" ")[0].split(".")[1]), name.split(" ")[1][::-1]


if __name__ == "__main__":
    sys.exit(main())
