"""Dot products of gradients along the path of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whence.errors import InvalidInput
from whence.objective.losses import measure_of
from whence.objective.objective import Objective
from whence.scores import Scores

_COLUMNS = 64  # queries whose gradients are held at once


def tracin(
    objective: Objective,
    queries: Any,
    *,
    checkpoints: Sequence[Tensor] | None = None,
    learning_rates: Sequence[float] | None = None,
    cosine: bool = False,
) -> Scores:
    r"""Score training examples by the dot products of their gradients with the query's.

    score[q, i] = (wᵢ/n) Σ_t η_t ∇ℓ_q(θ_t)ᵀ gᵢ(θ_t), with η_t the sum of the learning rates of the
    steps that θ_t stands for: what gradient descent would lose of its progress on the query if
    example i took no part and nothing else changed. One checkpoint and η = 1 give the plain
    gradient dot product (GradDot); with `cosine`, the cosine of the two gradients (GradCos), which
    has no unit.

    Args:
        objective: R; its own parameters are the one checkpoint if `checkpoints` is `None`.
        queries: (x, y) of q queries, or of one.
        checkpoints: θ_t, each [p], as `objective.params`.
        learning_rates: η_t >= 0, one per checkpoint; 1 each if `None`.
        cosine: Divide by the norms of the two gradients, and leave out wᵢ/n; averaged over t.

    Returns:
        Scores with values [q, n]. Positive: the example helped. A ranking more than a size.

    Raises:
        InvalidInput: If checkpoints and rates do not fit the objective or each other.

    Cost:
        Per checkpoint the gradients of the queries and one product of the training gradients with
        them. No solve.

    References:
        Pruthi et al. (2020), "Estimating training data influence by tracing gradient descent",
        section 3; Hanawa et al. (2021) for the cosine.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X, y)
        >>> whence.tracin(whence.from_sklearn(model, X, y), (X[:2], y[:2])).values.shape
        (2, 150)
    """
    points = points_of(objective, checkpoints)
    rates = [1.0] * len(points) if learning_rates is None else [float(r) for r in learning_rates]
    if len(rates) != len(points) or not all(0 <= r < np.inf for r in rates):
        raise InvalidInput(
            "Expected a finite learning rate >= 0 for each checkpoint. "
            f"Got {len(points)} checkpoints and rates {rates}."
        )
    asked = objective.examples(queries)
    total = sum(
        (
            (1 / len(points) if cosine else rate) * _dots(objective.at(point), asked, cosine)
            for point, rate in zip(points, rates, strict=True)
        ),
        start=torch.zeros(()),
    )
    if not cosine:
        total = total * (objective.weights / len(objective.train)).to(total)
    return Scores(
        values=total.double().cpu().numpy(),
        query_ids=asked.ids,
        train_ids=objective.train.ids,
        positions=np.arange(len(objective.train)),
        n=len(objective.train),
        method=f"{'cosines' if cosine else 'dot products'} of gradients at {len(points)} "
        f"checkpoint{'s' if len(points) > 1 else ''} (Pruthi et al. 2020)",
        measure="loss",
    )


def points_of(objective: Objective, checkpoints: Sequence[Tensor] | None) -> list[Tensor]:
    """Return checked checkpoints; the objective's own parameters for `None`.

    Args:
        objective: R.
        checkpoints: θ_t, each [p].

    Returns:
        The checkpoints, at least one.

    Raises:
        InvalidInput: If there is none, or one does not fit the objective.
    """
    points = [objective.params] if checkpoints is None else list(checkpoints)
    if not points:
        raise InvalidInput("Expected at least one checkpoint. Got 0 checkpoints.")
    for point in points:
        if point.shape != objective.params.shape or not bool(torch.isfinite(point).all()):
            raise InvalidInput(
                f"Expected finite checkpoints of {len(objective.params)} parameters each. "
                f"Got shape {list(point.shape)}. Flatten them as objective.params is."
            )
    return points


def _dots(objective: Objective, asked: Any, cosine: bool) -> Tensor:
    """Return ∇ℓ_qᵀ gᵢ, or its cosine, [q, n]."""
    loss = measure_of(objective.loss, "loss")
    rows = []
    norms = _norms(objective, objective.train) if cosine else None
    for start in range(0, len(asked), _COLUMNS):
        part = asked.subset(np.arange(start, min(start + _COLUMNS, len(asked))))
        eye = torch.eye(len(part)).to(objective.params)
        columns = objective.gradient_sum(part, loss, eye)
        dots = objective.gradient_dot(objective.train, loss, columns).T
        if norms is not None:
            sizes = columns.norm(dim=0).unsqueeze(1) * norms
            dots = dots / sizes.clamp_min(torch.finfo(sizes.dtype).tiny)
        rows.append(dots)
    return torch.cat(rows)


def _norms(objective: Objective, examples: Any) -> Tensor:
    """Return ‖gᵢ‖, [n], in blocks."""
    loss = measure_of(objective.loss, "loss")
    parts = []
    for start in range(0, len(examples), _COLUMNS):
        part = examples.subset(np.arange(start, min(start + _COLUMNS, len(examples))))
        eye = torch.eye(len(part)).to(objective.params)
        parts.append(objective.gradient_sum(part, loss, eye).norm(dim=0))
    return torch.cat(parts)
