"""How well scores agree with the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

_RANKED = 50  # queries whose 55,000 scores are ranked


def against(scores: NDArray[Any], truth: NDArray[Any], *, unit: bool) -> dict[str, float]:
    """Compare scores [q, n] with the truth over all training examples, query by query.

    Args:
        scores: In whence's sign.
        truth: What is exact.
        unit: Whether the scores are in nats, so that their size can be right or wrong.

    Returns:
        Means over queries of Pearson's and Spearman's correlation; and ‖s − t‖ / ‖t‖ of all.
    """
    found = {
        "pearson": float(np.mean([correlation(s, t) for s, t in zip(scores, truth, strict=True)])),
        "spearman": float(
            np.mean(
                [
                    correlation(rankdata(s), rankdata(t))
                    for s, t in zip(scores[:_RANKED], truth[:_RANKED], strict=True)
                ]
            )
        ),
    }
    if unit:
        # Row by row: a float64 copy of both would be the largest thing in memory.
        pairs = list(zip(scores, truth, strict=True))
        error = sum(float(np.sum((s.astype(float) - t) ** 2)) for s, t in pairs)
        size = sum(float(np.sum(t.astype(float) ** 2)) for _, t in pairs)
        found["relative error"] = float(np.sqrt(error / size))
    return found


def correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return Pearson's correlation, 0 where one of both is constant or not finite."""
    a, b = a - a.mean(dtype=float), b - b.mean(dtype=float)
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if np.isfinite(size) and size > 0 else 0.0
