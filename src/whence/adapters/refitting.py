"""An estimator fitted again by its own library: clone(estimator).fit on the rows that stay."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning

from whence.adapters.draws import draws
from whence.adapters.rounds import keeping_rounds
from whence.adapters.unfitted import for_rows, unfitted
from whence.adapters.weights import staying
from whence.arrays import Floats
from whence.errors import InvalidInput, UnsupportedModel
from whence.preprocessing.containers import argument, last_of_all
from whence.preprocessing.folds import keep_folds
from whence.rows import take
from whence.workers import threads_for

# What scikit-learn's perceptrons make of Ctrl-C, to return weights that are not a fit's.
_INTERRUPTED = "Training interrupted by user."
_SEED = 0  # in place of no number, which would make two refits differ
SEEDED = (
    "The model was fitted without a seed (a number as random_state): refits draw with "
    f"random_state={_SEED}, and differ from the model by chance too."
)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Refitting:
    """How an estimator is fitted again, with its own settings.

    Args:
        template: The estimator, not fitted, with a seed wherever it draws.
        rows: X, [n].
        labels: y, [n].
        idle: Which rows the user's fit had with weight 0, [n].
        weighted: Whether sample weights were given to the fit.
        classifies: Whether labels are classes.
        held: From the estimator, not fitted, and the positions of the rows that stay to how it is
            fitted on those: its folds held. `None` where none are but those given by positions.
        fit_params: What else the fit is given, by name; what has a value per row is given those
            of the rows that stay.
    """

    template: Any
    rows: Any
    labels: NDArray[Any]
    idle: NDArray[np.bool_]
    weighted: bool
    classifies: bool
    held: Callable[[Any, NDArray[np.intp]], Any] | None = None
    fit_params: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, weights: Floats) -> tuple[Any, bool]:
        """Return the estimator fitted on the rows with weight, and whether it converged.

        Args:
            weights: wᵢ >= 0, [n]; rows with 0 are left out, but for those that never had any.

        Raises:
            InvalidInput: If the estimator cannot be fitted on those rows.
            KeyboardInterrupt: If that came, also where the library went on.
            UnsupportedModel: If it takes no sample weights and the rows that stay differ in weight.
        """
        where = staying(weights, self.idle)
        rows, labels, some = take(self.rows, where), self.labels[where], weights[where]
        if self.classifies and labels.ndim == 1 and len(where) and (labels == labels[0]).all():
            return DummyClassifier(strategy="most_frequent").fit(rows, labels), True
        given = self._given(some) | self._params(where)
        numbers = float(np.prod(np.shape(rows)))
        threads = threads_for(numbers, type(self.template).__module__)
        with warnings.catch_warnings(record=True) as caught, threads:
            warnings.simplefilter("always")
            try:
                template = for_rows(unfitted(self.template), numbers)
                template = self._held(template, where)
                fitted = template.fit(rows, labels, **given)
            except Exception as error:
                _check_not_interrupted(caught)
                raise InvalidInput(
                    f"Expected {type(self.template).__name__} to fit on {len(where)} of "
                    f"{len(weights)} training rows. Got: {error}"
                ) from error
        _check_not_interrupted(caught)
        converged = True
        for warning in caught:
            if issubclass(warning.category, ConvergenceWarning):
                converged = False
        return fitted, converged

    def reordered(self, weights: Floats, seed: int) -> tuple[Any, bool]:
        """Return a fit with these weights to the rows in an order drawn by a seed."""
        order = np.random.default_rng(seed).permutation(len(weights))
        moved = replace(
            self,
            rows=take(self.rows, order),
            labels=self.labels[order],
            idle=self.idle[order],
            held=lambda template, kept: self._held(template, order[kept]),  # as they were
            fit_params=self._params(order),
        )
        return moved(weights[order])

    def _held(self, template: Any, where: NDArray[np.intp]) -> Any:
        """Return how the estimator, not fitted, is fitted on some rows: its folds held."""
        if self.held is not None:
            return self.held(template, where)
        return keep_folds(template, len(self.labels), where)

    def _params(self, where: NDArray[np.intp]) -> dict[str, Any]:
        """Return what else the fit is given for some rows."""
        given, n = dict[str, Any](), len(self.labels)
        for name, value in self.fit_params.items():
            if type(value) in (list, tuple):
                given[name] = [value[at] for at in where] if len(value) == n else value
            else:
                rows = getattr(value, "shape", ())[:1]
                given[name] = take(value, where) if rows == (n,) else value
        return given

    def _given(self, weights: Floats) -> dict[str, Any]:
        """Return the keyword by which the fit takes sample weights, with those of its rows."""
        if not self.weighted and (weights == 1).all():
            return {}
        name = weight_parameter(self.template)
        if name is None:
            raise UnsupportedModel(
                f"Expected weights of 0 or 1: {type(self.template).__name__}.fit takes no sample "
                f"weights. Got weights from {weights.min():g} to {weights.max():g}."
            )
        return {name: weights}


def weight_parameter(estimator: Any) -> str | None:
    """Return the keyword under which an estimator's fit takes sample weights, or `None`.

    Args:
        estimator: Fitted or not.
    """
    fit = getattr(last_of_all(estimator), "fit", None)
    if fit is None:
        return None
    parameters = inspect.signature(fit).parameters
    # Votes and stacks hand whatever they are given to their members.
    passed_on = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    taken = passed_on or "sample_weight" in parameters
    return argument(estimator, "sample_weight") if taken else None


def _check_not_interrupted(caught: Sequence[warnings.WarningMessage]) -> None:
    """Raise the KeyboardInterrupt that a library made a warning of."""
    if any(str(warning.message) == _INTERRUPTED for warning in caught):
        raise KeyboardInterrupt


def template_of(estimator: Any, n: int) -> tuple[Any, tuple[str, ...]]:
    """Return an estimator as it was before its fit, and in what its refits are others.

    A fit that stopped early on rows of the user's keeps its number of rounds, because those rows
    are not known; one that held out rows of its own holds out again.

    Args:
        estimator: Fitted.
        n: The number of its rows.

    Returns:
        The estimator, not fitted, with a seed wherever it draws; and what was changed, a sentence
        each.
    """
    template, notes = keeping_rounds(unfitted(estimator), estimator)
    # A generator has moved on in the fit.
    seeds = draws(estimator, n).items()
    unset = {name: _SEED for name, seed in seeds if not np.issubdtype(type(seed), np.integer)}
    if not unset:
        return template, notes
    template.set_params(**unset)
    return template, (*notes, SEEDED)
