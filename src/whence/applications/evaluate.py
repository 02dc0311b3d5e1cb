"""The linear datamodeling score of a method on a model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import InvalidInput
from whence.evaluation.ensemble import Together, retraining_ensemble
from whence.evaluation.identity import identity_of
from whence.evaluation.metrics import LDS, lds
from whence.linalg.solver import Solver
from whence.methods.choose import chosen
from whence.methods.converged import converged
from whence.methods.method import Method
from whence.methods.prediction import MeasureLike, measure_name
from whence.objective.losses import measure_of
from whence.objective.measures import Measure
from whence.objective.removed import weights_in_parts
from whence.objective.trained import Data, Examples, Trained
from whence.pages import write
from whence.views.made import Made
from whence.views.results import evaluation_page


@checked
def evaluate(
    objective: Trained,
    queries: Data,
    *,
    subsets: int = 50,
    fraction: float = 0.5,
    directory: str | os.PathLike[str] | None = None,
    measure: MeasureLike = "loss",
    method: Method | None = None,
    solver: Solver | None = None,
    damping: float | None = None,
) -> LDS:
    """Refit a model on random subsets, and correlate what came with what the scores predict.

    For each query the rank correlation, over the subsets S, of Σ_{i ∉ S} scores[q, i] and m_q(θ̂_S).
    A convex refit is exact and has no noise, so a perfect predictor would reach 1. With fraction
    0.5 half of the data go at once, far from the single removals that influence is about: compare
    methods by it, and judge single effects by `explanation.verify`.

    Args:
        objective: A model that can be fitted again: convex, or a recorded training.
        queries: (X, y) of q queries.
        subsets: How many, >= 3.
        fraction: Of the training examples that each subset keeps, in (0, 1).
        directory: Where the retrainings are kept, one file each: an interrupted call goes on from
            there. Nowhere if `None`.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        method: What makes the scores; `whence.Influence` if `None`.
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.

    Returns:
        The score on average with its interval, and per query.

    Raises:
        UnsupportedModel: If the model cannot be fitted again: see
            `whence.evaluation.retraining_ensemble`.
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
    examples = base.examples(queries)
    found = chosen(base, method, solver, damping).fit(base)
    scores = found.scores(examples, measure=measure)
    retrain = _Refit(base=base, queries=examples, measure=measure_of(base.trained_loss, measure))
    with tempfile.TemporaryDirectory() as scratch:
        ensemble = retraining_ensemble(
            Together(retrain, base.together),
            len(base.train),
            subsets=subsets,
            seeds=1,
            fraction=fraction,
            fingerprint=identity_of(base, examples, measure_name(measure)),
            directory=scratch if directory is None else directory,
        )
    return lds(scores.values, ensemble.masks, ensemble.outcomes)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Refit:
    """The fit of a model to parts of its data.

    Args:
        base: The model.
        queries: The queries.
        measure: What is observed of them.
    """

    base: Trained
    queries: Examples
    measure: Measure

    def __call__(self, weights: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return the measure of each query after fits with these weights [k, n], [k, q]."""
        del seeds  # a refit does not depend on them
        kept = weights_in_parts(self.base.weights, weights)
        values = [
            self.measure(fitted.outputs(self.queries), self.queries.targets)
            for fitted in self.base.refits(kept)
        ]
        return torch.stack(values)


@checked
def report_evaluation(
    score: LDS,
    path: str | os.PathLike[str],
    *,
    names: Sequence[object] | None = None,
    title: str = "How well do scores predict retraining?",
    about: Sequence[str] = (),
    command: str = "report_evaluation(score, path)",
) -> Path:
    """Write an evaluation as one self-contained HTML page: the score, its error, every query.

    Args:
        score: What `evaluate` returned.
        path: The file; an existing one is replaced, whole or not at all.
        names: What the queries are called, q of them; their numbers if `None`.
        title: The heading.
        about: Which data and model these are, a sentence each; the first stands on top.
        command: What reproduces the page; shown at its end.

    Returns:
        The path.

    Raises:
        InvalidInput: If the path cannot be written, or there are more or fewer names than queries.

    Examples:
        >>> import tempfile, whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge(alpha=0.1).fit(X[20:], y[20:]), X[20:], y[20:])
        >>> score = whence.evaluate(objective, (X[:20], y[:20]), subsets=3)
        >>> folder = tempfile.TemporaryDirectory()
        >>> whence.report_evaluation(score, folder.name + "/score.html").name
        'score.html'
        >>> folder.cleanup()
    """
    q = len(score.per_query)
    called = [f"query {at}" for at in range(q)] if names is None else [str(each) for each in names]
    if len(called) != q:
        raise InvalidInput(f"Expected {q} names, one per query. Got {len(called)}.")
    page = evaluation_page(
        score.per_query.numpy(),
        called,
        mean=score.mean,
        interval=score.interval,
        confidence=score.confidence,
        ceiling=None if score.ceiling is None else score.ceiling.mean,
        subsets=score.subsets,
        made=Made(title=title, about=tuple(about), command=command),
    )
    return write(page, path)
