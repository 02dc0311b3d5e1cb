"""Methods whose score is an inner product of a query's features and a training example's."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from whence.methods.attribution import Attribution
from whence.methods.subsets import Positions, blocks
from whence.objective.measures import Measure
from whence.objective.trained import Examples
from whence.scores import Diagnostics


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
