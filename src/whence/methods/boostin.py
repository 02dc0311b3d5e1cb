"""BoostIn: what a training row did to the leaf values that a query shares, round by round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from whence.checked import checked
from whence.methods.attribution import Attribution
from whence.methods.halves import boosted
from whence.methods.method import Method
from whence.methods.shared_leaves import SharedLeaves
from whence.objective.trained import Trained
from whence.trees.kernels import boostin


@final
@checked
@dataclass(frozen=True, kw_only=True)
class BoostIn(Method):
    r"""Score training rows by TracIn for boosting: Σ_t ∂m/∂F_{t−1}(x_q) · ∂v_t/∂wᵢ, shared leaves.

    score[q, i] = −wᵢ Σ_t Σ_k [same leaf] ∂m_q/∂F_k ∂v_tk/∂wᵢ. That a row also moves the gradients
    of later rounds is left out, which `Boosting` follows.

    Cost:
        O(q n T c).

    References:
        Brophy, Hammoudeh & Lowd (2023), section 4.2.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.ensemble import HistGradientBoostingRegressor
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = HistGradientBoostingRegressor(max_iter=20).fit(X, y)
        >>> trained = whence.from_sklearn(model, X, y)
        >>> whence.BoostIn().fit(trained).scores((X[:2], y[:2])).values.shape
        (2, 442)
    """

    def attribution(self, trained: Trained) -> Attribution:
        """Return the scores of a boosting model."""
        return SharedLeaves(
            trained=boosted(trained), kernel=boostin, source="BoostIn (Brophy et al. 2023)"
        )
