"""Methods whose scores are derivatives of training losses along a direction of the parameters."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from whence.methods.attribution import Attribution
from whence.methods.features import Side
from whence.objective.measures import Measure
from whence.objective.trained import Examples
from whence.scores import Diagnostics


class Directed(Attribution):
    """A method whose score is (wᵢ/n) ∇m_qᵀ C ∇ℓᵢ, so that it splits as the loss does."""

    @property
    def splits(self) -> bool:
        """Whether the options of the method leave such a C."""
        return not self.unit

    @abstractmethod
    def directions(
        self, examples: Examples, measure: Measure, side: Side
    ) -> tuple[Tensor, Diagnostics]:
        """Return C ∇m of queries, or Cᵀ ∇ℓ of training examples.

        Args:
            examples: The queries, or the training examples.
            measure: m, or ℓ.
            side: What is split: the "training" loss along C ∇m, the "query" along Cᵀ ∇ℓ.

        Returns:
            A column for each example, [p, b], and how they were computed.

        Raises:
            UnsupportedModel: If C is not symmetric, and known on the other side only.
        """


def directed(attribution: Attribution) -> Directed | None:
    """Return a method whose scores can be split over tokens, or `None`.

    Args:
        attribution: The method, fitted to a model.
    """
    return attribution if isinstance(attribution, Directed) and attribution.splits else None
