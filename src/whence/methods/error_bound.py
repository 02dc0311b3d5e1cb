"""How far the arithmetic of a score can be off: a bound from the residual of its solve."""

from __future__ import annotations

import torch

from whence.checked import checked
from whence.curvature.damping import CurvatureName
from whence.curvature.exact import Gradients
from whence.curvature.prepare import prepare
from whence.errors import UnsupportedModel
from whence.linalg.solver import Solver
from whence.methods.prediction import Floats, Indices, MeasureLike, as_array, positions
from whence.objective.losses import measure_of
from whence.objective.objective import objective_of
from whence.objective.trained import Data, Trained
from whence.tiles import tiles

_AT_ONCE = 256  # training examples whose gradients are made together
_NUMBERS = 2**24  # of training gradients that are held at once: 128 MB of float64


@checked
def error_bound(
    objective: Trained,
    queries: Data,
    *,
    measure: MeasureLike = "loss",
    indices: Indices | None = None,
    solver: Solver | None = None,
    damping: float | None = None,
    curvature: CurvatureName = "auto",
) -> Floats:
    """Bound how far each first-order score is from the score of an exact solve.

    With r = ∇m_q − (H + λ I) x the residual of the solve, recomputed, the score is off by
    (wᵢ/n) gᵢᵀ (H + λ I)⁻¹ r, and the curvature is nowhere below μ:

    |error[q, i]| <= (wᵢ/n) ‖gᵢ‖ ‖r‖ / μ,   μ = λ + the smallest l2 of any parameter

    It is a bound on the arithmetic alone: what the first order leaves out is in
    `Explanation.intervals`.

    Args:
        objective: R at θ̂, convex, with l2 > 0 (or damping) for every parameter.
        queries: (X, y) of q queries, or of one.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        indices: Positions of the candidates in the training data; all n if `None`.
        solver: As for `whence.influence`.
        damping: As for `whence.influence`.
        curvature: As for `whence.influence`.

    Returns:
        Bounds, [q, k], in the unit of the scores.

    Raises:
        InvalidInput: If queries, indices or options cannot be used.
        UnsupportedModel: If the curvature has no lower bound that is known, or the solver stands
            for another curvature, or preprocessing and weights follow the data.

    Cost:
        The solve of the scores, and the gradient of each candidate.

    References:
        Golub & Van Loan (2013), section 2.6.2.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = Ridge(fit_intercept=False).fit(X, y)
        >>> objective = whence.from_sklearn(model, X, y)
        >>> bound = whence.error_bound(objective, (X[:2], y[:2]), solver=whence.CG(rtol=1e-6))
        >>> bound.shape
        (2, 442)
    """
    smooth = objective_of(objective)
    where = positions(smooth, indices)
    encoded, quantity = smooth.examples(queries), measure_of(smooth.loss, measure)
    prepared = prepare(smooth, len(encoded), solver=solver, damping=damping, curvature=curvature)
    least = prepared.damping + float(smooth.l2.min())
    statistics = smooth.statistics
    follows = statistics is not None and (
        statistics.reweights or not bool(statistics.only_weights(where).all())
    )
    if not smooth.convex or least <= 0 or prepared.inverse.substitute or follows:
        raise UnsupportedModel(
            "Expected a convex model with a penalty on every parameter, whose preprocessing and "
            f"weights do not follow the data, and a solver of its own curvature. Got {smooth!r} "
            f"and {prepared.solver}. Read the residual in the diagnostics instead."
        )
    right = Gradients(smooth, encoded, quantity).rmatmat(
        torch.eye(len(encoded), dtype=smooth.params.dtype, device=smooth.params.device)
    )
    solution = prepared.inverse.solve(right)
    left_over = solution.residuals.to(right) * right.norm(dim=0)
    sizes = [
        smooth.gradient_columns(smooth.train.subset(where[tile]), smooth.loss).norm(dim=0)
        for tile in tiles(len(where), len(smooth.params), _NUMBERS, most=_AT_ONCE)
    ]
    shares = smooth.weights[torch.from_numpy(where)] / len(smooth.train)
    return as_array(torch.outer(left_over, torch.cat(sizes) * shares) / least)
