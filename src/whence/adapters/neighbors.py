"""Nearest neighbors: a removal hands the vote to the next one, exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline
from torch import Tensor

from whence.adapters.answered import Answered
from whence.adapters.answers import answer_of
from whence.adapters.draws import is_steady
from whence.adapters.rows import RowExamples, encoded, labels_of, width_of
from whence.adapters.tables import as_floats
from whence.adapters.usable import check_held
from whence.arrays import Floats
from whence.checked import said
from whence.errors import InvalidInput
from whence.objective.arrays import shared
from whence.objective.cache import Recent
from whence.objective.trained import Data, Examples
from whence.preprocessing.containers import before
from whence.preprocessing.containers import final as final_step
from whence.preprocessing.refit import fit_again, follows_data, is_cross_fitted
from whence.rows import column_names, is_sparse, without_names
from whence.tiles import spread

_LOOKED_AT = 100  # training rows at which ties are looked for
_SPARE = 64  # neighbors beyond k that are kept for each row
_BYTES = 2**24  # of neighbors that are held: 16 MB
_FEW = 1_000  # rows to which transformers are fitted again for each removal
_MOVED = (
    "Values of neighbors hold the transformers before them as they were fitted; removals and "
    "retrainings fit those again."
)
_ROWS = 512  # rows whose distances to all training rows are held at once


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Order:
    """The nearest training rows of each of b rows, the nearest first.

    Args:
        rows: Positions, [b, m].
        distances: [b, m].
    """

    rows: NDArray[np.intp]
    distances: Floats


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Neighbors(Answered):
    """A fitted KNeighborsClassifier or KNeighborsRegressor with its training rows.

    Transformers before it are fitted again with each refit, as a pipeline's own fit does.

    Args:
        values: What a neighbor votes for: its one-hot class, or its target, [n, v].
        orders: The nearest rows of examples that were asked about lately, shared by refits.
        transform: The fitted transformers before it, or `None`.
        points: The training rows as they give them.
    """

    values: Floats
    orders: Recent[Order]
    transform: Pipeline | None
    points: Any

    @property
    def instant(self) -> bool:
        """True where a refit leaves rows out, or fits transformers to few rows."""
        return not follows_data(self.transform) or len(self.weights) <= _FEW

    @property
    def voter(self) -> Any:
        """The estimator whose neighbors vote: the last step of a pipeline."""
        return final_step(self.fitted)

    @property
    def votes_alike(self) -> bool:
        """Whether the votes of all neighbors count the same."""
        return bool(self.voter.weights == "uniform")

    @property
    def k(self) -> int:
        """How many neighbors vote."""
        return int(self.voter.n_neighbors)

    def examples(self, data: Data) -> RowExamples:
        """Check and encode (X, y): one row or many."""
        rows = super().examples(data)
        self._points_of(rows)
        return rows

    def outputs(self, examples: Examples) -> Tensor:
        """Return log odds, log-probabilities or numbers, [b, c]."""
        order, there = self.order(examples), self.weights.numpy() > 0
        near = self._first(order, there)
        short = np.flatnonzero(near[:, -1] < 0)
        if len(short):
            everything = self.nearest(examples.subset(short), len(there))
            order, near = _joined(order, everything, short), near.copy()
            near[short] = self._first(everything, there)
        rows = np.take_along_axis(order.rows, near, 1)
        votes = self._votes(np.take_along_axis(order.distances, near, 1))
        mean = np.einsum("bk,bkv->bv", votes, self.values[rows])
        return torch.from_numpy(self.answer.of_votes(mean))

    def refit(self, weights: Tensor | None = None) -> Neighbors:
        """Return the model with only the rows that have weight."""
        if weights is None:
            return self
        weights = weights.double()
        if bool(((weights != 0) & (weights != 1)).any()):
            raise InvalidInput(
                f"Expected weights of 0 or 1: {type(self.voter).__name__} takes no others. Got "
                f"{float(weights.min()):g} to {float(weights.max()):g}."
            )
        if int(weights.sum()) < self.k:
            raise InvalidInput(
                f"Expected at least n_neighbors = {self.k} training rows to stay. Got "
                f"{int(weights.sum())}."
            )
        if self.transform is None or not follows_data(self.transform):
            return replace(self, weights=weights)
        there = np.flatnonzero(weights.numpy())
        labels = self.answer.labels_of(self.train.targets)
        transform, _ = fit_again(self.transform, self.train.inputs, labels, where=there)
        points = transform.transform(self.train.inputs)
        return replace(
            self, weights=weights, transform=transform, points=points, orders=Recent(_BYTES)
        )

    def order(self, examples: Examples) -> Order:
        """Return the nearest training rows of some rows, whether they are there or not.

        Args:
            examples: The rows.

        Returns:
            Four times as many neighbors as vote, at least.
        """
        most = min(len(self.weights), 4 * self.k + _SPARE)
        return self.orders.get(
            examples,
            lambda: self.nearest(examples, most),
            lambda found: found.rows.nbytes + found.distances.nbytes,
        )

    def nearest(self, examples: Examples, most: int) -> Order:
        """Return the nearest training rows of some rows, ties in the order of the rows.

        Args:
            examples: The rows.
            most: How many.
        """
        rows, distances = [], []
        for start in range(0, len(examples), _ROWS):
            some = examples.subset(np.arange(start, min(start + _ROWS, len(examples))))
            away = _distances(self.voter, self._points_of(some), self.points)
            first = np.argsort(away, axis=1, kind="stable")[:, :most]
            rows.append(first)
            distances.append(np.take_along_axis(away, first, 1))
        return Order(rows=np.concatenate(rows), distances=np.concatenate(distances))

    def _points_of(self, rows: Examples) -> Any:
        """Return rows as the transformers give them, whose numbers are finite, [b, d]."""
        points = rows.inputs
        if self.transform is not None:
            with said("rows that the transformers can read"):
                points = self.transform.transform(points)
        _check_finite(self.voter, points)
        return points

    def _first(self, order: Order, there: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the places of the first k rows that are there, [b, k]; −1 where too few are."""
        present = there[order.rows]
        place = np.argsort(~present, axis=1, kind="stable")[:, : self.k]
        return np.where(np.take_along_axis(present, place, 1), place, -1)

    def _votes(self, distances: Floats) -> Floats:
        """Return the weight of each vote, summing to 1, [b, k]."""
        if self.voter.weights == "uniform":
            return np.full_like(distances, 1 / distances.shape[1])
        if callable(self.voter.weights):
            votes = np.asarray(self.voter.weights(distances), dtype=np.float64)
        else:
            same = distances == 0
            with np.errstate(divide="ignore"):
                votes = np.where(same.any(1, keepdims=True), same, 1 / distances)
        return np.asarray(votes / votes.sum(1, keepdims=True))


