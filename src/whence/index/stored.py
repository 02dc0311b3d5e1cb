"""The rows of an index as a method, so that everything that takes a method takes an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import InvalidInput
from whence.index.asking import asked_rows
from whence.index.corpus import corpus_of
from whence.index.format import Manifest
from whence.index.index import Index
from whence.index.scan import products
from whence.methods.attribution import Attribution
from whence.methods.directed import Directed
from whence.methods.features import Side
from whence.methods.method import Method
from whence.methods.subsets import Positions
from whence.objective.measures import Measure
from whence.objective.trained import Examples, Trained
from whence.scores import Diagnostics


@final
@checked
@dataclass(frozen=True)
class Stored(Method):
    """Score training examples by the rows of an index: no training gradient is computed again.

    For `explain`, `report` and every other use that takes `method=`, of the model whose own
    training data are indexed.

    Args:
        index: The index.

    Raises:
        InvalidInput: If the index is not complete, or not of the training data of the model.

    Cost:
        The gradients of the queries, and one pass over the stored rows. Scores of all n examples
        are held, [q, n]; `index.query` holds the first k.

    Examples:
        >>> import tempfile, torch, whence
        >>> x, y = torch.randn(30, 4), torch.arange(30) % 3
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(),
        ...                             torch.nn.Linear(8, 3))
        >>> objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index = whence.Index.build(objective, folder)
        ...     explanation = whence.explain(objective, (x[:1], y[:1]), method=whence.Stored(index))
        ...     len(explanation.helpful) > 0
        True
    """

    index: Index

    def attribution(self, trained: Trained) -> Attribution:
        """Return the scores by stored rows."""
        manifest = self.index.complete()
        own = corpus_of(None, trained).identity
        if [part.identity for part in manifest.data] != [own]:
            raise InvalidInput(
                f"Expected an index of the {len(trained.train):,} training examples of this model "
                f"alone. Got one of {manifest.n:,} rows of other or more data. Use index.query, "
                "which needs no training data."
            )
        return _ByRows(trained, self.index, manifest)


@final
@dataclass(frozen=True, eq=False)
class _ByRows(Directed):
    """Products with stored rows.

    Args:
        trained: The model.
        index: The index.
        manifest: What it holds.
    """

    trained: Trained
    index: Index
    manifest: Manifest

    @property
    def words(self) -> str:
        """What the index says."""
        return f"{self.manifest.words}, {self.manifest.encoding} rows of an index"

    @property
    def unit(self) -> str:
        """The unit of the features."""
        return self.index.features.unit

    @property
    def splits(self) -> bool:
        """Whether the features are projected gradients at θ̂."""
        return self.index.features.splits

    def directions(
        self, examples: Examples, measure: Measure, side: Side
    ) -> tuple[Tensor, Diagnostics]:
        """Return what the features say, where they can."""
        folder, features = self.index.path, self.index.features
        asked, measured = asked_rows(folder, self.manifest, features, examples, measure)
        n = self.manifest.n if features.averaged else 1
        return features.directions(asked * n, side), measured

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the products, [q, k]."""
        folder, features = self.index.path, self.index.features
        asked, measured = asked_rows(folder, self.manifest, features, queries, measure)
        every = torch.cat([part for _, part in products(folder, self.manifest, asked)], 1)
        return every[:, np.asarray(where)], measured
