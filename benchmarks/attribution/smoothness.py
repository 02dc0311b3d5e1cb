"""How the choices of a training decide whether first order can predict it.

The perceptron of `deterministic` on 1,000 small digits, one choice changed at a time: for each, the
metasmoothness, which needs no query, and the LDS of metagradients with 1 and 5 % removed. Run with
`python -m benchmarks.attribution.smoothness`; it puts its table into docs/how-to/evaluate.md. A
minute on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import whence
from benchmarks.attribution.deterministic import RECIPE, agreement, digits, mlp
from benchmarks.between import between

_PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "evaluate.md"
_START, _END = "<!-- smoothness: written by the command -->", "<!-- end -->"
_HEADS = (
    "training",
    "accuracy",
    "metasmoothness, 1 %",
    "5 %",
    "LDS of metagradient, 1 %",
    "5 %",
)

# What differs from tanh, SGD 0.02 with momentum 0.9, cosine, batches of 50, 30 epochs.
_ADAM = {"optimizer": "adam", "momentum": 0.0, "learning_rate": 0.003}
CHOICES: Mapping[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "tanh, rate 0.02 (cosine), batches of 50": (nn.Tanh, {}),
    "rate 0.005": (nn.Tanh, {"learning_rate": 0.005}),
    "rate 0.1": (nn.Tanh, {"learning_rate": 0.1}),
    "rate 0.3": (nn.Tanh, {"learning_rate": 0.3}),
    "constant rate": (nn.Tanh, {"schedule": "constant"}),
    "batches of 10": (nn.Tanh, {"batch_size": 10}),
    "batches of 200, rate 0.08": (nn.Tanh, {"batch_size": 200, "learning_rate": 0.08}),
    "ReLU": (nn.ReLU, {}),
    "ReLU, rate 0.1": (nn.ReLU, {"learning_rate": 0.1}),
    "GELU": (nn.GELU, {}),
    "Adam, rate 0.003": (nn.Tanh, _ADAM),
    "Adam, rate 0.003, eps_root 1e-6": (nn.Tanh, {**_ADAM, "eps_root": 1e-6}),
}


def network(activation: type[nn.Module]) -> nn.Module:
    """Return the perceptron at its start, with another activation."""
    layers = [activation() if isinstance(layer, nn.Tanh) else layer for layer in mlp(16).children()]
    return nn.Sequential(*layers)


def row(activation: type[nn.Module], changes: dict[str, Any], subsets: int) -> list[str]:
    """Return the numbers of one training."""
    data, queries = digits()
    recipe = replace(RECIPE, **changes)
    run = whence.train(network(activation), whence.CrossEntropy(), data, recipe)
    with torch.no_grad():
        right = run.program.outputs(run.params, queries[0]).argmax(1) == queries[1]
    scores = torch.from_numpy(whence.metagradient(run, queries).values)
    fractions = (0.01, 0.05)
    smooth = [whence.metasmoothness(run, fraction=fraction).mean for fraction in fractions]
    found = [agreement(run, scores, queries, fraction, subsets)[0] for fraction in fractions]
    return [f"{float(right.float().mean()):.2f}", *(f"{value:.3f}" for value in smooth + found)]


def put(lines: list[list[str]]) -> None:
    """Put a table into the page."""
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    _PAGE.write_text(between(_PAGE.read_text(), _START, _END, f"\n\n{table}\n\n"))


def main() -> None:
    """Print the table, and put it into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subsets", type=int, default=50, help="subsets for each fraction")
    options = parser.parse_args()
    lines = [list(_HEADS), ["---", *["---:"] * (len(_HEADS) - 1)]]
    for name, (activation, changes) in CHOICES.items():
        lines.append([name, *row(activation, changes, options.subsets)])
        print(*lines[-1], sep="  ", flush=True)
    put(lines)


if __name__ == "__main__":
    main()
