"""A kernel of the leaves that a query and a training row share, times the gradient of the row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from whence.checked import checked
from whence.methods.attribution import Attribution
from whence.methods.halves import boosted
from whence.methods.method import Method
from whence.methods.shared_leaves import SharedLeaves
from whence.objective.trained import Trained
from whence.trees.kernels import leaf_kernel


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
        return SharedLeaves(
            trained=boosted(trained),
            kernel=leaf_kernel,
            source="kernel of shared leaves (after Brophy et al. 2023)",
        )
