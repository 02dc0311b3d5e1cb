"""Flip sets: a small set of training examples whose removal changes a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.errors import InvalidInput
from whence.methods.choose import chosen
from whence.methods.leave_one_out import converged, refit_without
from whence.methods.method import Method
from whence.objective.trained import Data, Trained
from whence.result import Card, Result

_GROWTH = 1.25  # from a set that did not flip the prediction to the next one tried


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class FlipSet(Result):
    """Training examples whose removal changes a prediction, found by `flip_set`.

    Args:
        positions: Their positions, the most supportive first, [m]; empty if none was found.
        ids: The user's names of them, [m].
        n: The number of training examples.
        before: The predicted class, as a position among the classes.
        after: The predicted class after retraining without them; `before` if none was found.
        lead_before: Output of the predicted class over the runner-up's (log odds where binary).
        lead_after: The same after retraining; negative where the prediction has changed.
        tried: How many sets were retrained without.
    """

    positions: NDArray[np.intp]
    ids: NDArray[Any]
    n: int
    before: int
    after: int
    lead_before: float
    lead_after: float
    tried: int

    @property
    def found(self) -> bool:
        """Whether removing the set flips the prediction, as retraining has shown."""
        return self.before != self.after

    def __str__(self) -> str:
        """Return the outcome in a sentence."""
        if not self.found:
            return f"no set found whose removal flips the prediction ({self.tried} retrained)"
        return (
            f"without {len(self.positions)} of {self.n} training examples class {self.before} "
            f"becomes class {self.after}: lead {self.lead_before:.3g} -> {self.lead_after:.3g}, "
            f"retrained"
        )

    def card(self) -> Card:
        """Return the outcome, and the first of the set."""
        facts = {"retrained": f"{self.tried} times"}
        if self.found:
            facts = {"removed": f"{len(self.positions):,} of {self.n:,}", **facts}
        table = pd.DataFrame({"id": self.ids, "position": self.positions}) if self.found else None
        return Card(title=str(self), facts=facts, table=table)


def flip_set(
    objective: Trained,
    query: Data,
    *,
    largest: int | None = None,
    method: Method | None = None,
) -> FlipSet:
    """Find a small set of training examples whose removal flips a prediction, by retraining.

    Examples are ranked by how much of the predicted class's lead is gone without them. The first
    m of the ranking are removed for real: m grows from the predicted number until the prediction
    flips, then is bisected. The set is as small as this ranking allows; a smaller one may exist.

    Args:
        objective: A classifier that can be fitted again: convex, or a recorded training.
        query: (x, y) of one query; y may be any class, the prediction is what is flipped.
        method: What ranks the examples; `whence.Influence` if `None`.
        largest: Give up above this many examples, >= 1; half of them if `None`.

    Returns:
        The set, and what retraining without it predicts.

    Raises:
        InvalidInput: If it is not one query, or the model has no classes.
        UnsupportedModel: If the objective cannot be retrained.

    Cost:
        One solve, and about ten retrainings from θ̂.

    References:
        Yang, Jain & Wallace (2023), "How many and which training points would need to be removed
        to flip this prediction?", algorithm 1.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_breast_cancer
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.preprocessing import scale
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> X = scale(X)
        >>> model = LogisticRegression(tol=1e-8).fit(X[100:], y[100:])
        >>> found = whence.flip_set(whence.from_sklearn(model, X[100:], y[100:]), (X[13], y[13]))
        >>> found.found, found.lead_after < 0
        (True, True)
    """
    base = converged(objective)
    queries = base.examples(query)
    n = len(base.train)
    largest = n // 2 if largest is None else largest
    classifies = bool(base.classes) or base.loss.classifies
    if len(queries) != 1 or largest < 1 or not classifies:
        raise InvalidInput(
            "Expected one query of a classifier, and largest >= 1. "
            f"Got {len(queries)} queries of {base!r} and largest={largest}."
        )
    outputs = base.outputs(queries)
    order = _ordered(outputs)
    before, runner_up = int(order[0]), int(order[1])

    def lead(of: Tensor, targets: Tensor) -> Tensor:
        columns = torch.cat([-of, of], 1) / 2 if of.shape[1] == 1 else of
        return columns[:, before] - columns[:, runner_up]

    at_start = float(lead(outputs, queries.targets)[0])
    scores = chosen(base, method).fit(base).scores(queries, measure=lead).values[0]
    ranking = np.argsort(scores, kind="stable")
    ranking = ranking[scores[ranking] < 0][: min(largest, n - 1)]
    outcomes: dict[int, tuple[int, float]] = {}

    def flips(m: int) -> bool:
        """Whether the prediction flips without the first m, by retraining."""
        if m not in outcomes:
            there = refit_without(base, ranking[:m]).outputs(queries)
            outcomes[m] = int(_ordered(there)[0]), float(lead(there, queries.targets)[0])
        return outcomes[m][0] != before

    enough = np.flatnonzero(at_start + np.cumsum(scores[ranking]) <= 0)
    low, high = 0, int(enough[0]) + 1 if len(enough) else len(ranking)
    while high and not flips(high) and high < len(ranking):
        low, high = high, min(len(ranking), max(high + 1, int(high * _GROWTH)))
    found = high > 0 and flips(high)
    while found and high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if flips(middle) else (middle, high)
    after, lead_after = outcomes.get(high, (before, at_start))
    removed = ranking[:high] if found else ranking[:0]
    return FlipSet(
        positions=removed,
        ids=base.train.ids[removed],
        n=n,
        before=before,
        after=after,
        lead_before=at_start,
        lead_after=lead_after,
        tried=len(outcomes),
    )


def _ordered(outputs: Tensor) -> Tensor:
    """Return the classes of one query, the most likely first."""
    columns = torch.cat([-outputs, outputs], 1) if outputs.shape[1] == 1 else outputs
    return columns[0].argsort(descending=True)
