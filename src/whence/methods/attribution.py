"""What a method is once it is fitted to a model: predicted changes, as arrays and as scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.arrays import Floats
from whence.checked import checked
from whence.errors import UnsupportedModel
from whence.methods.prediction import Indices, MeasureLike, as_array, measure_name, positions
from whence.methods.sets import (
    asked_of_set,
    check_asked,
    in_blocks,
    summed,
    through_derivative,
)
from whence.methods.subsets import Positions, blocks
from whence.objective.losses import Loss, measure_of
from whence.objective.measures import Measure
from whence.objective.sets.measure import SetMeasure
from whence.objective.trained import Data, Examples, Trained
from whence.scores import Diagnostics, Scores


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

    @property
    def exact(self) -> bool:
        """Whether scores are what a refit gives, with nothing left out."""
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

    def sized_values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return `values`, and where the method can refine them, how far the largest are off."""
        return self.values(queries, measure, where)

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

    @property
    def linear(self) -> bool:
        """Whether scores are linear in the derivative of the measure, and evaluate nothing."""
        return True

    def base(self) -> Trained:
        """Return the model whose outputs removals change: the model, or its own refit."""
        return self.trained

    def set_values(
        self, queries: Examples, measure: SetMeasure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the predicted change of one number of all queries if each candidate is removed.

        By its derivative where it is smooth and the method linear, else evaluated at the outputs
        that the method predicts.

        Args:
            queries: The q queries.
            measure: M.
            where: Positions of the k candidates in the training data.

        Returns:
            The changes, [1, k], and how they were computed.

        Cost:
            `mean_values` by the derivative. Evaluated: `values` of q c queries, and k times M.
        """
        outputs = self.base().outputs(queries)
        if self.linear and measure.smooth:
            effects = partial(summed, self.mean_values, where=where)
            return through_derivative(outputs, queries, measure, self.loss, effects)
        return in_blocks(outputs, queries, measure, self.loss, self.sized_values, where)

    @final
    @checked
    def scores(
        self, queries: Data, *, measure: MeasureLike = "loss", indices: Indices | None = None
    ) -> Scores:
        """Predict how each query's measure changes if each training example is removed.

        Args:
            queries: (X, y) of q queries, or of one.
            measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b]; or
                one number of all queries: one of `whence.measures`, "auroc", "accuracy", or a
                function (outputs, targets) -> [].
            indices: Positions of the candidates in the training data; all n if `None`.

        Returns:
            Scores with values [q, k]; [1, k] for a measure of all queries.

        Raises:
            InvalidInput: If queries, measure or indices cannot be used.
        """
        trained = self.trained
        encoded = trained.examples(queries)
        where = positions(trained, indices)
        of_set = asked_of_set(trained, encoded, measure)
        check_asked(trained, encoded, measure, of_set)
        if of_set is None:
            ids, name = encoded.ids, measure_name(measure)
            found = self.sized_values(encoded, measure_of(self.loss, measure), where)
        else:
            ids, name = np.array([of_set.name]), of_set.name
            found = self.set_values(encoded, of_set, where)
        sized = self._claimed(found[1]) or (trained.convex and found[1].sized)
        return self._scores(ids, name, where, *found, order_only=not sized)

    @final
    def scores_to_rank(self, queries: Examples, measure: MeasureLike) -> Scores:
        """Return the scores of all training examples, their sizes not compared with refined ones.

        For uses that only choose by them what is shown, refined or retrained.

        Args:
            queries: The q queries.
            measure: As `scores` takes it, but none of all queries.
        """
        quantity, where = measure_of(self.loss, measure), np.arange(len(self.trained.train))
        check_asked(self.trained, queries, measure)
        found = self.values(queries, quantity, where)
        name, order_only = measure_name(measure), not self._claimed(found[1])
        return self._scores(queries.ids, name, where, *found, order_only=order_only)

    def _claimed(self, diagnostics: Diagnostics) -> bool:
        """Return whether these scores have the size of a removal."""
        return self.calibrated and not diagnostics.unconfirmed

    def _scores(
        self,
        ids: NDArray[Any],
        name: str,
        where: Positions,
        values: Tensor,
        diagnostics: Diagnostics,
        *,
        order_only: bool,
    ) -> Scores:
        """Return changes of a measure with what they are of and what made them."""
        return Scores(
            values=values.detach().cpu().numpy(),
            query_ids=ids,
            train_ids=self.trained.train.ids[where],
            positions=where,
            n=len(self.trained.train),
            method=self.words,
            measure=name + self.unit,
            diagnostics=diagnostics,
            order_only=order_only,
        )

    def ranking_values(
        self, queries: Examples, measure: Measure, values: NDArray[np.floating[Any]]
    ) -> NDArray[np.floating[Any]]:
        """Return what the examples worth a refined prediction are chosen by.

        The scores themselves, unless the method knows rougher numbers in better order.

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
    @checked
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
        raise self._scores_alone("follows changes of training inputs, such as whence.Influence")

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
        raise self._scores_alone(
            "follows edits, such as whence.Influence or whence.Boosting, or order='refit'"
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
        raise self._scores_alone("follows labels, such as whence.Influence or whence.Boosting")

    @property
    def follows_inputs(self) -> bool:
        """Whether `input_gradient` can be asked for."""
        return type(self).input_gradient is not Attribution.input_gradient

    def _scores_alone(self, does: str) -> UnsupportedModel:
        """Return why the method cannot be asked for something else than scores of removals."""
        return UnsupportedModel(
            f"Expected a method that {does}. Got {self.words}, which scores removals alone."
        )
