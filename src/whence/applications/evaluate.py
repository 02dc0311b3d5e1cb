"""How well do scores predict retraining on random subsets? The LDS of a convex model."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor
from torch.utils._pytree import tree_leaves

from whence.errors import InvalidInput
from whence.evaluation.bank import fingerprint, subset_bank
from whence.evaluation.metrics import LDS, lds
from whence.linalg.solver import Solver
from whence.methods.influence import influence
from whence.methods.leave_one_out import converged
from whence.methods.prediction import MeasureLike, measure_name
from whence.objective.losses import measure_of
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.trained import Examples


def evaluate(
    objective: Objective,
    queries: Any,
    *,
    subsets: int = 50,
    fraction: float = 0.5,
    directory: str | os.PathLike[str] | None = None,
    measure: MeasureLike = "loss",
    solver: Solver | None = None,
    damping: float | None = None,
) -> LDS:
    """Train a convex model on random subsets, and correlate what came with what influence predicts.

    For each query the rank correlation, over the subsets S, of Σ_{i ∉ S} scores[q, i] and m_q(θ̂_S).
    Retraining is exact and has no noise, so a perfect predictor would reach 1. With fraction 0.5
    half of the data go at once, far from the single removals that influence is about: compare
    methods by it, and judge single effects by `explanation.verify`.

    Args:
        objective: R at θ̂, convex.
        queries: (X, y) of q queries.
        subsets: How many, >= 3.
        fraction: Of the training examples that each subset keeps, in (0, 1).
        directory: Where the retrainings are kept, one file each: an interrupted call goes on from
            there. Nowhere if `None`.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.

    Returns:
        The score on average with its interval, and per query.

    Raises:
        UnsupportedModel: If R is not known to be convex: see `whence.evaluation.subset_bank`.
        InvalidInput: If the options cannot be used, or the directory holds other retrainings.

    Cost:
        One retraining per subset, and one influence.

    References:
        Park et al. (2023), "TRAK", section 2, definition 2.3.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge(alpha=0.1).fit(X[20:], y[20:]), X[20:], y[20:])
        >>> score = whence.evaluate(objective, (X[:20], y[:20]), subsets=10, fraction=0.9)
        >>> score.mean > 0.9
        True
    """
    if subsets < 3:
        raise InvalidInput(f"Expected at least 3 subsets. Got {subsets}.")
    base = converged(objective)
    asked = base.examples(queries)
    scores = influence(base, asked, measure=measure, solver=solver, damping=damping)
    retrain = _Refit(base=base, asked=asked, measure=measure_of(base.trained_loss, measure))
    with tempfile.TemporaryDirectory() as scratch:
        bank = subset_bank(
            retrain,
            len(base.train),
            subsets=subsets,
            seeds=1,
            fraction=fraction,
            fingerprint=fingerprint(
                f"{measure_name(measure)} {type(base.trained_loss).__name__}",
                base.weights,
                base.l2,
                *_content(base.train),
                *_content(asked),
            ),
            directory=scratch if directory is None else directory,
        )
    return lds(scores.values, bank.masks, bank.outcomes)


def _content(examples: Examples) -> list[Tensor | str]:
    """Return what tells these examples from others, bit by bit the same in every run."""
    inputs: Any = getattr(examples, "inputs", None)
    parts: list[Any] = [inputs]
    is_sparse: bool = sparse.issparse(inputs)
    if isinstance(inputs, pd.DataFrame):
        parts = [pd.util.hash_pandas_object(inputs, index=False).to_numpy().astype(np.int64)]
    elif is_sparse:
        parts = [inputs.data, inputs.indices, inputs.indptr]
    leaves = [torch.as_tensor(leaf) for leaf in tree_leaves(parts) if leaf is not None]
    return [*leaves, examples.targets]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Refit:
    """The training of a convex model on part of its data, from θ̂.

    Args:
        base: R at its minimum.
        asked: The queries.
        measure: What is observed of them.
    """

    base: Objective
    asked: Examples
    measure: Measure

    def __call__(self, weights: Tensor, seed: int) -> Tensor:
        """Return the measure of each query after training with these weights, [q]."""
        del seed  # the minimum does not depend on it
        kept = self.base.weights * weights.to(self.base.weights)
        trained = self.base.refit(kept)
        return self.measure(trained.outputs(self.asked), self.asked.targets)
