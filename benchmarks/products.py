"""What one product with the curvature of a network costs, beside its floating-point operations.

An MLP 784-128-10 on n = 20,000 rows, float32. A Hessian-vector product over all rows needs the
forward and the backward pass and the tangent of each: 12 n p operations, set against the rate of a
large matrix product measured in the same run.

Run it with `python -m benchmarks.products`; seconds on two cores.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

import whence
from benchmarks.linear import peak_gigabytes, timed

N, COLUMNS, REPEATS = 20_000, 16, 3


def measured() -> dict[str, float]:
    """Return seconds and their ratios; the best of three each."""
    torch.manual_seed(0)
    a = torch.randn(2500, 2500)
    rate = 2 * 2500**3 / min(timed(lambda: a @ a)[1].wall for _ in range(5))
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    data = torch.randn(N, 784), torch.randint(10, (N,))
    objective = whence.from_torch(model, whence.CrossEntropy(), data)
    p = len(objective.params)
    block = torch.randn(p, COLUMNS)
    floor = 12 * N * p / rate
    one = min(timed(lambda: objective.hvp(block[:, :1]))[1].wall for _ in range(REPEATS))
    many = min(timed(lambda: objective.hvp(block))[1].wall for _ in range(REPEATS))
    gauss = min(timed(lambda: objective.ggnvp(block[:, :1]))[1].wall for _ in range(REPEATS))
    return {
        "threads": torch.get_num_threads(),
        "float32 rate, GFLOP/s": rate / 1e9,
        "floor of one Hessian-vector product, s": floor,
        "one Hessian-vector product, s": one,
        "times the floor": one / floor,
        "16 columns at once over 16 products": many / (COLUMNS * one),
        "one Gauss-Newton product, s": gauss,
        "peak memory, GB": peak_gigabytes(),
    }


def main() -> None:
    """Print the numbers and keep them."""
    row = measured()
    for name, value in row.items():
        print(f"{name:<42} {value:.4g}")
    path = Path(__file__).parent / "results" / "products.json"
    path.write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
