"""Removal curves: refits without the top-ranked examples, measured on other queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from whence.arrays import Floats
from whence.checked import checked
from whence.errors import InvalidInput
from whence.evaluation.figure import axes
from whence.linalg.solver import Solver
from whence.methods.choose import chosen
from whence.methods.converged import converged
from whence.methods.leave_one_out import refits_without
from whence.methods.method import Method
from whence.methods.prediction import MeasureLike, as_array
from whence.methods.sets import asked_of_set, values_of
from whence.objective.losses import measure_of
from whence.objective.measures import measure_name
from whence.objective.trained import Data, Trained
from whence.progress import progress
from whence.result import Card, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RANDOM = 5  # random removals of each size


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class RemovalCurve(Result):
    """The measure of queries that did not choose what was removed; made by `removal_curve`.

    Args:
        removed: Numbers of removed examples, rising, the first 0, [k].
        n: The number of training examples.
        helpful: The mean measure after removing the examples with the highest scores, [k].
        harmful: After removing those with the lowest scores, [k].
        random: After removing random examples, [r, k].
        measure: What was measured, a mean over queries or one number of them.
        method: What made the scores, in words.
    """

    removed: NDArray[np.intp]
    n: int
    helpful: Floats
    harmful: Floats
    random: Floats
    measure: str
    method: str

    def to_frame(self) -> pd.DataFrame:
        """Return a row per number of removed examples."""
        return pd.DataFrame(
            {
                "removed": self.removed,
                "fraction": self.removed / self.n,
                "helpful": self.helpful,
                "harmful": self.harmful,
                "random": self.random.mean(0),
                "random_spread": self.random.std(0, ddof=1),
            }
        )

    def card(self) -> Card:
        """Return the table, and what it is of."""
        name = self.measure[:1].upper() + self.measure[1:]
        title = f"{name} of other queries after removals, by {self.method}"
        return Card(title=title, table=self.to_frame())

    def __str__(self) -> str:
        """Return the table, and what it is of."""
        table = self.to_frame().to_string(index=False, float_format="{:.4g}".format)
        return f"{self.card().title}\n{table}"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the mean measure over the fraction removed.

        Args:
            ax: Axes to draw on; a new figure by default.

        Returns:
            The axes.
        """
        ax, share = axes(ax), 100 * self.removed / self.n
        ax.plot(share, self.helpful, marker="o", label="highest scores removed")
        ax.plot(share, self.harmful, marker="o", label="lowest scores removed")
        ax.errorbar(share, self.random.mean(0), self.random.std(0, ddof=1), label="random removal")
        ax.set_xlabel("training data removed, %")
        ax.set_ylabel(f"{self.measure} of the other queries")
        ax.legend()
        return ax


@checked
def removal_curve(
    objective: Trained,
    queries: Data,
    *,
    fractions: Sequence[float] = (0.01, 0.02, 0.05, 0.1),
    measure: MeasureLike = "loss",
    method: Method | None = None,
    solver: Solver | None = None,
    damping: float | None = None,
    seed: int = 0,
) -> RemovalCurve:
    """Remove the most helpful or harmful training examples, fit again, and judge on other queries.

    A random half of the queries scores the training examples by their mean measure; the others
    judge. A ranking is worth something where removing its first examples moves the measure further
    than removing as many at random; a model is only better without "harmful" examples if the mean
    loss of queries that did not choose them falls.

    Args:
        objective: A model that can be fitted again.
        queries: (X, y) of q >= 4 queries.
        fractions: Of the training examples to remove, each in (0, 1), rising.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b]; or one
            number of all queries, as those of `whence.measures`.
        method: What scores the examples; `whence.Influence` if `None`.
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.
        seed: Of the halves and of the random removals.

    Returns:
        The curves of the highest scores, the lowest scores and random removals.

    Raises:
        InvalidInput: If there are too few queries, or the fractions cannot be used.
        UnsupportedModel: If the model cannot be fitted again.

    Cost:
        Scores of half of the queries, and seven refits per fraction.

    References:
        Ghorbani & Zou (2019), "Data Shapley", section 4; Hooker et al. (2019) for the comparison
        with random removal.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge().fit(X[:400], y[:400]), X[:400], y[:400])
        >>> curve = whence.removal_curve(objective, (X[400:], y[400:]), fractions=[0.1])
        >>> bool(curve.helpful[-1] > curve.random[:, -1].mean())
        True
    """
    base = converged(objective)
    encoded, n = base.examples(queries), len(base.train)
    sizes = [0, *(round(float(fraction) * n) for fraction in fractions)]
    if not fractions or (np.diff(sizes) <= 0).any() or sizes[-1] >= n:
        raise InvalidInput(
            f"Expected rising fractions that each remove more of {n} examples and not all. "
            f"Got {list(fractions)}."
        )
    if len(encoded) < 4:
        raise InvalidInput(f"Expected at least 4 queries, two to a half. Got {len(encoded)}.")
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(encoded))
    half = len(encoded) // 2
    found = chosen(base, method, solver, damping).fit(base)
    of_set = asked_of_set(base, encoded, measure)
    choosing, judging = encoded.subset(order[:half]), encoded.subset(order[half:])
    asked = measure if of_set is None else of_set.subset(order[half:])
    if of_set is None:
        values, _ = found.mean_values(choosing, measure_of(base.loss, measure), np.arange(n))
    else:
        values, _ = found.set_values(choosing, of_set.subset(order[:half]), np.arange(n))
    ranking = np.argsort(-as_array(values).ravel(), kind="stable")
    rankings = [ranking, ranking[::-1], *(generator.permutation(n) for _ in range(_RANDOM))]
    sets = [ranking[:0], *(each[:size] for each in rankings for size in sizes[1:])]
    with progress(refits_without(base, sets), total=len(sets), desc="retraining") as fits:
        means = [
            float(values_of(fitted, judging, asked, base.trained_loss).mean()) for fitted in fits
        ]
    curves = np.array(means[1:]).reshape(len(rankings), -1)
    curves = np.concatenate([np.full((len(rankings), 1), means[0]), curves], 1)
    return RemovalCurve(
        removed=np.array(sizes),
        n=n,
        helpful=curves[0],
        harmful=curves[1],
        random=curves[2:],
        measure=f"mean {measure_name(measure)}" if of_set is None else of_set.name,
        method=found.words,
    )
