"""A fitted estimator with its data: the objective it minimized, and the same on changed data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from torch import Tensor

from whence.adapters.carried import carried
from whence.adapters.estimators import Problem
from whence.adapters.kernel import (
    Kernel,
    RowSpace,
    row_space,
    row_space_among,
    scale_gamma,
)
from whence.adapters.pullback import Pullback, pullback_of
from whence.adapters.tables import as_floats
from whence.adapters.tabular import TabularMap, far_center, table_of
from whence.adapters.targets import target_encoder
from whence.adapters.weights import Weights
from whence.arrays import Floats
from whence.errors import UnsupportedModel
from whence.linear.features import Features
from whence.linear.objective import LinearObjective
from whence.linear.wide import WideObjective
from whence.objective.losses import Loss, SquaredError
from whence.preprocessing.counting import counting
from whence.preprocessing.refit import Fits, encoded_all, follows_data, matched_columns
from whence.rows import is_sparse

_AT_BOUND = 1e-9  # of C: what a dual coefficient at its bound may lack


@dataclass(frozen=True, eq=False, kw_only=True)
class Fitted:
    """A fitted estimator with the data it was fitted on.

    Args:
        final: The estimator at the end of the pipeline.
        transform: The fitted transformers before it, or `None`.
        problem: What it minimized, and the fitted parameters.
        rows: X, checked, [n].
        ids: The user's names of the rows, [n].
        labels: y, [n].
        classes: The classes it knows, sorted; `None` for a regression.
        matrix: X after the transformers, as the estimator was fitted on it, [n, d].
        weights: How it weighs the rows.
        kept: Which rows it was fitted on, [n].
        weighted: Whether its transformers were fitted with the sample weights.
        crossed: Whether training rows were transformed across folds that are known.
        width: The number of columns of X; `None` for texts.
        names: Their names, or `None`.
        temperature: Of the smoothed hinge.
        notes: What a reader must know, a sentence each.
        fits: Its transformers fitted without some rows.
        lacks_a_class: Whether it is the fit without the last row of a class.
    """

    final: Any
    transform: Pipeline | None
    problem: Problem
    rows: Any
    ids: NDArray[Any]
    labels: NDArray[Any]
    classes: NDArray[Any] | None
    matrix: Any
    weights: Weights
    kept: NDArray[np.bool_]
    weighted: bool
    crossed: bool
    width: int | None
    names: tuple[str, ...] | None
    temperature: float
    notes: tuple[str, ...] = ()
    fits: Fits = field(default_factory=Fits)
    lacks_a_class: bool = False

    @property
    def features_follow(self) -> bool:
        """Whether a removal changes the features of other rows."""
        kernel = self.problem.kernel
        scaled = kernel is not None and kernel.name != "linear"
        by_variance = scaled and getattr(self.final, "gamma", None) == "scale"
        return by_variance or follows_data(self.transform)

    @property
    def wide(self) -> bool:
        """Whether the model is solved in the span of its rows."""
        problem, (n, d) = self.problem, self.matrix.shape
        penalized = bool(np.all(problem.l2 > 0))
        least_norm = problem.loss == SquaredError() and not np.any(problem.l2)
        span = not problem.l1 and (penalized or least_norm)
        return problem.kernel is None and d > n and span

    def _smoothed(self) -> Loss:
        """Return the loss to differentiate."""
        spread = 1.0 if self.classes is not None else float(np.std(self.labels)) or 1.0
        return self.problem.loss.smoothed(self.temperature, spread)

    def pullback(self) -> Pullback | None:
        """Return the way back from transformed columns to the user's own, if there is one."""
        if self.transform is None or self.width is None:
            return None
        return pullback_of(self.transform, self.rows)

    @property
    def row_weights(self) -> Tensor:
        """The weight of each row, [n]; 0 where it was not fitted on."""
        return self.weights(torch.from_numpy(self.kept.astype(np.float64)))

    def to_fit_again(self) -> Fitted:
        """Return the same, its texts counted once for all refits."""
        if self.transform is None or self.width is not None or not self.kept.all():
            return self
        return replace(self, transform=counting(self.transform, self.rows))

    def again(
        self,
        *,
        kept: NDArray[np.bool_] | None = None,
        sample: Floats | None = None,
        rows: Any = None,
        labels: NDArray[Any] | None = None,
        whole: bool = True,
    ) -> Fitted:
        """Return the estimator on changed data: transformers fitted again, θ as it was.

        Args:
            kept: Which rows are there, [n].
            sample: Other sample weights, [n].
            rows: Other rows, [n].
            labels: Other targets, [n].
            whole: Whether rows that are not there are transformed too; else they are zero.
        """
        kept = self.kept if kept is None else kept
        rows = self.rows if rows is None else rows
        weights = self.weights
        if sample is not None:
            weights = replace(weights, sample=torch.from_numpy(sample))
        if labels is None:
            labels = self.labels
        elif self.classes is not None:
            where = np.searchsorted(self.classes, labels)
            weights = replace(weights, labels=torch.from_numpy(where))
        fits = self.fits if rows is self.rows and labels is self.labels else Fits()
        changed = replace(self, kept=kept, rows=rows, labels=labels, weights=weights, fits=fits)
        if self.transform is None:
            changed = replace(changed, matrix=as_floats(rows))
        else:
            changed = changed._transformed(self.transform, self.matrix, whole)
        return replace(changed, problem=changed._problem(self.problem, self.matrix))

    def _transformed(self, transform: Pipeline, before: Any, whole: bool) -> Fitted:
        """Return the same with its transformers fitted again on the kept rows."""
        if not follows_data(transform):
            return replace(self, matrix=as_floats(transform.transform(self.rows)))
        where = np.flatnonzero(self.kept)
        sample = self.weights.sample.numpy()[where] if self.weighted else None
        fresh, part = self.fits.on(where, transform, self.rows, self.labels, sample)
        part = as_floats(part)
        matrix = encoded_all(fresh if whole else None, part, self.rows, self.kept)
        changed = replace(self, transform=fresh, matrix=as_floats(matrix))
        if self.problem.kernel is not None:
            return changed
        columns = matched_columns(transform, fresh, part.shape[1])
        coef = carried(self.problem.coef, columns, before[where], part, sparse=self.problem.l1 > 0)
        return replace(changed, problem=replace(self.problem, coef=coef))

    def _problem(self, before: Problem, matrix: Any) -> Problem:
        """Return what is minimized on the changed data: a kernel's γ and centers follow it."""
        problem = self.problem
        if problem.kernel is None:
            return problem
        kernel = problem.kernel
        if getattr(self.final, "gamma", None) == "scale":
            kernel = replace(kernel, gamma=scale_gamma(self.matrix[self.kept]))
        support, coef = problem.support, problem.coef
        if support is None or not _same_rows(matrix[support], before.centers):
            support = np.flatnonzero(self.kept)[:1]
            coef = np.zeros((len(coef), 1))
        coef = np.where(self.kept[support], coef, 0.0)
        return replace(
            problem, kernel=kernel, support=support, coef=coef, centers=self.matrix[support]
        )

    def at(self, objective: LinearObjective) -> Fitted:
        """Return the same at an objective's parameters instead of the fitted ones."""
        table, params = table_of(objective), objective.params.unsqueeze(1)
        problem = self.problem
        c = len(problem.coef)
        if problem.kernel is not None:
            assert table.space is not None
            level = problem.constant * objective.params[-c:].double().numpy()
            inside = objective.params[: c * table.d].reshape(c, table.d).double().numpy()
            return replace(
                self,
                problem=replace(
                    problem,
                    coef=table.space.dual(inside.T).T,
                    centers=table.space.pivots,
                    support=table.space.positions,
                    intercept=None if problem.intercept is None else level,
                ),
            )
        lifted = table.lift(params.double()).squeeze(1).numpy()
        coef = lifted[: c * self.matrix.shape[1]].reshape(c, -1)
        intercept = None if problem.intercept is None else lifted[-c:]
        return replace(self, problem=replace(problem, coef=coef, intercept=intercept))

    def objective(self, attach: Callable[[LinearObjective], LinearObjective]) -> LinearObjective:
        """Return R at θ̂, in the smaller of the two dimensions.

        Args:
            attach: Adds what every form of the objective carries.
        """
        problem, matrix = self.problem, self.matrix
        wide = self.wide
        within = partial(self._within, attach=attach)
        if problem.kernel is not None:
            space, features = row_space_among(problem.kernel, matrix, self.kept)
            similarities = problem.kernel(space.pivots, problem.centers)
            inside = space.forward(similarities @ problem.coef.T).T
            return within(inside, features=features, space=space)
        columns = None
        if problem.l1:
            columns = np.flatnonzero(problem.coef.any(axis=0))
            columns = columns if len(columns) else np.zeros(1, dtype=np.intp)
        coef = problem.coef if columns is None else problem.coef[:, columns]
        objective = within(coef, columns=columns)
        if not wide:
            return objective

        def narrow() -> LinearObjective:
            space, features = row_space(Kernel("linear"), matrix)
            inside = space.forward(space.pivots @ problem.coef.T)
            # A fit with a part outside the span of its rows is not converged: leave it as it is.
            if np.allclose(space.lift(inside), coef.T, atol=1e-6 * np.abs(coef).max()):
                return within(inside.T, features=features, space=space)
            return objective

        return WideObjective.of(objective, narrow)

    def whole(self) -> tuple[LinearObjective, Tensor]:
        """Return R without its L1 penalty over all columns, and that penalty, [p]."""
        problem, c = self.problem, len(self.problem.coef)
        smooth_part = replace(self, problem=replace(problem, l1=0.0))
        penalty = np.full(problem.coef.size, problem.l1)
        if problem.intercept is not None:
            penalty = np.concatenate([penalty, np.full(c, problem.intercept_l1)])
        whole = smooth_part._within(problem.coef, attach=lambda one: one)
        return whole, torch.from_numpy(penalty)

    def noted(self) -> Fitted:
        """Return the same with what a reader of results must know of it."""
        notes, problem = list(self.notes), self.problem
        if self.classes is not None and 2 * len(self.classes) > len(self.labels):
            notes.append(
                f"{len(self.classes):,} classes on {len(self.labels):,} rows: most rows are alone "
                "in their class, and removing one takes the class with it. Fit a regression if the "
                "targets are quantities."
            )
        if problem.l1:
            notes.append(
                "L1 penalty: the first order and a Newton step are on the "
                f"{int((problem.coef != 0).sum())} nonzero coefficients, with their signs. Refined "
                "effects and refits may bring others in."
            )
        if self.wide and not np.any(problem.l2):
            notes.append(
                "Least squares on more columns than rows: the coefficients of least norm, which "
                "lie in the span of the training rows. Other coefficients fit as well."
            )
        smoothed, trained = self._smoothed(), problem.loss
        if smoothed != trained:
            notes.append(
                f"{trained.unit[:1].upper()}{trained.unit[1:]} smoothed with t = "
                f"{self.temperature:g} for derivatives, at the parameters trained without: "
                "first-order effects of rows on the margin may be far off. Newton and refined "
                "effects and refits follow the margin."
            )
        if self._any_intercept():
            notes.append(
                "No support vector is on the margin: any intercept of an interval fits as well, "
                "of which LIBSVM and refits take the middle. A removal may move it, and all "
                "answers alike, by a step."
            )
        if self.transform is not None and self.width is not None and self.pullback() is None:
            notes.append(
                "The preprocessing makes columns of its own, such as the words of a text: effects "
                "of single values, as of whence.perturbation, are of those, not of a row's cells."
            )
        return replace(self, notes=tuple(notes))

    def _any_intercept(self) -> bool:
        """Whether all support vectors are at a bound: an interval of intercepts fits as well."""
        problem = self.problem
        if problem.support is None or problem.intercept is None or not problem.loss.hinged:
            return False
        bounds = self.row_weights.numpy()[problem.support] / (len(self.labels) * problem.l2)
        return bool((np.abs(problem.coef) >= (1 - _AT_BOUND) * bounds).all())

    def _center(self) -> Floats | None:
        """Return what is taken off columns far from 0, where an intercept takes it up again."""
        problem = self.problem
        if problem.intercept is None or problem.intercept_l2 or problem.intercept_l1:
            return None
        return far_center(self.matrix, self.kept)

    def _within(
        self,
        coef: Floats,
        *,
        attach: Callable[[LinearObjective], LinearObjective],
        features: Features | None = None,
        space: RowSpace | None = None,
        columns: NDArray[np.intp] | None = None,
    ) -> LinearObjective:
        """Return the objective with these coefficients of X's columns, or of a row space's."""
        problem = self.problem
        c, d = coef.shape
        transform = self.transform
        center = self._center() if space is None else None
        table = TabularMap(
            width=self.width,
            names=self.names,
            transform=None if transform is None else transform.transform,
            targets=target_encoder(self.classes, problem.signs, c),
            outputs=c,
            d=d,
            transformed_width=self.matrix.shape[1],
            columns=columns,
            space=space,
            find_pullback=self.pullback,
            constant=problem.constant,
            center=center,
        )
        params = [coef.ravel()]
        l2 = [np.broadcast_to(np.reshape(problem.l2, (-1, 1)), (c, d)).ravel()]
        slope, free = [problem.l1 * np.sign(coef).ravel()], [(coef != 0).ravel()]
        if problem.intercept is not None:
            level = problem.intercept
            if center is not None:
                level = level + coef @ (center if columns is None else center[columns])
            params.append(level / problem.constant)
            l2.append(np.full(c, problem.intercept_l2))
            slope.append(problem.intercept_l1 * np.sign(problem.intercept))
            free.append(np.ones(c, dtype=bool))
        masked = bool(problem.l1) and not np.concatenate(free).all()
        penalties = np.concatenate(l2)
        if masked:
            penalties = np.where(np.concatenate(free), penalties, 1.0)
        smoothed, trained = self._smoothed(), problem.loss
        encoded = table.examples(
            self.rows, self.ids, self.labels, features or table.features(self.matrix)
        )
        return attach(
            LinearObjective(
                loss=smoothed,
                trained_loss=trained,
                train=encoded,
                weights=self.row_weights,
                params=torch.from_numpy(np.concatenate(params)),
                l2=torch.from_numpy(penalties),
                constant=None if problem.intercept is None else problem.constant,
                inputs=table,
                refit_with=_not_attached,
                notes=self.notes,
                classes=() if self.classes is None else tuple(self.classes.tolist()),
                slope=torch.from_numpy(np.concatenate(slope)) if problem.l1 else None,
                free=torch.from_numpy(np.concatenate(free)) if masked else None,
            )
        )


def _not_attached(objective: LinearObjective, weights: Tensor) -> LinearObjective:
    """Raise: an objective that no one may refit."""
    raise UnsupportedModel("Expected an objective from whence.from_sklearn. Got a part of one.")


def _same_rows(a: Any, b: Any) -> bool:
    """Return whether two matrices of rows are the same."""
    if a.shape != b.shape:
        return False
    difference = a - b
    return not difference.nnz if is_sparse(difference) else not np.any(difference)
