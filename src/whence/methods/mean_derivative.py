"""Mean derivatives of boosted predictions over retrainings on halves, and what they predict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.arrays import Floats
from whence.evaluation.correlation import spearman
from whence.methods.halves import Halves
from whence.methods.subsets import Positions
from whence.objective.measures import Measure
from whence.objective.trained import Examples
from whence.progress import progress
from whence.tiles import tiles
from whence.trees.adjoint import adjoint, precision
from whence.trees.form import BoostedTrees
from whence.trees.leaves import Integers, Wide
from whence.trees.side_by_side import side_by_side

_ROWS = 16_000  # of models side by side at most: the arrays of more do not lie in a cache
_NUMBERS = 2**22  # of queries by rows of models side by side


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class MeanDerivative:
    """Means of w dm/dw over the retrainings with each row and over those without it.

    Splits are fitted to the rows that a retraining has: where a row was inside they follow it.

    Args:
        inside: The mean over retrainings that have the row, [q, n].
        outside: The mean over the others, [q, n].
        spread: The mean square over all of them, each of size 1, [q, n].
        from_inside: The sum of `inside` over the rows of each half, of the other retrainings
            alone, [B, q].
        from_outside: The same of `outside`, [B, q].
        actual: m of each retraining, [B, q].
    """

    inside: Wide
    outside: Wide
    spread: Wide
    from_inside: Floats
    from_outside: Floats
    actual: Floats


def mean_derivative(
    halves: Halves, whole: Sequence[BoostedTrees], queries: Examples, measure: Measure
) -> MeanDerivative:
    """Return the mean derivatives of few queries, each retraining at the same size.

    Args:
        halves: The retrainings.
        whole: The trees of each, with the leaf values that are differentiated.
        queries: The q queries.
        measure: m.

    Returns:
        The means.

    Cost:
        A derivative per retraining, as many at a time as torch has threads.
    """
    (b, n), q = halves.inside.shape, len(queries)
    weights = halves.whole[0].weights
    total, within, spread, squares = np.zeros((4, q, n), dtype=precision(n))
    sizes, own, actual = np.zeros((3, b, q))

    def of_some(some: slice) -> list[tuple[int, Floats]]:
        each = list(zip(range(b)[some], _each(whole[some], queries, measure), strict=True))
        for at, (leaves, found) in each:
            found *= weights
            sizes[at] = np.linalg.norm(found, axis=1) / np.sqrt(n)
            found /= np.where(sizes[at] > 0, sizes[at], 1.0)[:, None]
            own[at] = found @ halves.inside[at]
            outputs = torch.from_numpy(halves.models[at].trees.replay.predict(leaves))
            actual[at] = measure(outputs, queries.targets).numpy()
        return [(at, found) for at, (_, found) in each]

    threads = torch.get_num_threads()
    most = min(_ROWS // n, _NUMBERS // (q * n), -(-b // threads))
    groups = list(tiles(b, budget=max(1, most)))
    with (
        ThreadPoolExecutor(threads) as pool,
        progress(total=b, desc="derivatives of retrainings", unit="fit") as bar,
    ):
        for some in tiles(len(groups), budget=threads):  # no more than these wait to be summed
            for each in pool.map(of_some, groups[some]):
                for at, found in each:
                    total += found
                    np.square(found, out=squares, casting="same_kind")
                    spread += squares
                    found *= halves.inside[at]
                    within += found
                bar.update(len(each))  # they came together: one by one they would look slow
    scale = np.median(sizes, axis=0)
    counts = halves.inside.sum(0)
    total -= within
    total /= b - counts
    spread /= b
    from_outside = (halves.inside @ total.T) * scale
    total *= scale[:, None]
    from_inside = halves.inside @ (within / (counts - 1).clip(1)).T
    from_inside -= own / max(counts.max() - 1, 1)  # a half's own part in the sum
    within /= counts.clip(1)
    within *= scale[:, None]
    return MeanDerivative(
        inside=within,
        outside=total,
        spread=spread,
        from_inside=from_inside * scale,
        from_outside=from_outside,
        actual=actual,
    )


def _each(
    models: Sequence[BoostedTrees], queries: Examples, measure: Measure
) -> Iterator[tuple[Integers, Floats]]:
    """Yield the leaves of queries in each model, [t, c, q], and dm/dw of all rows, [q, n]."""
    together = side_by_side(models)
    for trees in models if together is None else [together]:
        b, n, leaves = trees.start.models, len(trees.targets), trees.leaves_of(queries.inputs)
        found = derivatives_of(trees, leaves, measure, queries.targets, np.arange(n))
        step = trees.rule.size // b
        for at, part in enumerate(np.split(leaves, b, axis=2)):
            yield part - at * step, found.reshape(len(queries), b, -1)[:, at]


def derivatives_of(
    trees: BoostedTrees, leaves: Integers, measure: Measure, targets: Tensor, rows: Positions
) -> Floats:
    """Return dm/dw of queries in the weights of training rows, [q, k].

    Args:
        trees: The trees, with their rows.
        leaves: The leaves of the queries, [t, c, q]; of b models side by side, [t, c, b q].
        measure: m.
        targets: The targets of the queries, [q].
        rows: Positions of the k rows.
    """
    outputs = torch.from_numpy(trees.replay.predict(leaves)).chunk(trees.start.models)
    gradients = torch.cat([measure.gradient(each, targets) for each in outputs])
    return adjoint(trees, leaves, gradients.numpy(), rows=rows)


def held_out_note(lds: tuple[float, float], b: int, q: int) -> str:
    """Return the estimate that retrainings give of the linear datamodeling score, in a sentence.

    Args:
        lds: The estimate with its error, as `held_out_lds` has it.
        b: How many retrainings there are.
        q: How many queries.
    """
    mean, error = lds
    queries = "1 query" if q == 1 else f"{q} queries"
    if not np.isfinite(mean):
        return f"The {b} retrainings do not differ on these queries: nothing tells how good it is."
    return (
        f"The linear datamodeling score is estimated at {mean:.2f} ± {error:.2f} for {queries}: "
        f"the rank correlation of the outcomes of {b} retrainings on halves with what the others "
        "predict of them."
    )


def unconfirmed(lds: tuple[float, float], b: int) -> str:
    """Return why retrainings do not confirm the size of scores, a sentence; empty where they do.

    They do where the estimate is above 0 by more than its error; where nothing varies, all are 0.

    Args:
        lds: The estimate with its error, as `held_out_lds` has it.
        b: How many retrainings there are.
    """
    mean, error = lds
    if not mean <= error:
        return ""
    return (
        f"The {b} retrainings do not confirm sizes here: their outcomes and what is predicted of "
        f"them have a rank correlation of {mean:.2f} ± {error:.2f}, which may be none."
    )


def held_out_lds(predicted: Floats, actual: Floats) -> tuple[float, float]:
    """Return the mean rank correlation over queries, and its jackknife error over retrainings.

    Args:
        predicted: [B, q].
        actual: [B, q].

    Returns:
        The mean over the queries whose outcomes differ, NaN if there is none, and its error.

    Examples:
        >>> held_out_lds(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [2.0], [3.0]]))
        (1.0, 0.0)
    """
    differ = np.ptp(actual, axis=0) > 0
    if not differ.any():
        return float("nan"), float("nan")
    predicted, actual = predicted[:, differ], actual[:, differ]
    mean = _mean_correlation(predicted, actual)
    b = len(actual)
    without = np.array(
        [
            _mean_correlation(np.delete(predicted, at, 0), np.delete(actual, at, 0))
            for at in range(b)
        ]
    )
    error = float(np.sqrt((b - 1) * without.var()))
    return mean, error


def _mean_correlation(predicted: Floats, actual: Floats) -> float:
    """Return the mean rank correlation; 0 for a query whose predictions or outcomes are equal."""
    return float(np.nan_to_num(spearman(predicted, actual)).mean())
