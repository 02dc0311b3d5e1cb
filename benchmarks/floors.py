"""The least time that arithmetic and memory allow, at the rates measured in the same run."""

from __future__ import annotations

from typing import Any

N, D, C = 55_000, 784, 10
P = D * C


def w1(machine: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Return (what, how it is counted, seconds) for W1."""
    double, bandwidth = machine["float64_gflops"] * 1e9, machine["bandwidth_gbs"] * 1e9
    single = machine["float32_gflops"] * 1e9
    factor = C * (C + 1) * N * D**2 + P**3 / 3
    scores = 2 * P**2 * 1000 + 2 * N * P * 1000
    kronecker = 2 * N * D**2 + 2 * N * P * 1000
    return [
        (
            "exact, 1 query",
            "X read once as float64, n d × 8 bytes ÷ bandwidth",
            N * D * 8 / bandwidth,
        ),
        (
            "exact by a factor, 1,000 queries",
            "C(C+1) n d² + p³/3 + 2p² q + 2 n p q operations ÷ float64 rate",
            (factor + scores) / double,
        ),
        (
            "EK-FAC, 1,000 queries",
            "2 n d² for the covariance and 2 n p q for the scores ÷ float32 rate",
            kronecker / single,
        ),
    ]


def w2(machine: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Return (what, how it is counted, seconds) for W2."""
    n, q, layers = 5000, 200, ((785, 256), (257, 128), (129, 10))
    single = machine["float32_gflops"] * 1e9
    backward = 10  # directions of the outputs
    passes = sum(2 * n * a * g * (1 + 2 * backward) for a, g in layers)
    factors = sum(2 * n * (a * a + backward * g * g) for a, g in layers)
    eigen = sum(9 * (a**3 + g**3) for a, g in layers)
    corrections = sum(2 * n * (a * a + backward * (g * g + a * g)) for a, g in layers)
    scores = sum(2 * n * q * a * g for a, g in layers)
    return [
        (
            "EK-FAC, all directions",
            "passes, covariances, eigenvectors and corrections ÷ float32 rate",
            (passes + factors + eigen + corrections) / single,
        ),
        (
            "scores of 200 queries, not separable",
            "2 n q p operations ÷ float32 rate",
            scores / single,
        ),
    ]


FLOORS = {"w1": w1, "w2": w2}