def _distances(estimator: Any, asked: Any, train: Any) -> Floats:
    """Return the distances of a few rows to all training rows, [b, n].

    Euclid's are of differences, as a tree of the library takes them. Of ‖a‖² − 2aᵀb + ‖b‖² rounding
    leaves no digits where columns are far from 0, and no 0 between a row and itself.

    Args:
        estimator: Fitted.
        asked: The rows, [b, d].
        train: The training rows, [n, d].
    """
    metric = estimator.effective_metric_
    asked, train = without_names(asked), without_names(train)
    if metric == "euclidean" and not is_sparse(train) and not is_sparse(asked):
        a, b = (shared(np.asarray(part, dtype=np.float64)) for part in (asked, train))
        away = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        return np.asarray(away.numpy())
    return np.asarray(
        pairwise_distances(asked, train, metric=metric, **estimator.effective_metric_params_)
    )


def _check_finite(estimator: Any, rows: Any) -> None:
    """Raise for rows with what is no finite number, unless the metric knows missing values."""
    if estimator.effective_metric_ != "nan_euclidean":
        as_floats(rows)


def neighbors(
    estimator: Any, X: Any, y: Any, sample_weight: NDArray[np.float64] | None
) -> Neighbors | None:
    """Return a nearest-neighbor model with exact removals, or `None` of anything else.

    Args:
        estimator: Fitted; or a pipeline that ends in it, whose transformers draw nothing and treat
            training rows as new ones.
        X: Its training rows, [n, d].
        y: Its targets, [n], or [n, c] of a regression.
        sample_weight: It takes none.
    """
    voter, transform = final_step(estimator), before(estimator)
    kinds = (KNeighborsClassifier, KNeighborsRegressor)
    if type(voter) not in kinds or sample_weight is not None:
        return None
    if voter.effective_metric_ == "precomputed":
        return None
    labels = labels_of(y)
    if transform is not None and (is_cross_fitted(transform) or not is_steady(transform, len(y))):
        return None
    answer = answer_of(estimator, labels)
    names = column_names(X)
    train = encoded((X, labels), width_of(X), names, answer.targets)
    values = answer.votes(train.targets)
    if values is None:
        return None
    points = train.inputs if transform is None else transform.transform(train.inputs)
    _check_finite(voter, points)
    check_held(voter, as_floats(points), np.ones(len(labels)))
    moved = follows_data(transform)
    notes = (answer.note, _MOVED if moved else "")
    model = Neighbors(
        fitted=estimator,
        answer=answer,
        train=train,
        values=values,
        weights=torch.ones(len(train), dtype=torch.float64),
        orders=Recent(_BYTES),
        transform=transform,
        points=points,
        names=names,
        notes=tuple(note for note in notes if note),
        reader=neighbors,
    )
    return replace(model, notes=(*model.notes, *_of_ties(model)))


def _of_ties(model: Neighbors) -> tuple[str, ...]:
    """Return what a reader must know of rows that are equally far, a sentence at most."""
    few = spread(len(model.train), _LOOKED_AT)
    some = model.train.subset(few)
    own = model.answer.outputs(model.fitted, some.inputs)
    apart = ~np.isclose(model.outputs(some).numpy(), own, rtol=1e-6, atol=1e-9).all(axis=1)
    if not apart.any():
        return ()
    return (
        "Of training rows that are equally far the first in the table vote; "
        f"{type(model.voter).__name__} takes others, and predicts other than here at "
        f"{apart.sum()} of {len(few)} training rows that were looked at.",
    )


def _joined(order: Order, longer: Order, where: NDArray[np.intp]) -> Order:
    """Return an order with some of its rows made longer."""
    most = longer.rows.shape[1]
    extra = most - order.rows.shape[1]
    rows = np.pad(order.rows, ((0, 0), (0, extra)))
    distances = np.pad(order.distances, ((0, 0), (0, extra)))
    rows[where], distances[where] = longer.rows, longer.distances
    return Order(rows=rows, distances=distances)
