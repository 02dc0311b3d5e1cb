"""Fitted scikit-learn estimators as the objectives they minimized.

Every objective is brought to R(θ) = (1/n) Σ wᵢ ℓᵢ + Ω(θ). Where scikit-learn minimizes
C Σ sᵢ ℓᵢ + ½‖w‖², that is l2 = 1/(n C); where it minimizes a sum of squares plus α‖w‖², l2 = α/n;
where it normalizes sample weights, so does w. Intercepts are not penalized, but for liblinear's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from whence.adapters.anything import anything
from whence.adapters.discriminant import discriminant
from whence.adapters.draws import draws
from whence.adapters.equivalents import plain
from whence.adapters.fitted import Fitted
from whence.adapters.huber import huber
from whence.adapters.naive_bayes import naive_bayes
from whence.adapters.neighbors import neighbors
from whence.adapters.nu_machines import nu_machine
from whence.adapters.outliers import outliers
from whence.adapters.perceptron import perceptron
from whence.adapters.processes import process
from whence.adapters.quantile import quantile
from whence.adapters.readers import is_read, read, reader
from whence.adapters.rows import labels_of, width_of
from whence.adapters.statistics import objective_of
from whence.adapters.stopped import stopped_early
from whence.adapters.survival import cox
from whence.adapters.tables import as_floats, as_rows
from whence.adapters.targets import target_encoder
from whence.adapters.trees import from_trees, is_tree_model
from whence.adapters.usable import (
    check_fitted_here,
    check_held,
    check_rows,
    check_steps,
    check_usable,
    warn_of_other_rows,
)
from whence.adapters.weights import sample_weights, weights_of
from whence.adapters.wrappers import composed
from whence.arrays import Floats
from whence.checked import checked, shown, unstacked
from whence.errors import InvalidInput, NotFitted, UnsupportedModel
from whence.linear.objective import LinearObjective
from whence.objective.trained import Trained
from whence.preprocessing.containers import before, final
from whence.preprocessing.folds import folds_note
from whence.preprocessing.refit import fit_again, same_features, training_matrix, weighted_steps
from whence.rows import check_same_order, own_names, take
from whence.workers import Backend

_QUICK = 10**6  # cells, or words, on which transformers are fitted once more to judge X
_WORDS = 1_000  # of a text


@checked
def from_sklearn(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    fit_params: Mapping[str, Any] | None = None,
    temperature: float = 0.001,
    workers: int = 1,
    backend: Backend = "process",
) -> Trained:
    """Return a fitted estimator with the data it was fitted on, as a model that methods score.

    A linear or kernel model is the objective that it minimized,
    R(θ) = (1/n) Σ wᵢ ℓ(f_θ(xᵢ), yᵢ) + Ω(θ) at the fitted θ̂, with the estimator's own C or alpha,
    class and sample weights, and its treatment of the intercept. Boosted trees and forests are the
    leaves of their rows, from which their predictions are recomputed. Neighbors, naive Bayes and
    discriminants are their sums. Any other estimator is known by its predictions, and fitted again
    by its own library: see the list in the documentation, "Which models whence takes".

    Args:
        estimator: A fitted estimator with predict, predict_proba or decision_function, of
            scikit-learn or alike; a Pipeline that ends in one, or a search that kept its winner; a
            model or Booster of LightGBM, XGBoost or CatBoost.
        X: The rows it was fitted on: array, frame or sparse matrix, [n, d]; or texts, as a list,
            an array or a Series. A frame's index names the rows. Sparse matrices are never made
            dense.
        y: The targets it was fitted on, [n]; `None` for an outlier detector.
        sample_weight: The sample weights it was fitted with, [n], >= 0.
        fit_params: What else its `fit` was given, by name, as init_score, base_margin or baseline.
            Of what has a value per row, a refit is given those of its rows. Such an estimator is
            known by its predictions, which its library makes of new rows without them.
        temperature: t > 0 of the smoothed hinge through which hinge losses are differentiated, in
            units of the margin.
        workers: Processes that fit trees, or an estimator that is known by its predictions alone,
            again at a time.
        backend: "process" for this machine, "ray" for tasks of a Ray cluster.

    Returns:
        The model: an `Objective` for linear and kernel models.

    Raises:
        NotFitted: If the estimator has not been fitted.
        UnsupportedModel: If it predicts nothing from rows and targets.
        InvalidInput: If X, y or the weights cannot be what it was fitted on.

    Cost:
        None for n >= d, but a fit of the transformers to up to a million cells. A wide (d > n) or
        kernel model costs one n x n kernel matrix and its Cholesky factor, and then has at most n
        parameters per output; a wide one when its parameters are first asked for. Trees cost a
        prediction of leaves.

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
    if hasattr(estimator, "fit") or not is_tree_model(estimator):  # a Booster has no fit
        check_usable(estimator)
    found = plain(estimator)
    inner, notes = found.estimator, found.notes
    X = unstacked("X", X)
    labels = np.zeros(np.shape(X)[0]) if y is None else labels_of(y)  # outlier detectors have none
    refitted: dict[str, Any] = {"workers": workers, "backend": backend}
    if not labels.size or not labels.ndim:
        raise InvalidInput(f"Expected y as targets, at least one row of them. Got {shown(y)}.")
    check_rows(inner, len(labels))
    for what, values in (("y", y), ("sample_weight", sample_weight), *(fit_params or {}).items()):
        check_same_order(what, values, own_names(X))
    given = None if sample_weight is None else sample_weights(sample_weight, len(labels))
    if fit_params:
        names = [str(name) for name in fit_params]
        if any(name.rpartition("__")[2] == "sample_weight" for name in names):
            raise InvalidInput("Expected sample_weight= for weights. Got them in fit_params.")
        told = f"Known by its predictions alone: its fit was given {', '.join(names)}."
        notes, refitted = (*notes, told), {**refitted, "fit_params": fit_params}
    scored = outliers(inner, X, labels, given, notes=notes, **refitted)
    if scored is not None:
        return scored
    if y is None:
        raise InvalidInput("Expected y, the targets that the estimator was fitted on. Got None.")
    if fit_params:
        return anything(inner, X, y, given, notes=notes, **refitted)
    try:
        check_fitted_here(final(inner))
        check_steps(before(inner))
        for family in _FAMILIES:
            model = family(inner, X, y, given)
            if model is not None:
                taken: Trained = replace(model, notes=(*notes, *model.notes))
                return taken
        if is_tree_model(inner):
            trees = from_trees(inner, X, y, sample_weight, **refitted)
            return replace(trees, notes=(*notes, *trees.notes))
        if is_read(final(inner)):
            options = {"sample_weight": sample_weight, "temperature": temperature}
            return linear_objective(inner, X, y, notes=notes, **options)
    except UnsupportedModel as reason:
        if not hasattr(inner, "fit"):  # a Booster: nothing else reads it
            raise UnsupportedModel(
                f"{reason} Retraining takes an estimator of the library's scikit-learn interface."
            ) from reason
        notes = (*notes, f"Known by its predictions alone: {reason}")
    return composed(anything(inner, X, y, given, notes=notes, **refitted), from_sklearn)


