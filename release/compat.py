"""Environments with the oldest and the newest of what whence needs, of each Python: `make compat`.

Each gets whence's own source on its path and runs `release.works`, which fits, explains and refits
a model of each kind. Needs uv, which finds or brings each Python; what cannot be had is said. For
the first release of each Python it asks whether what `make install` pins can be installed there
without a compiler. The results go into benchmarks/results/compat.json and
docs/explanation/versions.md.
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
_EXTRAS = ("dev", "docs", "experiments")  # what `make install` installs
_SOURCE_ONLY = "autograd-gamma"  # has no wheel; it is Python alone


def requirements() -> list[str]:
    """Return what whence needs, as pyproject.toml says it."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = text.split("dependencies = [")[1].split("]")[0]
    return re.findall(r'"([\w.-]+>=[\w.]+)"', listed)


def uv_command() -> str:
    """Return the uv of the path, or of this environment."""
    return shutil.which("uv") or str(Path(sys.executable).with_name("uv"))


def pinned(python: str) -> str:
    """Return "yes", or why what `make install` pins cannot be installed on a release of Python."""
    command = [uv_command(), "pip", "compile", "--quiet", "--python-version", python]
    command += ["--constraint", "constraints.txt", "--only-binary", ":all:"]
    command += ["--no-binary", _SOURCE_ONLY, "pyproject.toml"]
    command += [part for extra in _EXTRAS for part in ("--extra", extra)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        causes = [line for line in done.stderr.splitlines() if "cause:" in line]
        return causes[0].split("cause:")[1].strip() if causes else "no: see the output"
    return "yes"


def tried(python: str, which: str, torch: str | None) -> dict[str, Any]:
    """Return what came of one environment."""
    uv = uv_command()
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


def written(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    pins = results["pins"]
    found = [python for python, answer in pins.items() if answer == "yes"]
    lines = [f"What `make install` pins is found, without a compiler, for {', '.join(found)}."]
    lines += [
        f"It is not for {python}: {answer}" for python, answer in pins.items() if answer != "yes"
    ]
    return table(results["environments"]) + "\n" + "\n".join(lines) + "\n"


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return what came of the environments as a table."""
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
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    environments = results["environments"]
    for python in options.python or PYTHONS:
        results["pins"][f"{python}.0"] = pinned(f"{python}.0")
        _keep(results)
        for which in [options.only] if options.only else ["oldest", "newest"]:
            print(f"Python {python}, {which} ...", flush=True)
            environments[f"{python} {which}"] = tried(python, which, options.torch)
            print(json.dumps(environments[f"{python} {which}"]), flush=True)
            _keep(results)
    failed = [
        check
        for result in environments.values()
        for check, value in result.get("checks", {}).items()
        if not isinstance(value, float)
    ]
    return bool(failed) or set(results["pins"].values()) != {"yes"}


def _keep(results: dict[str, Any]) -> None:
    """Write the results and the page, in the order of Python's releases."""
    results["pins"] = dict(sorted(results["pins"].items(), key=lambda item: _order(item[0])))
    results["environments"] = dict(
        sorted(results["environments"].items(), key=lambda item: _order(item[0]))
    )
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(between(page, _START, _END, written(results)), encoding="utf-8")


def _order(name: str) -> tuple[int, str]:
    """Return the minor version, and the oldest packages before the newest."""
    return int(name.split(" ")[0].split(".")[1]), name[::-1]


if __name__ == "__main__":
    sys.exit(main())
