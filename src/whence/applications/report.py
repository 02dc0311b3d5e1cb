"""Many predictions on one page, each with the training examples behind it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whence.applications.queries import Inputs, encoded
from whence.applications.shown import CANDIDATES, candidates, removable
from whence.checked import checked
from whence.errors import InvalidInput
from whence.linalg.solver import Solver
from whence.methods.attribution import Attribution
from whence.methods.choose import chosen
from whence.methods.fit_quality import not_shown, warn_of
from whence.methods.method import Method
from whence.methods.model_quality import model_quality
from whence.methods.prediction import MeasureLike
from whence.objective.trained import Data, Examples, Trained
from whence.pages import write
from whence.progress import progress
from whence.scores import Scores
from whence.tiles import tiles
from whence.views.batch import batch_page
from whence.views.made import Made
from whence.views.quantity import default_measure
from whence.views.sequences import Decode

_OPERATIONS = 2e12  # that refining what is shown may take: some ten seconds
_AGAIN = 150  # candidates without which the preprocessing is fitted again, at most
_SMALL = 10**6  # rows times parameters up to which that is three times as many
_FEWER = "Ask about fewer queries, or for a smaller k, to see sizes."
_SCORES = 2**22  # scores that are held at once: 32 MB of float64, and a few times that
_PASSES = 10  # over the data, for each example that is refined


@checked
def report(
    trained: Trained,
    queries: Data | Inputs,
    path: str | os.PathLike[str],
    *,
    k: int = 5,
    measure: MeasureLike | None = None,
    method: Method | None = None,
    solver: Solver | None = None,
    damping: float | None = None,
    held_out: Data | None = None,
    image_shape: tuple[int, ...] | None = None,
    decode: Decode | None = None,
    title: str = "What is behind these predictions?",
    about: Sequence[str] = (),
    command: str = "whence.report(trained, queries, path)",
) -> Path:
    """Write a page about many predictions: a row each, to search, sort and filter.

    Each row has the query, what the model says and the label, and the k training examples that push
    its answer most either way. All are scored by the method; of a convex model the candidates, or
    where they are many those that are shown, are then predicted again by the method's refined form,
    unless that would take long: then the page says how to see sizes. Effects whose
    size is not to be trusted are shown as bars without numbers.

    Args:
        trained: The model: an objective, or a recorded training.
        queries: (X, y) of q queries; or X alone, labeled by what the model predicts.
        path: The file; an existing one is replaced, whole or not at all.
        k: Training examples per query and side, >= 1.
        measure: "loss", "margin", "probability", "prediction", or a function (outputs, targets) ->
            [b]. If `None`, what the model answers, as for `whence.explain`.
        method: What scores training examples; `whence.Influence()` if `None`.
        solver: What inverts the curvature of that default; chosen by cost if `None`.
        damping: λ >= 0 added to that curvature; chosen by rule if `None`.
        held_out: (X, y) that the model was not fitted on, to say how good it is. If `None`, a
            linear model is judged on training examples predicted without themselves.
        image_shape: (h, w) or (h, w, 3) if a row is an image laid out flat.
        decode: From a list of token numbers to text, such as a tokenizer's decode, where the
            inputs are tokens; the numbers are shown if `None`.
        title: The heading.
        about: Which data and model these are, a sentence each; the first stands on top.
        command: What reproduces the page; shown at its end.

    Returns:
        The path.

    Raises:
        InvalidInput: If queries or options cannot be used, or the path cannot be written.
        UnsupportedModel: If the method does not apply to the model.

    Cost:
        Scores of all queries, and the refined scores of at most 6 k q candidates; the page holds
        each query and each shown example once.

    References:
        Koh & Liang (2017), section 2.1, equation 2.

    Examples:
        >>> import tempfile, whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X[::2], y[::2])
        >>> objective = whence.from_sklearn(model, X[::2], y[::2])
        >>> folder = tempfile.TemporaryDirectory()
        >>> page = whence.report(objective, (X[1::2], y[1::2]), folder.name + "/many.html")
        >>> page.name
        'many.html'
        >>> folder.cleanup()
    """
    if k < 1:
        raise InvalidInput(f"Expected k >= 1. Got {k}.")
    scoring = chosen(trained, method, solver, damping)
    examples, labeled = encoded(trained, queries)
    about_what = default_measure(trained, examples.subset(np.arange(1)))
    quantity = about_what if measure is None else measure
    refined = scoring.refined() if trained.convex else None
    fitted = scoring.fit(trained)
    with not_shown() if refined is not None else nullcontext():
        found = _candidates(fitted, examples, quantity, k)
    shown = found.strongest(k)
    hint = "" if refined is None else _FEWER
    # All candidates if that is quick, else those that the first order would show.
    for where in (np.unique(found.positions), shown.positions):
        if refined is not None and _affordable(trained, len(where)):
            fitted, hint = refined.fit(trained), ""
            there = removable(trained, where)
            shown = fitted.scores(examples, measure=quantity, indices=there)
            break
    else:
        warn_of(trained, shown.diagnostics)
    page = batch_page(
        trained,
        examples,
        shown,
        labeled=labeled,
        measure=quantity,
        unit=fitted.unit,
        sized=fitted.calibrated,
        hint=hint,
        k=k,
        quality=model_quality(trained, held_out),
        decode=decode,
        made=Made(title=title, about=tuple(about), command=command, image_shape=image_shape),
    )
    return write(page, path)


@dataclass(frozen=True, eq=False)
class _Candidates:
    """The training examples of each query that may be shown.

    Args:
        positions: Positions, [q, m].
        values: Their scores, [q, m].
        like: Scores of the last queries, for what all have in common.
        query_ids: The user's names of the queries, [q].
        ids: The user's names of the training examples, [n].
    """

    positions: NDArray[np.intp]
    values: NDArray[np.floating[Any]]
    like: Scores
    query_ids: NDArray[Any]
    ids: NDArray[Any]

    def strongest(self, k: int) -> Scores:
        """Return the k strongest of each side of each query; the scores of all others are 0."""
        order = np.argsort(self.values, axis=1, kind="stable")
        ends = np.hstack([order[:, :k], order[:, -k:]])
        positions = np.take_along_axis(self.positions, ends, axis=1)
        where = np.unique(positions)
        values = np.zeros((len(positions), len(where)), dtype=self.values.dtype)
        chosen = np.take_along_axis(self.values, ends, axis=1)
        np.put_along_axis(values, np.searchsorted(where, positions), chosen, axis=1)
        return replace(
            self.like,
            values=values,
            query_ids=self.query_ids,
            train_ids=self.ids[where],
            positions=where,
        )


def _candidates(
    fitted: Attribution, queries: Examples, measure: MeasureLike, k: int
) -> _Candidates:
    """Return the candidates of each query, some queries at a time: memory does not grow with q."""
    positions, values = [], []
    ids = fitted.trained.train.ids
    with progress(total=len(queries), desc="scoring", unit="query") as bar:
        for tile in tiles(len(queries), len(ids), _SCORES):
            part = queries.subset(np.arange(tile.start, tile.stop))
            scores = fitted.scores_to_rank(part, measure)
            found = candidates(fitted, scores, part, measure, CANDIDATES * k)
            positions.append(found)
            values.append(np.take_along_axis(scores.values, found, axis=1))
            bar.update(len(part))
    return _Candidates(np.concatenate(positions), np.concatenate(values), scores, queries.ids, ids)


def _affordable(trained: Trained, candidates: int) -> bool:
    """Return whether candidates can be refined in some ten seconds."""
    params = getattr(trained, "params", None)
    if params is None:
        return True
    numbers = len(trained.train) * len(params)
    follows = getattr(trained, "statistics", None) is not None
    if follows and candidates > (_AGAIN if numbers > _SMALL else 3 * _AGAIN):
        return False
    return _PASSES * candidates * numbers <= _OPERATIONS
