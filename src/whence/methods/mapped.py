"""A method whose features of single examples are held in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

from torch import Tensor

from whence.methods.directed import Directed
from whence.methods.feature_attribution import FeatureAttribution
from whence.methods.features import FeatureMap, Side
from whence.methods.subsets import Positions
from whence.objective.measures import Measure
from whence.objective.trained import Examples, Trained
from whence.scores import Diagnostics


@final
@dataclass(frozen=True, eq=False)
class Mapped(FeatureAttribution, Directed):
    """Inner products of the features of a map that inverts no second moment.

    Args:
        trained: The model.
        features: The map; without groups.
    """

    trained: Trained
    features: FeatureMap

    @property
    def words(self) -> str:
        """What the map says."""
        return self.features.words

    @property
    def unit(self) -> str:
        """The unit of the map."""
        return self.features.unit

    @cached_property
    def _rows(self) -> Tensor:
        """Return the features of all training examples, [n, d], slopes and wᵢ/n taken in."""
        train, features = self.trained.train, self.features
        rows = features.rows(train)
        slopes = features.slopes(train).to(rows)
        for where, slope in zip(features.columns, slopes.unbind(1), strict=True):
            rows[:, where] *= slope.unsqueeze(1)
        if features.averaged:
            rows *= self.trained.weights.to(rows).unsqueeze(1) / len(train)
        return rows

    def train_features(self, where: Positions) -> Tensor:
        """Return the features of training examples, [k, d]."""
        return self._rows[where]

    def query_features(self, queries: Examples, measure: Measure) -> Tensor:
        """Return the features of queries, [q, d]."""
        return self.features.queries(queries, measure)

    @property
    def splits(self) -> bool:
        """Whether the features are projected gradients at θ̂."""
        return self.features.splits

    def directions(
        self, examples: Examples, measure: Measure, side: Side
    ) -> tuple[Tensor, Diagnostics]:
        """Return what the map says, where it can."""
        rows = self.query_features(examples, measure)
        return self.features.directions(rows, side), self.measured()

    def measured(self) -> Diagnostics:
        """Return what the map says."""
        return self.features.measured()
