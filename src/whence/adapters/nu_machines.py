"""NuSVC, NuSVR and OneClassSVM: support vector machines whose removals are short walks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import is_outlier_detector
from sklearn.pipeline import Pipeline
from sklearn.svm import NuSVC, NuSVR, OneClassSVM
from torch import Tensor

from whence.adapters.answered import Answered
from whence.adapters.answers import Answer, answer_of
from whence.adapters.kernel import Kernel, scale_gamma
from whence.adapters.rows import encoded, labels_of, width_of
from whence.adapters.tables import as_floats
from whence.adapters.tabular import near_support
from whence.adapters.usable import check_held
from whence.adapters.weights import weighted_rows
from whence.arrays import Floats
from whence.diagnostics import two_digits
from whence.errors import warn_user
from whence.fitting.active_set import Face
from whence.fitting.nu import NuProgram, nu_classification, nu_regression, one_class
from whence.objective.cache import cached
from whence.objective.removed import gone, unchanged
from whence.preprocessing.containers import before
from whence.preprocessing.containers import final as last_step
from whence.preprocessing.folds import folds_note
from whence.preprocessing.refit import Fits, encoded_all, follows_data, training_matrix
from whence.rows import column_names, dense

_MOST = 6_000  # hinges: their kernel matrix is formed
_UNFINISHED = 0.01  # of the range of its answers: how far from its minimum a fit is said to be
_QUICK = 1_000  # rows up to which it is made anew for each removal


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class NuMachine(Answered):
    """A fitted machine with its rows: f(x) = Σ k(xᵢ, x) coefᵢ + intercept.

    Args:
        program: What it minimizes, apart from the kernel matrix and the weights.
        kernel: k.
        transform: The fitted transformers before it, or `None`.
        matrix: The rows as it was fitted on them, [n, d].
        coef: Of the rows, [n].
        intercept: Of f; 0 where the score of a row has none.
        gram: K of the hinges, [m, m].
        beta: The coefficients as the program has them, one for each hinge, [m].
        there: Which rows it is fitted on, [n]: those of weight 0 too, by which the library scales.
        face: The minimum with these weights, if it has been walked to.
        fits: Its transformers fitted without some rows.
    """

    program: NuProgram
    kernel: Kernel
    transform: Pipeline | None
    matrix: Any
    coef: Floats
    intercept: float
    gram: Floats
    beta: Floats
    there: NDArray[np.bool_]
    face: Face | None = None
    fits: Fits = field(default_factory=Fits)

    @property
    def instant(self) -> bool:
        """Whether a removal is a short walk from the minimum, with K as it is or quickly made."""
        return not self._follows or len(self.weights) <= _QUICK

    def outputs(self, examples: Any) -> Tensor:
        """Return decision values, predictions or scores, [b, 1]."""
        rows = examples.inputs
        if self.transform is not None:
            rows = self.transform.transform(rows)
        support = np.flatnonzero(self.coef)
        values = self.kernel(as_floats(rows), self.matrix[support]) @ self.coef[support]
        return torch.from_numpy((values + self.intercept)[:, None])

    def refit(self, weights: Tensor | None = None) -> NuMachine:
        """Return the exact minimum with other weights of the rows."""
        base = self
        if self.face is None:  # as the library left it, to its own tolerance
            base = cached(self, NuMachine, lambda twin: twin._finished())
        if weights is None or unchanged(weights, self.weights):
            return base
        return base._walked(weights.double())

    def _finished(self) -> NuMachine:
        """Return the exact minimum with these weights; warn if the library's fit is not there."""
        walked = self._walked(self.weights)
        least, given = walked.outputs(self.train), self.outputs(self.train)
        off, size = float((least - given).abs().max()), float(least.max() - least.min())
        if off > _UNFINISHED * size:
            warn_user(
                "Expected a fit at its minimum, to which whence refits. Got one whose answers are "
                f"off by up to {two_digits(off / (size or off))} times their range: the solver "
                "stops, or rounds, before, and the estimator's own fits without a row may differ. "
                "Bring the columns to similar scales, or fit with a smaller tol."
            )
        return walked

    @property
    def _by_variance(self) -> bool:
        """Whether γ follows the variance of the rows."""
        scaled = last_step(self.fitted).gamma == "scale"
        return scaled and self.kernel.name != "linear"

    @property
    def _follows(self) -> bool:
        """Whether a removal changes K of the other rows."""
        return self._by_variance or follows_data(self.transform)

    def _walked(self, weights: Tensor) -> NuMachine:
        """Return the minimum with these weights, from the coefficients as they are."""
        left_out = (weights == 0) & (self.weights > 0)
        changed = self._with_features(self.there & ~left_out.numpy() & ~gone(weights))
        gram, start = changed.gram, self.face
        if start is None or self._follows:
            start = self.program.from_coefficients(gram, self.beta)
        face = self.program.minimum(gram, weights.numpy(), start)
        coef, intercept = self.program.function(face, len(weights))
        return replace(
            changed, weights=weights, coef=coef, intercept=intercept, beta=face.beta, face=face
        )

    def _with_features(self, kept: NDArray[np.bool_]) -> NuMachine:
        """Return the same with transformers and γ as they are fitted on the kept rows."""
        if not self._follows:
            return replace(self, there=kept)
        transform, matrix, kernel = self.transform, self.matrix, self.kernel
        if follows_data(transform):
            rows, labels = self.train.inputs, np.asarray(self.train.targets)
            transform, part = self.fits.on(np.flatnonzero(kept), transform, rows, labels, None)
            matrix = as_floats(encoded_all(transform, as_floats(part), rows, kept))
        if self._by_variance:
            kernel = replace(kernel, gamma=scale_gamma(matrix[kept]))
        gram = self.program.of_hinges(kernel(matrix, matrix))
        return replace(
            self, transform=transform, matrix=matrix, kernel=kernel, gram=gram, there=kept
        )