def linear_objective(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    temperature: float = 0.001,
    notes: tuple[str, ...] = (),
) -> LinearObjective:
    """Return a fitted linear or kernel model as the objective it minimized.

    Args:
        estimator: The estimator, or a Pipeline that ends in one.
        X: The rows it was fitted on, [n, d].
        y: The targets it was fitted on, [n].
        sample_weight: The sample weights it was fitted with, [n].
        temperature: Of the smoothed hinge.
        notes: What a reader must know of it, a sentence each.

    Raises:
        NotFitted: If the estimator has not been fitted.
        UnsupportedModel: If it is of another kind, or uses an option without an exact treatment.
        InvalidInput: If X, y or the weights cannot be what it was fitted on.
    """
    last, transform = final(estimator), before(estimator)
    _check_fitted(last)
    width, names = _fitted_columns(last if transform is None else transform.steps[0][1], X)
    rows, ids = as_rows(X, width, names)
    n = rows.shape[0]
    if n < 2:
        raise InvalidInput(f"Expected at least 2 training rows. Got {n}.")
    sample = sample_weights(sample_weight, n)
    labels = labels_of(y)
    if labels.shape[:1] != (n,):
        raise InvalidInput(f"Expected {n} targets, one per row. Got shape {labels.shape}.")
    classes = getattr(last, "classes_", None)
    if classes is not None and len(np.unique(labels)) < 2:
        raise InvalidInput(f"Expected at least 2 classes in y. Got only {labels.tolist()[0]!r}.")
    problem = read(last, sample)
    if problem.l1 and not problem.coef.any():
        raise UnsupportedModel(
            "Expected a fit with at least one nonzero coefficient. Got none: the L1 penalty has "
            "set all to zero. Fit with a weaker penalty."
        )
    encoded = target_encoder(classes, problem.signs, len(problem.coef))(labels)
    del encoded  # labels that the estimator cannot have are refused before anything is computed
    weighted = transform is not None and _took_weights(transform, rows, labels, sample)
    given = sample if weighted else None
    matrix, note = rows, ""
    if transform is not None:
        matrix, note = training_matrix(transform, rows, labels, given)
    matrix = as_floats(matrix)
    if not note:  # else the columns that the estimator was fitted on are not known
        check_held(last, matrix, sample)
        cells = np.size(rows) * (_WORDS if width is None else 1)
        if transform is not None and cells <= _QUICK and not draws(transform, n):
            warn_of_other_rows(transform, rows, labels, given)
    fitted = Fitted(
        final=last,
        transform=transform,
        problem=problem,
        rows=rows,
        ids=ids,
        labels=labels,
        classes=classes,
        matrix=matrix,
        weights=weights_of(last, problem, classes, labels, sample),
        kept=np.ones(n, dtype=bool),
        weighted=weighted,
        crossed=not note,
        width=width,
        names=names,
        temperature=temperature,
        notes=(*notes, *([note] if note else []), *folds_note(transform, n)),
    )
    return objective_of(fitted.noted(), stopped_early(last))


