"""What an experiment leaves behind: its numbers, its figure, and its row of the table."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from whence.storage import make_folder, write_bytes

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
_TABLE = re.compile(r"(<!-- table -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A number to reach.

    Args:
        name: What is measured.
        value: What was measured.
        bar: What it must be, in words.
        met: Whether it is.
    """

    name: str
    value: float
    bar: str
    met: bool

    @staticmethod
    def at_least(name: str, value: float, least: float) -> Bar:
        return Bar(name=name, value=value, bar=f">= {least:g}", met=value >= least)

    @staticmethod
    def near(name: str, value: float, target: float, within: float) -> Bar:
        met = abs(value - target) <= within
        return Bar(name=name, value=value, bar=f"{target:g} ± {within:g}", met=met)


@dataclass(frozen=True, kw_only=True)
class Request:
    """How an experiment is to be run.

    Args:
        quick: In its quick form.
        workers: Processes among which its items are divided, where it has items.
        device: Where its frozen networks run.
    """

    quick: bool = False
    workers: int = 1
    device: str = "cpu"


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """What one run of an experiment found.

    Args:
        metrics: Named numbers, and what a reader of them must know.
        bars: The numbers to reach.
        figure: The figure.
    """

    metrics: dict[str, Any]
    bars: tuple[Bar, ...]
    figure: Figure


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment of the paper.

    Args:
        id: Its name on the command line.
        title: What it shows.
        paper: What the paper found.
        run: Runs it: `run(request)`.
        seed: Of all its randomness.
    """

    id: str
    title: str
    paper: str
    run: Callable[[Request], Outcome]
    seed: int = 0

    @property
    def command(self) -> str:
        return f"whence paper {self.id}"


def write(experiment: Experiment, outcome: Outcome, minutes: float, *, quick: bool) -> Path:
    """Write `<id>.json` and `<id>.png`, quick runs apart from the full ones; return the JSON."""
    folder = RESULTS / "quick" if quick else RESULTS
    make_folder(folder)
    drawn = io.BytesIO()
    outcome.figure.savefig(drawn, format="png", dpi=110, bbox_inches="tight")
    write_bytes(folder / f"{experiment.id}.png", drawn.getbuffer())
    target = folder / f"{experiment.id}.json"
    content = {
        "id": experiment.id,
        "title": experiment.title,
        "metrics": outcome.metrics,
        "bars": [asdict(bar) for bar in outcome.bars],
        "seed": experiment.seed,
        "minutes": round(minutes, 2),
        "command": experiment.command + (" --quick" if quick else ""),
        "quick": quick,
    }
    write_bytes(target, (json.dumps(content, indent=1) + "\n").encode())
    return target


def table(experiments: tuple[Experiment, ...]) -> str:
    """Return the rows of all experiments with a committed result, as markdown."""
    lines = [
        "| figure | the paper | ours | bar met | seed | minutes | command |",
        "|---|---|---|---|---|---|---|",
    ]
    for experiment in experiments:
        path = RESULTS / f"{experiment.id}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        ours = "; ".join(
            f"{bar['name']} {bar['value']:.4g} ({bar['bar']})" for bar in found["bars"]
        )
        met = sum(bar["met"] for bar in found["bars"])
        state = "yes" if met == len(found["bars"]) else f"{met} of {len(found['bars'])}"
        lines.append(
            f"| [{experiment.id}](results/{experiment.id}.png): {found['title']} "
            f"| {experiment.paper} | {ours} | {state} | {found['seed']} | {found['minutes']:g} "
            f"| `{found['command']}` |"
        )
    return "\n".join(lines)


def rebuild_readme(experiments: tuple[Experiment, ...]) -> None:
    """Put the table of the committed results into this folder's README."""
    path = FOLDER / "README.md"
    text = path.read_text()
    rows = table(experiments)
    path.write_text(_TABLE.sub(lambda match: f"{match[1]}{rows}\n{match[2]}", text))
