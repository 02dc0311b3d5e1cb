"""The scores of training examples on queries, by influence where a model has derivatives."""

from __future__ import annotations

from whence.checked import checked
from whence.curvature.damping import CurvatureName
from whence.linalg.solver import Solver
from whence.methods.choose import default_method
from whence.methods.influence import Influence
from whence.methods.prediction import Indices, MeasureLike, Order
from whence.methods.relatif import Normalize
from whence.objective.trained import Data, Trained
from whence.scores import Scores


@checked
def influence(
    objective: Trained,
    queries: Data,
    *,
    order: Order = "first",
    measure: MeasureLike = "loss",
    indices: Indices | None = None,
    solver: Solver | None = None,
    damping: float | None = None,
    curvature: CurvatureName = "auto",
    normalize: Normalize = "none",
) -> Scores:
    """Predict how each query's measure changes if each training example is removed.

    first:   (wᵢ/n) ∇m_qᵀ H⁻¹ gᵢ, the paper's influence, linear in everything;
    newton:  m_q(θ̂ + Δᵢ) − m_q(θ̂), Δᵢ one Newton step of the objective without example i;
    refined: the same after two more steps, each with a fresh gradient.
    Of a true hinge both are the minimum itself, found by walking its support vectors.

    What else of a fit follows its data, such as preprocessing and class weights, moves with it: to
    first order by its derivative, in the other orders fitted again without the example.

    Args:
        objective: R at θ̂, or a recorded training, at its end. A model without derivatives in
            parameters, such as trees, is scored by the method of its kind, as by `whence.explain`;
            options of influence are then refused.
        queries: (X, y) of q queries, or of one.
        order: "first", "newton" or "refined".
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b]; or one
            number of all queries, as those of `whence.measures`.
        indices: Positions of the candidates in the training data; all n if `None`.
        solver: What inverts the curvature; chosen by cost if `None`, and then a linear model above
            4,000 parameters may be solved and scored in float32, to a relative residual of 1e-5
            that is measured in float64. A solver that is passed works in the model's precision.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.
        curvature: "hessian", "ggn" (the Gauss–Newton matrix) or "auto": the exact Hessian of a
            convex objective or at a strict minimum, elsewhere the damped Gauss–Newton matrix.
        normalize: RelatIF, for the first order: ∇m_qᵀ H⁻¹ gᵢ over √(gᵢᵀ H⁻¹ gᵢ) ("loss") or
            over ‖H⁻¹ gᵢ‖ ("parameters"), without wᵢ/n. `scores.measure` names the changed unit.

    Returns:
        Scores with values [q, n], or [q, k] for k candidates; in nats for the loss.

    Raises:
        InvalidInput: If queries, indices or options cannot be used.
        NotPositiveDefinite: If the curvature is singular or indefinite.

    Warns:
        NotConvergedWarning: If the fit or a solve has not converged.

    Cost:
        first: q solves and one product of the training gradients with [p, q].
        newton: k c solves for k candidates. refined: 2 k more, and four passes over the data
        for each. normalize: k solves.

    References:
        Koh & Liang (2017), section 2.1, equation 2; Barshan et al. (2020) for normalize.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X[1:], y[1:])
        >>> objective = whence.from_sklearn(model, X[1:], y[1:])
        >>> scores = whence.influence(objective, (X[:1], y[:1]))
        >>> scores.values.shape
        (1, 149)
    """
    method = Influence(
        order=order, solver=solver, damping=damping, curvature=curvature, normalize=normalize
    )
    if method == Influence() and objective.differentiable() is None:
        return (
            default_method(objective)
            .fit(objective)
            .scores(queries, measure=measure, indices=indices)
        )
    return method.fit(objective).scores(queries, measure=measure, indices=indices)
