"""How far the arithmetic of a score can be off: a bound from the residual of its solve."""

from __future__ import annotations

import torch
from torch import Tensor

from whence.arrays import Floats
from whence.checked import checked
from whence.curvature.damping import CurvatureName
from whence.curvature.exact import Gradients
from whence.curvature.prepare import Prepared, prepare
from whence.errors import UnsupportedModel
from whence.linalg.solver import Solver
from whence.methods.prediction import Indices, MeasureLike, as_array, positions
from whence.objective.losses import measure_of
from whence.objective.objective import objective_of
from whence.objective.statistics import Question
from whence.objective.trained import Data, Trained
from whence.tiles import tiles

_AT_ONCE = 256  # training examples whose gradients are made together
_NUMBERS = 2**24  # of training gradients that are held at once: 128 MB of float64
_FREE = 500  # parameters without a penalty whose curvature is bounded by a matrix of their own
_ROUNDING = 1e-12  # of the largest eigenvalue: what rounding may make of the smallest
_FOLLOWED = 500  # parameters up to which the derivative in statistics is formed


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

    |error[q, i]| <= (wᵢ/n) ‖gᵢ‖ ‖r‖ / μ

    Where every parameter has a penalty, μ is the smallest of them, and λ. Those without one, as
    intercepts, are eliminated: with η the smallest penalty of the others, Z = [−U; I] what the
    others do when they move, and S = Zᵀ H Z, 1/μ = 1/η + ‖Z‖²/λ_min(S), both sides corrected for
    the error of U. What a row does through preprocessing and weights is a part of gᵢ.

    It is a bound on the arithmetic alone: what the first order leaves out is in
    `Explanation.intervals`.

    Args:
        objective: R at θ̂, convex; at most 500 parameters without an L2 penalty.
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
            for another curvature, or preprocessing or weights follow the data of more than 500
            parameters.

    Cost:
        The solve of the scores, one for each parameter without a penalty, and the gradient of each
        candidate.

    References:
        Golub & Van Loan (2013), section 2.6.2; Horn & Johnson (2013), section 7.7, for the inverse
        of a matrix in blocks.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = Ridge().fit(X, y)
        >>> objective = whence.from_sklearn(model, X, y)
        >>> bound = whence.error_bound(objective, (X[:2], y[:2]), solver=whence.CG(rtol=1e-6))
        >>> bound.shape
        (2, 442)
    """
    smooth = objective_of(objective)
    where = positions(smooth, indices)
    encoded, quantity = smooth.examples(queries), measure_of(smooth.loss, measure)
    prepared = prepare(smooth, len(encoded), solver=solver, damping=damping, curvature=curvature)
    statistics = smooth.statistics
    follows = statistics is not None and (
        statistics.reweights or not bool(statistics.only_weights(where).all())
    )
    penalties = smooth.l2 + prepared.damping
    free = (penalties <= 0).nonzero().flatten()
    followed = follows and len(smooth.params) > _FOLLOWED
    least = None
    if smooth.convex and not prepared.inverse.substitute and not followed and len(free) <= _FREE:
        # By the solver of the rule: the user's may be too loose to eliminate parameters with.
        tight = prepare(smooth, max(1, len(free)), damping=damping, curvature=curvature)
        least = _least_curvature(penalties, tight, free)
    if least is None:
        raise UnsupportedModel(
            "Expected a convex model whose curvature is bounded below, with a penalty on all but "
            f"{_FREE} parameters (and at most {_FOLLOWED} in all where preprocessing or weights "
            f"follow the data), and a solver of its own curvature. Got {smooth!r} and "
            f"{prepared.solver}. Read the residual in the diagnostics instead."
        )
    unit = torch.eye(len(encoded), dtype=smooth.params.dtype, device=smooth.params.device)
    right = Gradients(smooth, encoded, quantity).rmatmat(unit)
    solution = prepared.inverse.solve(right)
    left_over = solution.residuals.to(right) * right.norm(dim=0)
    through = None
    if follows and statistics is not None:
        basis = torch.eye(len(smooth.params), dtype=smooth.params.dtype)
        through = statistics.effects(
            Question(smooth, encoded, quantity, unit.new_zeros(len(encoded), len(basis)), basis)
        )
    shares = smooth.weights / len(smooth.train)
    sizes = []
    for tile in tiles(len(where), len(smooth.params), _NUMBERS, most=_AT_ONCE):
        at = where[tile]
        own = smooth.gradient_columns(smooth.train.subset(at), smooth.loss) * shares[at]
        sizes.append((own if through is None else own + through[:, at]).norm(dim=0))
    return as_array(torch.outer(left_over, torch.cat(sizes)) / least)


def _least_curvature(penalties: Tensor, prepared: Prepared, free: Tensor) -> float | None:
    """Return a lower bound of the eigenvalues of H + λ I, or `None` where there is none above 0.

    For H = [[A, B], [Bᵀ, C]] with A >= η, V = H⁻¹ [0; I] gives U = −V_A V_C⁻¹ up to the residual
    P = B − A U. Then S − Pᵀ A⁻¹ P, with S = Zᵀ H Z and Z = [−U; I], is the Schur complement of A.

    Args:
        penalties: The penalty of each parameter, and λ, [p].
        prepared: The inverse.
        free: Positions of the parameters without a penalty, [k].
    """
    if not len(free):
        return float(penalties.min())
    others = torch.ones_like(penalties, dtype=torch.bool)
    others[free] = False
    eta = float(penalties[others].min()) if others.any() else torch.inf
    basis = penalties.new_zeros(len(penalties), len(free))
    basis[free, torch.arange(len(free))] = 1
    found = prepared.inverse.solve(basis).value
    corner, failed = torch.linalg.inv_ex(found[free])
    if failed:
        return None
    moved = found @ corner
    moved[free] = basis[free]
    product = prepared.inverse.operator.matmat(moved)
    schur = torch.linalg.eigvalsh((moved.T @ product + product.T @ moved) / 2)
    off, across = float(product[others].norm()), float(moved[others].norm())
    rest = float(schur[0]) - off**2 / eta - _ROUNDING * float(schur[-1])
    if not rest > 0:
        return None
    return 1 / (1 / eta + (1 + (across + off / eta) ** 2) / rest)
