"""What a method is: frozen options that, fitted to a model, predict what removals do to queries.

```
method.fit(trained)           pays for what all queries share, once per model
    .scores(queries)          predicted change of each query's measure if each example is removed
    .self_scores()            the same of each training example's own loss
```

A new method writes `attribution`, and an `Attribution` with `values`; every use of whence takes it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.errors import UnsupportedModel
from whence.methods.prediction import (
    Floats,
    Indices,
    MeasureLike,
    as_array,
    measure_name,
    positions,
)
from whence.objective.cache import cached
from whence.objective.losses import Loss, measure_of
from whence.objective.measures import Measure
from whence.objective.trained import Data, Examples, Trained
from whence.scores import Diagnostics, Scores
from whence.tiles import tiles

Positions: TypeAlias = NDArray[np.intp]

_BLOCK = 256  # training examples whose scores on one another are held at once


class Method(ABC):
    """A way to score training examples: frozen options and one function.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> method: Method = whence.Influence(order="newton")
        >>> method.fit(objective).scores((X[:2], y[:2]), indices=[5, 6, 7]).values.shape
        (2, 3)
    """

    @abstractmethod
    def attribution(self, trained: Trained) -> Attribution:
        """Return the method fitted to a model; called once per model by `fit`.

        Args:
            trained: The model.

        Returns:
            The attribution.

        Raises:
            UnsupportedModel: If the method does not apply to such a model.
        """

    @final
    def fit(self, trained: Trained) -> Attribution:
        """Return the method fitted to a model: computed once, and freed with the model.

        Args:
            trained: The model.

        Returns:
            The attribution.

        Raises:
            UnsupportedModel: If the method does not apply to such a model.
        """
        return cached(trained, self, self.attribution)

    def refined(self) -> Method | None:
        """Return the method that predicts the size of single effects better, or `None`."""
        return None


class Attribution(ABC):
    """A method fitted to a model.

    Attributes:
        trained: The model.
    """

    trained: Trained

    @property
    @abstractmethod
    def words(self) -> str:
        """What makes the scores, with its source, in words."""

    @property
    def loss(self) -> Loss:
        """The loss that the named measures are made of."""
        return self.trained.loss

    @property
    def unit(self) -> str:
        """What follows the name of the measure where scores are in another unit than its own."""
        return ""

    @property
    def calibrated(self) -> bool:
        """Whether a single score has the size of the change after retraining, not only its rank."""
        return False

    @abstractmethod
    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the predicted change of each query's measure if each candidate is removed.

        Args:
            queries: The q queries.
            measure: m.
            where: Positions of the k candidates in the training data.

        Returns:
            The changes, [q, k], and how they were computed.
        """

    def mean_values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the predicted change of the queries' mean measure without each candidate, [k].

        Args:
            queries: The queries.
            measure: m.
            where: Positions of the k candidates in the training data.

        Returns:
            The changes, and how they were computed.

        Cost:
            `values` of all queries, unless the method knows a shorter way.
        """
        values, diagnostics = self.values(queries, measure, where)
        return values.mean(0), diagnostics

    @final
    def scores(
        self, queries: Data, *, measure: MeasureLike = "loss", indices: Indices | None = None
    ) -> Scores:
        """Predict how each query's measure changes if each training example is removed.

        Args:
            queries: (X, y) of q queries, or of one.
            measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
            indices: Positions of the candidates in the training data; all n if `None`.

        Returns:
            Scores with values [q, k].

        Raises:
            InvalidInput: If queries, measure or indices cannot be used.
        """
        trained = self.trained
        encoded = trained.examples(queries)
        where = positions(trained, indices)
        if isinstance(measure, str):
            _check_targets(trained, encoded)
        values, diagnostics = self.values(encoded, measure_of(self.loss, measure), where)
        return Scores(
            values=values.detach().cpu().numpy(),
            query_ids=encoded.ids,
            train_ids=trained.train.ids[where],
            positions=where,
            n=len(trained.train),
            method=self.words,
            measure=measure_name(measure) + self.unit,
            diagnostics=diagnostics,
        )

    @final
    def ranking(self, queries: Data, scores: Scores, *, measure: MeasureLike = "loss") -> Scores:
        """Return what the training examples worth a refined prediction are chosen by.

        Args:
            queries: The q queries.
            scores: Scores of all training examples on them, by this method.
            measure: What is predicted.

        Returns:
            Scores in the same places: the same ones, or rougher numbers in better order.
        """
        encoded = self.trained.examples(queries)
        ranked = self.ranking_values(encoded, measure_of(self.loss, measure), scores.values)
        return replace(scores, values=ranked)

    def ranking_values(
        self, queries: Examples, measure: Measure, values: NDArray[np.floating[Any]]
    ) -> NDArray[np.floating[Any]]:
        """Return what `ranking` holds: the scores themselves, unless the method knows better.

        Args:
            queries: The q queries.
            measure: m.
            values: Scores of all training examples, [q, n].

        Returns:
            Numbers by which examples are ordered, [q, n].
        """
        return values

    def self_values(self, where: Positions) -> tuple[Tensor, Diagnostics]:
        """Return the predicted change of each candidate's own loss if it is removed.

        Args:
            where: Positions of the k candidates in the training data.

        Returns:
            The changes, [k], and how they were computed.

        Cost:
            `values` of the candidates on each other, unless the method knows a shorter way.
        """
        parts = []
        for part in blocks(where):
            values, diagnostics = self.values(self.trained.train.subset(part), self.loss, part)
            parts.append(values.diagonal())
        return torch.cat(parts), diagnostics

    @final
    def self_scores(self, indices: Indices | None = None) -> Floats:
        """Predict how far each training example's own loss rises when it is removed.

        Args:
            indices: Positions in the training data; all n if `None`.

        Returns:
            Changes of the loss, [n] or [k].

        Raises:
            InvalidInput: If the indices are no positions.
        """
        return as_array(self.self_values(positions(self.trained, indices))[0])

    def input_gradient(self, queries: Examples, measure: Measure, where: Positions) -> Tensor:
        """Return the derivative of the queries' mean measure in the inputs of training examples.

        Args:
            queries: The queries.
            measure: m.
            where: Positions of the k training examples.

        Returns:
            ∂m̄/∂xᵢ, [k, ...] in the shape of the user's inputs.

        Raises:
            UnsupportedModel: If the method does not follow changes of inputs.
        """
        raise UnsupportedModel(
            "Expected a method that follows changes of training inputs, such as whence.Influence. "
            f"Got {self.words}, which scores removals alone."
        )

    def outputs_without(self, where: Positions) -> Tensor | None:
        """Return the outputs of each candidate by models that have not seen it, or `None`.

        Args:
            where: Positions of the k candidates in the training data.

        Returns:
            Outputs, [k, c]; `None` where the method knows none.
        """
        return None

    def edit_effects(
        self, queries: Examples, measure: Measure, index: int, new: Examples
    ) -> Tensor:
        """Return the predicted change of each query's measure if a training example is replaced.

        Args:
            queries: The q queries.
            measure: m.
            index: Position of the example that goes.
            new: The example that comes, one.

        Returns:
            The changes, [q].

        Raises:
            UnsupportedModel: If the method does not follow edits.
        """
        raise UnsupportedModel(
            "Expected a method that follows edits, such as whence.Influence or whence.Boosting. "
            f"Got {self.words}, which scores removals alone."
        )

    def relabel_effects(
        self, queries: Examples, measure: Measure, where: Positions, targets: Tensor
    ) -> Tensor:
        """Return the predicted change of the queries' mean measure if examples get other labels.

        Args:
            queries: The queries.
            measure: m.
            where: Positions of the k examples, each relabeled alone.
            targets: The other labels, encoded, [k].

        Returns:
            The changes, [k].

        Raises:
            UnsupportedModel: If the method does not follow edits.
        """
        raise UnsupportedModel(
            "Expected a method that follows labels, such as whence.Influence or whence.Boosting. "
            f"Got {self.words}, which scores removals alone."
        )

    @property
    def follows_inputs(self) -> bool:
        """Whether `input_gradient` can be asked for."""
        return type(self).input_gradient is not Attribution.input_gradient


class FeatureAttribution(Attribution):
    """A method whose score is an inner product: ⟨query features, training features⟩."""

    @abstractmethod
    def train_features(self, where: Positions) -> Tensor:
        """Return the features of training examples, scaled by wᵢ/n, [k, d]."""

    @abstractmethod
    def query_features(self, queries: Examples, measure: Measure) -> Tensor:
        """Return the features of queries, [q, d]."""

    @abstractmethod
    def measured(self) -> Diagnostics:
        """Return how the features were computed."""

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the inner products, [q, k]."""
        products = self.query_features(queries, measure) @ self.train_features(where).T
        return products, self.measured()

    def self_values(self, where: Positions) -> tuple[Tensor, Diagnostics]:
        """Return the inner product of each example's own two features, [k]."""
        parts = []
        for part in blocks(where):
            queries = self.query_features(self.trained.train.subset(part), self.loss)
            parts.append((queries * self.train_features(part)).sum(1))
        return torch.cat(parts), self.measured()


def blocks(where: Positions, size: int = _BLOCK) -> Iterator[Positions]:
    """Yield positions a few at a time.

    Args:
        where: Positions, [k].
        size: The most in a block, >= 1.

    Yields:
        Consecutive blocks.
    """
    for part in tiles(len(where), budget=size):
        yield where[part]


def train_subset(trained: Trained, where: Positions) -> Examples:
    """Return the training examples at some positions; the same object for all of them, in order.

    Args:
        trained: The model.
        where: Positions, [k].

    Returns:
        The examples.
    """
    n = len(trained.train)
    if len(where) == n and bool((where == np.arange(n)).all()):
        return trained.train
    return trained.train.subset(where)


def _check_targets(trained: Trained, queries: Examples) -> None:
    """Raise `InvalidInput` unless the queries' targets fit the loss; one row of outputs tells."""
    one = trained.outputs(queries.subset(np.arange(1)))
    trained.loss.check_targets(one.expand(len(queries), *one.shape[1:]), queries.targets)