def _perceptron(estimator: Any, X: Any, y: Any, weights: Floats | None) -> Trained | None:
    """Return a perceptron, with or without transformers before it, or `None`."""
    return perceptron(final(estimator), X, y, weights, before(estimator))


_FAMILIES: tuple[Callable[[Any, Any, Any, Floats | None], Any], ...] = (
    cox,
    discriminant,
    huber,
    naive_bayes,
    neighbors,
    nu_machine,
    _perceptron,
    process,
    quantile,
)


def _check_fitted(estimator: Any) -> None:
    """Raise unless the estimator is supported and fitted."""
    reader(estimator)
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise NotFitted(
            f"Expected a fitted estimator. Got {type(estimator).__name__} before .fit(X, y). "
            "Fit it, and pass the same X and y."
        ) from error


@singledispatch
def _fitted_columns(first: Any, x: Any) -> tuple[int | None, tuple[str, ...] | None]:
    """Return how many columns were fitted on, and their names if a frame was; `None` of texts."""
    names = getattr(first, "feature_names_in_", None)
    width = getattr(first, "n_features_in_", width_of(x))
    return width, None if names is None else tuple(names)


@_fitted_columns.register(CountVectorizer)
@_fitted_columns.register(HashingVectorizer)
def _no_columns(first: Any, x: Any) -> tuple[None, None]:
    return None, None


def _took_weights(transform: Pipeline, rows: Any, labels: NDArray[Any], sample: Floats) -> bool:
    """Return whether transformers were fitted with the sample weights that the estimator had."""
    if (sample == sample[0]).all() or not weighted_steps(transform, sample):
        return False
    few = take(rows, np.arange(min(len(labels), 8)))
    given = transform.transform(few)
    plain, _ = fit_again(transform, rows, labels)
    if same_features(plain.transform(few), given):
        return False
    with_weights, _ = fit_again(transform, rows, labels, sample)
    return same_features(with_weights.transform(few), given)
