"""Many predictions on one page, each with the training examples behind it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from whence.errors import InvalidInput
from whence.linalg.solver import Solver
from whence.methods.influence import influence
from whence.methods.prediction import MeasureLike
from whence.objective.losses import CrossEntropy, measure_of
from whence.objective.objective import Objective
from whence.pages import BatchPage, QueryRow, write
from whence.views.examples import class_of, item_of, lights_of
from whence.views.sequences import Decode

_UNITS = {"loss": "nats", "margin": "log odds", "probability": "probability"}


def report(
    objective: Objective,
    queries: Any,
    path: str | os.PathLike[str],
    *,
    k: int = 5,
    measure: MeasureLike = "loss",
    solver: Solver | None = None,
    damping: float | None = None,
    image_shape: tuple[int, ...] | None = None,
    decode: Decode | None = None,
    title: str = "What is behind these predictions?",
    command: str = "whence.report(objective, queries, path)",
) -> Path:
    """Write a page about many predictions: a row each, to search, sort and filter.

    Each row has the query, what the model says and the truth, and its k most helpful and k most
    harmful training examples with their effects, first order: `explain` refines them for one.

    Args:
        objective: R at θ̂.
        queries: (X, y) of q queries.
        path: The file; an existing one is replaced, whole or not at all.
        k: Helpful and harmful examples per query, >= 1.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.
        image_shape: (h, w) or (h, w, 3) if a row is an image laid out flat.
        decode: From a list of token numbers to text, such as a tokenizer's decode, where the
            inputs are tokens; the numbers are shown if `None`.
        title: The heading.
        command: What reproduces the page; shown at its end.

    Returns:
        The path.

    Raises:
        InvalidInput: If queries or options cannot be used, or the path cannot be written.

    Cost:
        `influence` of all queries; the page holds each query and each shown example once.

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
    asked = objective.examples(queries)
    scores = influence(objective, queries, measure=measure, solver=solver, damping=damping)
    outputs = objective.outputs(asked)
    values = measure_of(objective.loss, measure)(outputs, asked.targets).tolist()
    sides = scores.top(k), scores.bottom(k)
    where = np.unique(np.concatenate([side.positions.ravel() for side in sides]))
    shown = objective.train.subset(where)
    place = {int(position): index for index, position in enumerate(where)}

    def behind(query: int, side: int) -> tuple[tuple[int, float], ...]:
        sign = 1 if side == 0 else -1
        pairs = zip(sides[side].positions[query], sides[side].values[query], strict=True)
        return tuple((place[int(i)], float(v)) for i, v in pairs if sign * v > 0)

    names = [str(name) for name in objective.classes]  # a regression has no right answer to name
    if not names and isinstance(objective.loss, CrossEntropy) and outputs.ndim == 2:
        names = [str(c) for c in range(outputs.shape[1])]
    options: dict[str, Any] = {"image_shape": image_shape, "decode": decode}
    diagnostics = scores.diagnostics
    page = BatchPage(
        title=title,
        words=f"The {k} most helpful and the {k} most harmful training examples of each query.",
        measure=scores.measure,
        unit=_UNITS.get(scores.measure, ""),
        examples=tuple(
            item_of(objective, shown, i, title=f"Training example {name}", **options)
            for i, name in enumerate(shown.ids)
        ),
        rows=tuple(
            QueryRow(
                query=item_of(
                    objective,
                    asked,
                    query,
                    title=f"Query {name}",
                    **options,
                    predicted=names[class_of(outputs[query])] if names else None,
                ),
                value=values[query],
                helpful=behind(query, 0),
                harmful=behind(query, 1),
            )
            for query, name in enumerate(asked.ids)
        ),
        lights=lights_of(diagnostics, convex=objective.convex) if diagnostics else (),
        method=f"{scores.method}.",
        command=command,
        n=len(objective.train),
    )
    return write(page, path)