def nu_machine(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Floats | None,
    answer: Answer | None = None,
) -> NuMachine | None:
    """Return a fitted NuSVC of two classes, NuSVR or OneClassSVM, or `None` of anything else.

    Args:
        estimator: Fitted, or a Pipeline that ends in one.
        X: Its training rows, [n, d].
        y: Its targets, [n].
        sample_weight: Its sample weights, or `None`.
        answer: How its answers are read; found by what it predicts if `None`.
    """
    last, transform = last_step(estimator), before(estimator)
    make = _PROGRAMS.get(type(last))
    weighted_steps = transform is not None and sample_weight is not None
    if make is None or weighted_steps or not _is_plain(last):
        return None
    labels, names = labels_of(y), column_names(X)
    answer = answer_of(estimator, labels) if answer is None else answer
    train = encoded((X, labels), width_of(X), names, answer.targets)
    targets = train.targets.double().numpy()
    program = make(last, targets)
    if len(program.signs) > _MOST:
        return None
    matrix = train.inputs
    if transform is not None:
        matrix, unknown = training_matrix(transform, train.inputs, labels, None)
        if unknown:
            return None
    matrix = as_floats(matrix)
    weights = np.ones(len(labels)) if sample_weight is None else sample_weight
    check_held(last, matrix, weights)
    coef = np.zeros(len(labels))
    coef[weighted_rows(last.support_, weights)] = dense(last.dual_coef_).ravel()
    kernel = Kernel(last.kernel, float(last._gamma), float(last.degree), float(last.coef0))
    intercept = np.zeros(1)
    if not is_outlier_detector(last):
        given = dense(last.dual_coef_), last.support_vectors_, last.intercept_
        kernel, intercept = near_support(kernel, *given)
    return NuMachine(
        fitted=estimator,
        answer=answer,
        train=train,
        weights=torch.from_numpy(weights),
        names=names,
        notes=(*([answer.note] if answer.note else []), *folds_note(transform, len(labels))),
        program=program,
        kernel=kernel,
        transform=transform,
        matrix=matrix,
        coef=coef,
        intercept=float(intercept[0]),
        gram=program.of_hinges(kernel(matrix, matrix)),
        beta=program.coefficients(coef, weights),
        there=np.ones(len(labels), dtype=bool),
        reader=partial(nu_machine, answer=answer),
    )


def _is_plain(last: Any) -> bool:
    """Return whether a machine is one program of a kernel that is known to be convex."""
    return (
        last.kernel in ("linear", "rbf", "poly")
        and getattr(last, "class_weight", None) is None
        and not hasattr(last, "predict_proba")
        and len(getattr(last, "classes_", (0, 1))) == 2
    )


def _classifier(last: Any, targets: Floats) -> NuProgram:
    """Return what NuSVC minimizes: the second class is the positive one."""
    return nu_classification(2 * targets - 1, float(last.nu))


def _regression(last: Any, targets: Floats) -> NuProgram:
    """Return what NuSVR minimizes."""
    return nu_regression(targets, float(last.nu), float(last.C))


def _one_class(last: Any, targets: Floats) -> NuProgram:
    """Return what OneClassSVM minimizes."""
    return one_class(len(targets), float(last.nu))


_PROGRAMS: dict[type, Callable[[Any, Floats], NuProgram]] = {
    NuSVC: _classifier,
    NuSVR: _regression,
    OneClassSVM: _one_class,
}
