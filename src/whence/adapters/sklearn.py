"""Fitted scikit-learn estimators as the objectives they minimized.

Every objective is brought to R(θ) = (1/n) Σ wᵢ ℓᵢ + Ω(θ). Where scikit-learn minimizes
C Σ sᵢ ℓᵢ + ½‖w‖², that is l2 = 1/(n C); where it minimizes a sum of squares plus α‖w‖², l2 = α/n;
where it normalizes sample weights, so does w. Intercepts are not penalized, but for liblinear's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from whence.adapters.estimators import Problem, reader
from whence.adapters.kernel import Kernel, RowSpace, row_space
from whence.adapters.pullback import pullback_of
from whence.adapters.tabular import TabularMap, as_floats, as_rows
from whence.errors import InvalidInput, NotFitted, UnsupportedModel
from whence.fitting.refit import refit
from whence.linear.features import Features
from whence.linear.objective import LinearObjective
from whence.linear.wide import WideObjective
from whence.objective.arrays import shared
from whence.objective.derived_losses import OneVersusRest
from whence.objective.losses import Loss, SmoothHinge

Floats = NDArray[np.float64]


def from_sklearn(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    temperature: float = 0.001,
) -> LinearObjective:
    """Return a fitted estimator, with the data it was fitted on, as the objective it minimized.

    R(θ) = (1/n) Σ wᵢ ℓ(f_θ(xᵢ), yᵢ) + Ω(θ) at the fitted θ̂, with the estimator's own C or alpha,
    class and sample weights, and its treatment of the intercept.

    Args:
        estimator: A fitted LogisticRegression, LinearRegression, Ridge, RidgeClassifier, Lasso,
            ElasticNet, LinearSVC, SVC (binary; linear, rbf or poly), SGDClassifier,
            PoissonRegressor, GammaRegressor or TweedieRegressor, or a Pipeline that ends in one.
        X: The rows it was fitted on: array, frame or sparse matrix, [n, d]. A frame's index names
            the rows. Sparse matrices are never made dense.
        y: The targets it was fitted on, [n].
        sample_weight: The sample weights it was fitted with, [n], >= 0.
        temperature: t > 0 of the smoothed hinge through which hinge losses are differentiated, in
            units of the margin.

    Returns:
        The objective.

    Raises:
        NotFitted: If the estimator has not been fitted.
        UnsupportedModel: If it is of another kind, or uses an option without an exact treatment.
        InvalidInput: If X, y or the weights cannot be what it was fitted on.

    Cost:
        None for n >= d. A wide (d > n) or kernel model costs one n x n kernel matrix and its
        Cholesky factor, and then has at most n parameters per output; a wide one when its
        parameters are first asked for.

    References:
        Koh & Liang (2017), sections 2 and 4.3; for wide models the representer theorem.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> objective = whence.from_sklearn(LogisticRegression(max_iter=1000).fit(X, y), X, y)
        >>> objective.params.shape, objective.classes
        (torch.Size([15]), (0, 1, 2))
    """
    if not temperature > 0:
        raise InvalidInput(f"Expected temperature > 0. Got {temperature}.")
    final, transform = _split(estimator)
    _check_fitted(estimator, final)
    width, names = _fitted_columns(estimator, X)
    rows, ids = as_rows(X, width, names)
    n = rows.shape[0]
    if n < 2:
        raise InvalidInput(f"Expected at least 2 training rows. Got {n}.")
    given = _sample_weights(sample_weight, n)
    labels = np.asarray(y)
    if labels.shape[:1] != (n,):
        raise InvalidInput(f"Expected {n} targets, one per row. Got shape {labels.shape}.")
    classes = getattr(final, "classes_", None)
    if classes is not None and len(np.unique(labels)) < 2:
        raise InvalidInput(f"Expected at least 2 classes in y. Got only {labels.tolist()[0]!r}.")
    matrix = as_floats(rows if transform is None else transform.transform(rows))
    problem = reader(final)(final, n, given)
    weights = problem.weights * _class_weights(final, problem.loss, classes, labels, given)
    return _objective(
        problem, transform, matrix, rows, ids, y, weights, width, names, classes, temperature
    )


def _objective(
    problem: Problem,
    transform: Pipeline | None,
    matrix: Any,
    rows: Any,
    ids: NDArray[Any],
    y: Any,
    weights: Floats,
    width: int,
    names: tuple[str, ...] | None,
    classes: NDArray[Any] | None,
    temperature: float,
) -> LinearObjective:
    """Put the pieces together, in the smaller of the two dimensions."""
    notes = []
    coef, c = problem.coef, len(problem.coef)
    columns = None
    if problem.l1:
        columns = np.flatnonzero(coef.any(axis=0))
        if not len(columns):
            raise UnsupportedModel(
                "Expected a fit with at least one nonzero coefficient. Got none: the L1 penalty "
                "has set all to zero. Fit with a weaker penalty."
            )
        coef = coef[:, columns]
        notes.append(
            f"L1 penalty: effects are on the {int((coef != 0).sum())} nonzero coefficients, with "
            "their signs; a removal that would bring another one in is not foreseen."
        )
    n, d = matrix.shape
    wide = problem.kernel is None and d > n and not problem.l1 and bool(np.all(problem.l2 > 0))
    if wide:
        notes.append("Solved in the span of the training rows.")
    smoothed, trained = _smooth(problem.loss, temperature)
    if smoothed != trained:
        notes.append(
            f"Hinge loss smoothed with t = {temperature:g} for derivatives, at the parameters "
            "trained with the true hinge."
        )
    pullback = None if transform is None else pullback_of(transform, rows)
    if transform is not None and pullback is None:
        notes.append(
            "Derivatives in inputs are in the transformed columns: a transformer is neither "
            "affine nor one-hot."
        )

    def within(
        coef: Floats, features: Features | None = None, space: RowSpace | None = None
    ) -> LinearObjective:
        """Return the objective with these coefficients of X's columns, or of a row space's."""
        d = coef.shape[1]
        table = TabularMap(
            width=width,
            names=names,
            transform=None if transform is None else transform.transform,
            targets=_target_encoder(classes, problem.signs, c),
            outputs=c,
            d=d,
            transformed_width=matrix.shape[1],
            columns=columns,
            space=space,
            pullback=pullback,
        )
        params = [coef.ravel()]
        l2 = [np.broadcast_to(np.reshape(problem.l2, (-1, 1)), (c, d)).ravel()]
        slope, free = [problem.l1 * np.sign(coef).ravel()], [(coef != 0).ravel()]
        if problem.intercept is not None:
            params.append(problem.intercept / problem.constant)
            l2.append(np.full(c, problem.intercept_l2))
            slope.append(problem.intercept_l1 * np.sign(problem.intercept))
            free.append(np.ones(c, dtype=bool))
        masked = bool(problem.l1) and not np.concatenate(free).all()
        penalties = np.concatenate(l2)
        if masked:
            penalties = np.where(np.concatenate(free), penalties, 1.0)
        return LinearObjective(
            loss=smoothed,
            trained_loss=trained,
            train=table.encode_rows(rows, ids, y, features or table.features(matrix)),
            weights=torch.from_numpy(weights),
            params=torch.from_numpy(np.concatenate(params)),
            l2=torch.from_numpy(penalties),
            constant=None if problem.intercept is None else problem.constant,
            inputs=table,
            refit_with=refit,
            notes=tuple(notes),
            classes=() if classes is None else tuple(classes.tolist()),
            slope=torch.from_numpy(np.concatenate(slope)) if problem.l1 else None,
            free=torch.from_numpy(np.concatenate(free)) if masked else None,
        )

    if problem.kernel is not None:
        space, features = row_space(problem.kernel, matrix)
        similarities = problem.kernel(space.pivots, problem.centers)
        return within(space.forward(similarities @ coef.T).T, features, space)
    objective = within(coef)
    if not wide:
        return objective

    def narrow() -> LinearObjective:
        space, features = row_space(Kernel("linear"), matrix)
        inside = space.forward(space.pivots @ coef.T)
        # A fit with a part outside the span of its rows is not converged: leave it as it is.
        if np.allclose(space.lift(inside), coef.T, atol=1e-6 * np.abs(coef).max()):
            return within(inside.T, features, space)
        return objective

    return WideObjective.of(objective, narrow)


def _split(estimator: Any) -> tuple[Any, Pipeline | None]:
    """Return the final estimator and the fitted transformers before it."""
    if not isinstance(estimator, Pipeline):
        return estimator, None
    steps = [step for step in estimator.steps[:-1] if step[1] not in (None, "passthrough")]
    return estimator.steps[-1][1], Pipeline(steps) if steps else None


def _check_fitted(estimator: Any, final: Any) -> None:
    """Raise unless the estimator is supported and fitted."""
    reader(final)
    try:
        check_is_fitted(final)
    except NotFittedError as error:
        raise NotFitted(
            f"Expected a fitted estimator. Got {type(final).__name__} before .fit(X, y). "
            "Fit it, and pass the same X and y."
        ) from error


def _fitted_columns(estimator: Any, x: Any) -> tuple[int, tuple[str, ...] | None]:
    """Return how many columns were fitted on, and their names if a frame was."""
    first = estimator.steps[0][1] if isinstance(estimator, Pipeline) else estimator
    names = getattr(first, "feature_names_in_", None)
    width = getattr(first, "n_features_in_", None)
    if width is None:
        width = np.shape(x)[-1]
    return int(width), None if names is None else tuple(names)


def _sample_weights(sample_weight: Any, n: int) -> Floats:
    """Return checked sample weights, 1 where none were given."""
    if sample_weight is None:
        return np.ones(n)
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.ndim == 0:
        weights = np.full(n, float(weights))
    if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise InvalidInput(
            f"Expected {n} sample weights, finite and >= 0. Got shape {weights.shape}"
            + (f", smallest {weights.min():g}." if weights.size else ".")
        )
    return weights


def _class_weights(
    final: Any, loss: Loss, classes: NDArray[Any] | None, labels: NDArray[Any], given: Floats
) -> Floats:
    """Return the class weight of each example; one-versus-rest losses hold theirs themselves."""
    choice = getattr(final, "class_weight", None)
    if choice is None or classes is None or isinstance(loss, OneVersusRest):
        return np.ones(len(labels))
    counting = {}
    # From 1.8 on, "balanced" counts sample weights in these two, and rows in all others.
    counts_weights = "sample_weight" in inspect.signature(compute_class_weight).parameters
    if counts_weights and isinstance(final, (LogisticRegression, LinearSVC)):
        counting = {"sample_weight": given}
    each = compute_class_weight(choice, classes=classes, y=labels, **counting)
    return np.asarray(each[np.searchsorted(classes, labels)], dtype=np.float64)


def _target_encoder(
    classes: NDArray[Any] | None, signs: bool, c: int
) -> Callable[[NDArray[Any]], Tensor]:
    """Return how targets are encoded: 0/1, class indices, ±1 or numbers."""

    def numbers(labels: NDArray[Any]) -> Tensor:
        try:
            values = np.asarray(labels, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"Expected numbers as targets. Got {labels.tolist()[0]!r}."
            ) from error
        if not np.isfinite(values).all():
            at = int(np.argwhere(~np.isfinite(values))[0][0])
            raise InvalidInput(f"Expected finite targets. Got {values[at]} in row {at}.")
        if values.size != len(values) * c:
            raise InvalidInput(f"Expected {c} numbers per target. Got shape {values.shape}.")
        return shared(values)

    def indices(labels: NDArray[Any]) -> Tensor:
        assert classes is not None
        known = np.isin(labels, classes)
        if labels.ndim != 1 or not known.all():
            wrong = labels.ravel()[~known.ravel()]
            got = repr(wrong.tolist()[0]) if len(wrong) else f"shape {labels.shape}"
            raise InvalidInput(
                f"Expected labels among {', '.join(map(repr, classes.tolist()[:20]))}. Got {got}."
            )
        at = torch.from_numpy(np.searchsorted(classes, labels))
        if signs:
            if c == 1:
                return 2.0 * at.double() - 1
            return 2 * torch.nn.functional.one_hot(at, c).double() - 1
        return at.double() if c == 1 else at

    return numbers if classes is None else indices


def _smooth(loss: Loss, temperature: float) -> tuple[Loss, Loss]:
    """Return the loss to differentiate and the loss that was minimized."""
    smooth = SmoothHinge(temperature=temperature)
    if isinstance(loss, SmoothHinge):
        return smooth, loss
    if isinstance(loss, OneVersusRest) and isinstance(loss.binary, SmoothHinge):
        return OneVersusRest(smooth, loss.positive_weights), loss
    return loss, loss
