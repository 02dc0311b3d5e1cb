"""Rows of features with their targets, and how a user's rows become them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.linear.features import Features
from whence.objective.trained import Examples
from whence.rows import take


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LinearExamples(Examples):
    """Rows of features with their targets.

    Args:
        features: X, [b, d].
        targets: Encoded targets, [b] or [b, c].
        ids: The user's names of the rows, [b].
        inputs: The user's own rows, kept for display, for input gradients, and to be encoded again
            by a model whose preprocessing differs.
        encoded_by: The map that made the features, or `None` where every model reads them.
    """

    features: Features
    targets: Tensor
    ids: NDArray[Any]
    inputs: Any
    encoded_by: InputMap | None = None

    def subset(self, indices: NDArray[np.intp]) -> LinearExamples:
        """Return the rows at these positions."""
        return LinearExamples(
            features=self.features.rows(indices),
            targets=self.targets[torch.as_tensor(indices)],
            ids=self.ids[indices],
            inputs=take(self.inputs, indices),
            encoded_by=self.encoded_by,
        )


class InputMap(ABC):
    """How a user's rows become features, and how features answer back in the user's terms."""

    @abstractmethod
    def encode(self, data: Any) -> LinearExamples:
        """Check and encode (x, y)."""

    @abstractmethod
    def features_of(self, inputs: Any) -> Features:
        """Return the features of rows that were checked before, [b, d]."""

    @final
    def encoded(self, examples: LinearExamples) -> LinearExamples:
        """Return examples that another map made, as this one reads them."""
        return replace(examples, features=self.features_of(examples.inputs), encoded_by=self)

    def fixed(self) -> tuple[Tensor, ...]:
        """Return weights that make features and are not trained."""
        return ()

    @abstractmethod
    def vjp(self, examples: LinearExamples, *terms: tuple[Tensor, Tensor]) -> Tensor:
        """Return Σ_a W[b, a] ∂f_a(x_b)/∂x_b of models θ [p], summed over terms (θ, W), [b, d′]."""

    @abstractmethod
    def lift(self, v: Tensor) -> Tensor:
        """Return V [p, k] in the user's own parameters, [p′, k]."""
