"""Influence of training examples on queries, on themselves and on the parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

from whence.arrays import Floats
from whence.checked import checked
from whence.curvature.damping import CurvatureName
from whence.errors import UnsupportedModel
from whence.linalg.solver import Solver
from whence.methods.attribution import Attribution
from whence.methods.features import FeatureMap
from whence.methods.method import Method
from whence.methods.orders import Evaluated, FirstOrder, Options
from whence.methods.preconditioned import Preconditioned
from whence.methods.prediction import ORDERS, Indices, Order
from whence.methods.projections import Unprojected
from whence.objective.objective import objective_of
from whence.objective.trained import Trained

_WIDEST = 2**17  # parameters up to which an index has rows of whole gradients


@final
@checked
@dataclass(frozen=True, kw_only=True)
class Influence(Options, Method):
    """Predict removals by the inverse curvature of the objective: influence functions.

    first:   (wᵢ/n) ∇m_qᵀ H⁻¹ gᵢ, the paper's influence, linear in everything;
    newton:  m_q(θ̂ + Δᵢ) − m_q(θ̂), Δᵢ one Newton step of the objective without example i;
    refined: the same after two more steps, each with a fresh gradient.
    Of a true hinge both are the minimum itself, found by walking its support vectors.

    Args:
        order: "first", "newton" or "refined".
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.
        curvature: "hessian", "ggn" or "auto"; see `whence.influence`.
        normalize: RelatIF, for the first order; see `whence.influence`.

    Raises:
        InvalidInput: If an option cannot be used.

    Cost:
        As `whence.influence`.

    References:
        Koh & Liang (2017), section 2.1, equation 2; Barshan et al. (2020) for normalize.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> whence.Influence().fit(objective).scores((X[:2], y[:2])).values.shape
        (2, 442)
    """

    def attribution(self, trained: Trained) -> Attribution:
        """Return influence on an objective."""
        kind = FirstOrder if self.order == "first" else Evaluated
        return kind(objective_of(trained), self)

    def feature_map(self, trained: Trained) -> FeatureMap:
        """Return whole gradients, and the inverse curvature times those of queries."""
        objective = objective_of(trained)
        evaluated = self.order != "first" or self.normalize != "none"
        if evaluated or objective.statistics is not None:
            return super().feature_map(trained)
        if len(objective.params) > _WIDEST:
            raise UnsupportedModel(
                f"Expected at most {_WIDEST:,} parameters for rows of whole gradients. Got "
                f"{len(objective.params):,}. Use whence.Projected(solver=whence.EKFAC())."
            )
        return Preconditioned(
            trained=objective,
            project=Unprojected(objective),
            words=ORDERS["first"],
            solver=self.solver,
            damping_asked=self.damping,
            curvature_name=self.curvature,
        )

    def refined(self) -> Method | None:
        """Return the refined order of the same influence."""
        if self.order == "refined" or self.normalize != "none":
            return None
        return replace(self, order="refined")

    def rougher(self) -> Method | None:
        """Return a Newton step for the refined order, and the first order for a Newton step."""
        before: dict[Order, Order] = {"refined": "newton", "newton": "first"}
        return replace(self, order=before[self.order]) if self.order in before else None


@checked
def self_influence(
    objective: Trained,
    *,
    indices: Indices | None = None,
    solver: Solver | None = None,
    damping: float | None = None,
    curvature: CurvatureName = "auto",
) -> Floats:
    """Predict how far each training example's own loss rises when it is removed, first order.

    (wᵢ/n) gᵢᵀ H⁻¹ gᵢ: large where the model fits an example only because it was trained on it,
    which is what a wrong label looks like.

    Args:
        objective: R at θ̂.
        indices: Positions in the training data; all n if `None`.
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.
        curvature: "hessian", "ggn" (the Gauss–Newton matrix) or "auto": the exact Hessian of a
            convex objective or at a strict minimum, elsewhere the damped Gauss–Newton matrix.

    Returns:
        Self-influence in nats, [n] or [k]; never negative.

    Raises:
        InvalidInput: If the indices are no positions.
        NotPositiveDefinite: If the curvature is singular or indefinite.

    Cost:
        One solve per example, in blocks. For a wide linear model of one output with an L2 penalty
        the products of its rows, their factor and a half solve of n numbers per example.

    References:
        Koh & Liang (2017), section 5.4.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> whence.self_influence(whence.from_sklearn(Ridge().fit(X, y), X, y)).shape
        (442,)
    """
    return (
        Influence(solver=solver, damping=damping, curvature=curvature)
        .fit(objective)
        .self_scores(indices)
    )
