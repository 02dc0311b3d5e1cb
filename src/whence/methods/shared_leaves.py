"""Scores of boosted trees from the leaves that a query and a training row share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.arrays import Floats
from whence.methods.attribution import Attribution
from whence.methods.subsets import Positions
from whence.objective.measures import Measure
from whence.objective.trained import Examples
from whence.scores import Diagnostics
from whence.trees.model import BoostedModel


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class SharedLeaves(Attribution):
    """The scores of one boosting model by a kernel of shared leaves.

    Args:
        trained: The model.
        kernel: Σ over shared leaves of ∂m/∂F ∂v/∂wᵢ, from the trees, the leaves of the queries and
            their ∂m/∂F at given outputs, [q, k].
        source: The method, with its source.
    """

    trained: BoostedModel
    kernel: Callable[..., Floats]
    source: str

    @property
    def words(self) -> str:
        """The method, with its source."""
        return self.source

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return −w times the sums over shared leaves, [q, k]."""
        trees = self.trained.trees

        def gradient(outputs: Floats) -> Floats:
            found = measure.gradient(torch.from_numpy(outputs), queries.targets)
            return np.asarray(found.numpy())

        found = self.kernel(trees, trees.leaves_of(queries.inputs), gradient, rows=where)
        values = torch.from_numpy(-trees.weights[where] * found)
        return values, Diagnostics(notes=self.trained.notes)
