"""A kernel of the leaves that a query and a training row share, times the gradient of the row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whence.checked import checked
from whence.methods.halves import boosted
from whence.methods.method import Attribution, Method, Positions
from whence.objective.measures import Measure
from whence.objective.trained import Examples, Trained
from whence.scores import Diagnostics
from whence.trees.kernels import leaf_kernel
from whence.trees.model import BoostedModel


@final
@checked
@dataclass(frozen=True, kw_only=True)
class LeafKernel(Method):
    r"""Score training rows by the leaves they share with a query and their gradient at the end.

    score[q, i] = −wᵢ Σ_t Σ_k [same leaf] ∂m_q/∂F_k ∂v_tk/∂wᵢ, each round as one more Newton step
    from the final outputs would be: about η wᵢ gᵢ / (H + λ) per shared leaf.

    Cost:
        O(q n T c).

    References:
        Brophy, Hammoudeh & Lowd (2023), section 4.5, on kernels of shared leaves.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.ensemble import HistGradientBoostingRegressor
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = HistGradientBoostingRegressor(max_iter=20).fit(X, y)
        >>> trained = whence.from_sklearn(model, X, y)
        >>> whence.LeafKernel().fit(trained).scores((X[:2], y[:2])).values.shape
        (2, 442)
    """

    def attribution(self, trained: Trained) -> Attribution:
        """Return the scores of a boosting model."""
        return _LeafKernel(boosted(trained))


@final
@dataclass(frozen=True, eq=False)
class _LeafKernel(Attribution):
    """The kernel of one model.

    Args:
        trained: The model.
    """

    trained: BoostedModel

    @property
    def words(self) -> str:
        """The method, with its source."""
        return "kernel of shared leaves (after Brophy et al. 2023)"

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return −w times the sums over shared leaves, [q, k]."""
        trees = self.trained.trees
        leaves = trees.leaves_of(queries.inputs)
        outputs = torch.from_numpy(trees.replay.predict(leaves))
        gradients = measure.gradient(outputs, queries.targets).numpy()
        found = leaf_kernel(trees, leaves, gradients, rows=where)
        values = torch.from_numpy(-trees.weights[where] * found)
        return values, Diagnostics(notes=self.trained.notes)
