"""What a fit computes from its training examples besides parameters, and how that follows them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whence.objective.measures import Measure
from whence.objective.trained import Examples, Trained

Own = TypeVar("Own", bound=Trained)  # the kind of objective that statistics belong to
OwnExamples = TypeVar("OwnExamples", bound=Examples)  # and its examples


@final
@dataclass(frozen=True, eq=False)
class Question(Generic[Own, OwnExamples]):
    """k quantities whose derivatives are asked for.

    Args:
        objective: R at θ̂.
        queries: The q queries.
        measure: m.
        shares: The quantities as sums of the queries' measures, [q, k].
        directions: H⁻¹ ∇ of each, [p, k].
    """

    objective: Own
    queries: OwnExamples
    measure: Measure
    shares: Tensor
    directions: Tensor

    @cached_property
    def slopes(self) -> Tensor:
        """Return ∂/∂f of each quantity at each query, [q, c, k]."""
        outputs = self.objective.outputs(self.queries)
        slopes = self.measure.gradient(outputs, self.queries.targets)
        return slopes.unsqueeze(2) * self.shares.unsqueeze(1)


class Statistics(ABC, Generic[Own, OwnExamples]):
    r"""What a fit computes from its training examples besides θ: s(w), and how it follows them.

    Such are means and scales of the preprocessing, class weights by frequency, the sum of weights
    by which a mean loss divides, the active set of an L1 penalty. At ∇_θ R(θ̂, s(w), w) = 0 an
    example then moves a measure in three ways:

    ```
    dm/dwᵢ = −∇mᵀ H⁻¹ (gᵢ/n + ∂²R/∂θ∂s · ds/dwᵢ) + ∂m/∂s · ds/dwᵢ
    ```
    """

    @property
    @abstractmethod
    def reweights(self) -> bool:
        """Whether a removal changes the weights of the examples that stay."""

    @property
    @abstractmethod
    def moves_features(self) -> bool:
        """Whether the features of examples follow other training examples."""

    @property
    @abstractmethod
    def held(self) -> str:
        """What `effects` holds though it follows the data, in a sentence; "" if nothing."""

    @property
    def lacks_a_class(self) -> bool:
        """Whether the objective is the fit itself, without a class that lost its last example."""
        return False

    @property
    def indispensable(self) -> NDArray[np.intp]:
        """Positions of the training examples without which there is no fit."""
        return np.empty(0, dtype=np.intp)

    @abstractmethod
    def only_weights(self, where: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return for which training examples a removal changes nothing but weights.

        Args:
            where: Positions of the k examples.

        Returns:
            False where other features, or other parameters in use, come with it, [k].
        """

    @abstractmethod
    def weights(self, kept: Tensor) -> Tensor:
        """Return the weight of every training example where only some are there.

        Args:
            kept: 1 for an example that stays, 0 for one that is removed, [n, k].

        Returns:
            The weights in each case, [n, k].
        """

    @abstractmethod
    def weights_as(self, where: NDArray[np.intp], targets: Tensor) -> Tensor:
        """Return the weight that training examples would have with other targets, [k].

        Args:
            where: Positions of the k examples.
            targets: The other targets, encoded, [k].
        """

    @abstractmethod
    def changed(self, objective: Own, weights: Tensor) -> Own:
        """Return R(·, s(w′), w′) at θ̂: the statistics of reweighted data, θ not yet fitted.

        Args:
            objective: R(·, s(w), w) at θ̂.
            weights: w′, [n].

        Returns:
            The objective; where `lacks_a_class`, the fit itself, the class with probability 0.
        """

    @property
    def frequencies(self) -> bool:
        """Whether the weight of an example is the number of rows that it stands for."""
        return False

    @property
    def stops_by_chance(self) -> bool:
        """Whether one fit of the library's may stop early where the next reaches its minimum."""
        return False

    def answers(self, objective: Own, weights: Tensor, queries: OwnExamples) -> Tensor | None:
        """Return the outputs of queries after a refit, where they are had without its objective.

        Args:
            objective: R at θ̂.
            weights: w′, [n].
            queries: The q queries.

        Returns:
            What `refit` would answer, [q, c]; `None` where that is no quicker.
        """
        return None

    def own_fit(self, objective: Own, weights: Tensor) -> Own | None:
        """Return where the library's own fit to other weights ends, or `None`."""

    @abstractmethod
    def edited(self, objective: Own, index: int, example: OwnExamples) -> Own:
        """Return R at θ̂ with one training example replaced, the statistics of the new data.

        Args:
            objective: R at θ̂.
            index: Position of the example that is replaced.
            example: What comes in its place, [1].

        Returns:
            The objective; the new example has the sample weight of the old one.
        """

    @abstractmethod
    def effects(
        self, question: Question[Own, OwnExamples], added: tuple[OwnExamples, int] | None = None
    ) -> Tensor | None:
        """Return what each removal does to quantities through s, to first order.

        Args:
            question: The k quantities.
            added: An example to be added, [1], with the sample weight of that at a position; its
                addition, with the sign of a removal, comes behind those of the training examples.

        Returns:
            wᵢ (∇mᵀ H⁻¹ ∂²R/∂θ∂s − ∂m/∂s) ds/dwᵢ, [k, n] or [k, n + 1]; `None` where nothing
            follows.
        """

    @abstractmethod
    def through_inputs(
        self, question: Question[Own, OwnExamples], where: NDArray[np.intp]
    ) -> Tensor | None:
        """Return what moving training inputs does to one quantity through s, to first order.

        Args:
            question: The quantity.
            where: Positions of the k examples that move.

        Returns:
            Derivatives in the shape of the user's inputs, [k, ...]; `None` where nothing follows.
        """
