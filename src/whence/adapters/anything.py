"""Any fitted estimator: seen through its predictions, and fitted again by its own library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cross_decomposition import PLSRegression
from torch import Tensor

from whence.adapters.additive import removals_add_up
from whence.adapters.answered import Answered
from whence.adapters.answers import Answer, answer_of
from whence.adapters.draws import is_steady, is_unknown
from whence.adapters.refitting import Refitting, template_of
from whence.adapters.rows import encoded, labels_of, width_of
from whence.adapters.usable import check_predicts
from whence.arrays import Floats
from whence.checked import said
from whence.errors import warn_user
from whence.objective.cache import cached, first_time
from whence.objective.removed import weights_without
from whence.objective.trained import Examples, Trained
from whence.preprocessing.containers import final as last_step
from whence.preprocessing.folds import folds_note
from whence.rows import column_names
from whence.workers import Backend, map_shards

_INSTANT = (PLSRegression,)
_FEW = 1_000  # rows up to which a steady estimator is fitted again for each removal


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Estimator(Answered):
    """A fitted estimator with its data, without derivatives.

    Args:
        refitting: How it is fitted again.
        workers: Processes, or tasks of Ray, that fit it again at a time.
        backend: "process" or "ray".
    """

    refitting: Refitting
    workers: int = 1
    backend: Backend = "process"

    @property
    def instant(self) -> bool:
        """Whether its own fit is a few small products, or a quick one to few rows, and steady."""
        if type(last_step(self.fitted)) in _INSTANT:
            return True
        n = len(self.train)
        return n <= _FEW and (is_steady(self.fitted, n) or self._adds_up())

    def _adds_up(self) -> bool:
        """Return whether removals from an estimator that nobody has judged add up."""
        if not is_unknown(self.fitted):
            return False

        def measured(twin: Estimator) -> bool:
            def outputs_without(rows: Sequence[int]) -> Floats:
                weights = weights_without(twin.weights, np.asarray(rows, dtype=np.intp))
                return twin.refit(weights).outputs(twin.train).numpy()

            return removals_add_up(outputs_without, len(twin.train))

        return cached(self, "removals add up", measured)

    @property
    def floored(self) -> bool:
        """Whether a probability of its answers counts as some least one where it is smaller."""
        return True

    def identity(self) -> tuple[Tensor | str, ...]:
        """Return the estimator's settings."""
        return (repr(self), repr(self.refitting.template))

    def outputs(self, examples: Any) -> Tensor:
        """Return log-probabilities, decision values or predictions, [b, c]."""
        if not len(examples):  # which few libraries predict
            return self.outputs(self.train.subset(np.arange(1)))[:0]
        with said("rows that the estimator can predict"):
            return torch.from_numpy(self.answer.outputs(self.fitted, examples.inputs))

    def refit(self, weights: Tensor | None = None) -> Estimator:
        """Return the estimator's own fit on the rows with weight."""
        weights = self.weights if weights is None else weights
        return self._fitted(weights, self.refitting(weights.double().numpy()))

    def reordered(self, seed: int) -> Estimator | None:
        """Return the estimator's own fit to its rows in another order, if that draws."""
        if is_steady(self.fitted, len(self.train)):
            return None
        fit = self.refitting.reordered(self.weights.double().numpy(), seed)
        return self._fitted(self.weights, fit)

    def refit_edited(self, where: NDArray[np.intp], new: Examples) -> Estimator:
        """Return the estimator's own fit with some rows replaced.

        Args:
            where: Positions of the rows that go.
            new: Those that come.
        """
        train = self.train.replaced(where, new)
        labels = self.answer.labels_of(train.targets)
        refitting = replace(self.refitting, rows=train.inputs, labels=labels)
        return replace(self, train=train, refitting=refitting).refit()

    @property
    def together(self) -> int:
        """As many as keep all workers busy."""
        return 1 if self.workers == 1 and self.backend == "process" else 8 * self.workers

    def refits(self, weights: Tensor) -> Iterator[Trained]:
        """Yield the estimator's own fits for each row of weights [k, n], by several workers."""
        rows = [row.double().numpy() for row in weights]
        workers = min(self.workers, len(rows))
        fits = map_shards(self.refitting, rows, workers=workers, backend=self.backend)
        for row, fit in zip(weights, fits, strict=True):
            yield self._fitted(row, fit)

    def _fitted(self, weights: Tensor, fit: tuple[Any, bool]) -> Estimator:
        """Return a fit with these weights, and say once if one has not converged."""
        fitted, converged = fit
        if not converged and first_time(self, "a refit has not converged"):
            warn_user(
                f"Expected refits of {type(self.fitted).__name__} to converge. Got one that "
                "stopped early. Raise max_iter, or scale the columns."
            )
        return replace(self, fitted=fitted, weights=weights)


def anything(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Floats | None = None,
    *,
    workers: int = 1,
    backend: Backend = "process",
    notes: tuple[str, ...] = (),
    answer: Answer | None = None,
    fit_params: Mapping[str, Any] | None = None,
) -> Estimator:
    """Return any fitted estimator with its data as a model without derivatives.

    Args:
        estimator: Fitted; it has `fit`, and `predict`, `predict_proba` or `decision_function`.
        X: The rows it was fitted on, [n, d].
        y: The targets it was fitted on, [n] or [n, k].
        sample_weight: The sample weights it was fitted with, or `None`.
        workers: Processes, or tasks of Ray, that fit it again at a time.
        backend: "process" or "ray".
        notes: What a reader must know besides, a sentence each.
        answer: How its predictions are read; found by what it predicts if `None`.
        fit_params: What else its fit was given, by name.

    Returns:
        The model.

    Raises:
        UnsupportedModel: If it predicts nothing from rows and targets.
        InvalidInput: If X or y cannot be what it was fitted on.
    """
    check_predicts(estimator)
    names = column_names(X)
    labels = labels_of(y)
    answer = answer_of(estimator, labels) if answer is None else answer
    train = encoded((X, labels), width_of(X), names, answer.targets)
    with said("rows that the estimator can predict"):
        answer.outputs(estimator, train.subset(np.arange(1)).inputs)
    n = len(train)
    weights = np.ones(n) if sample_weight is None else sample_weight
    template, changed = template_of(estimator, n)
    folds = folds_note(template, n)
    name = type(last_step(template)).__name__
    chooses = name.endswith("CV") and name != "CalibratedClassifierCV"
    chosen = [f"What {name} chose is chosen anew in each refit."] if chooses else []
    every = [*notes, *([answer.note] if answer.note else []), *chosen, *changed, *folds]
    return Estimator(
        fitted=estimator,
        refitting=Refitting(
            template=template,
            rows=train.inputs,
            labels=labels,
            idle=weights == 0,
            weighted=sample_weight is not None,
            classifies=bool(answer.classes),
            fit_params=fit_params or {},
        ),
        answer=answer,
        train=train,
        weights=torch.from_numpy(weights),
        names=names,
        workers=workers,
        backend=backend,
        notes=tuple(every),
    )
