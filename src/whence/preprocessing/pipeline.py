"""A fitted pipeline's transformers as one differentiable step; what cannot follow is held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.utils import _safe_indexing
from torch import Tensor

from whence.preprocessing.columns import (
    Columns,
    SparseColumns,
    Table,
    as_columns,
    as_rows,
    selected,
    side_by_side,
)
from whence.preprocessing.power import Powered
from whence.preprocessing.projection import KINDS, Projected
from whence.preprocessing.refit import (
    fit_again,
    follows_data,
    is_cross_fitted,
    leaves,
    same_features,
)
from whence.preprocessing.scaling import (
    BetweenExtremes,
    ByLargest,
    Imputed,
    Normed,
    Robust,
    Standardized,
)
from whence.preprocessing.separate import separate
from whence.preprocessing.step import Held, Leaf, Step
from whence.preprocessing.target import encoded
from whence.preprocessing.text import weighted

_SIMPLE: dict[type, Callable[[Any], Step]] = {
    MaxAbsScaler: ByLargest,
    MinMaxScaler: BetweenExtremes,
    Normalizer: Normed,
    PowerTransformer: Powered,
    RobustScaler: Robust,
    SimpleImputer: Imputed,
    **dict.fromkeys(KINDS, Projected),
}

# Of these no statistic moves a little: categories and words that appear and vanish.
_DISCRETE = (CountVectorizer, OneHotEncoder, OrdinalEncoder)


@dataclass(frozen=True, eq=False)
class _Chain(Step):
    """Steps one after another.

    Args:
        steps: The steps.
    """

    steps: tuple[Step, ...]

    def __call__(self, train: Any, others: Any, kept: Tensor) -> tuple[Columns, Columns]:
        """Return both after the last step."""
        for step in self.steps:
            train, others = step(train, others, kept)
        return as_columns(train), as_columns(others)


@dataclass(frozen=True, eq=False)
class _Beside(Step):
    """Steps side by side, each on some columns.

    Args:
        parts: Each step with its columns, `None` for all of them.
        dense: Whether the result is dense.
    """

    parts: tuple[tuple[Step, Any], ...]
    dense: bool

    def __call__(self, train: Any, others: Any, kept: Tensor) -> tuple[Columns, Columns]:
        """Return the columns of all steps."""
        both = [step(_of(train, at), _of(others, at), kept) for step, at in self.parts]
        left, right = ([pair[side] for pair in both] for side in (0, 1))
        return side_by_side(left, dense=self.dense), side_by_side(right, dense=self.dense)


@dataclass(frozen=True, eq=False)
class _Same(Leaf):
    """Columns as they are."""

    def statistics(self, x: Columns, kept: Tensor) -> tuple[Tensor, ...]:
        """Return none."""
        return ()

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return x."""
        return x


@dataclass(frozen=True, eq=False)
class _Selected(_Same):
    """A selection of columns, held.

    Args:
        which: Their positions.
    """

    which: NDArray[np.intp]

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return the selected columns."""
        return selected(x, self.which)


@dataclass(frozen=True, eq=False)
class _Multiplied(_Same):
    """`PolynomialFeatures`.

    Args:
        powers: The exponent of each column in each product, [d_out, d].
    """

    powers: NDArray[np.intp]

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return the products."""
        if isinstance(x, SparseColumns):
            raise ValueError("Products of sparse columns are held.")
        columns = []
        for exponents in self.powers:
            column = x.new_ones(len(x))
            for j in np.flatnonzero(exponents):
                column = column * x[:, j] ** int(exponents[j])
            columns.append(column)
        return torch.stack(columns, 1)


@dataclass(frozen=True, eq=False)
class Differentiable:
    """Fitted transformers whose statistics can be differentiated.

    Args:
        step: All of them.
        held: The names of those that are held as fitted though they follow the data.
    """

    step: Step
    held: tuple[str, ...]


def differentiable(
    transform: Any,
    rows: Any,
    labels: NDArray[Any],
    kept: Tensor,
    *,
    sample: Tensor | None,
    folds: bool,
) -> Differentiable:
    """Return fitted transformers as a function of which training rows they were fitted on.

    Each is written out and compared with the fitted one; one that differs, or is not known, is
    held as it was fitted.

    Args:
        transform: The fitted transformers.
        rows: The training rows, [n].
        labels: Their targets, [n].
        kept: 1 for a row that they were fitted on, 0 for another, [n].
        sample: Sample weights they were fitted with, or `None`.
        folds: Whether the folds across which training rows were encoded are known.

    Returns:
        The step, with what is held.
    """
    builder = _Builder(labels, kept, sample, folds, [])
    step, _, _ = builder.build(transform, rows, moving=False)
    return Differentiable(step, tuple(dict.fromkeys(builder.held)))


@dataclass(frozen=True, eq=False)
class _Builder:
    """What building steps needs.

    Args:
        labels: Targets, [n].
        kept: 1 for a row that was fitted on, [n].
        sample: Sample weights, or `None`.
        folds: Whether folds are known.
        held: Grows by the names of what is held.
    """

    labels: NDArray[Any]
    kept: Tensor
    sample: Tensor | None
    folds: bool
    held: list[str]

    def build(self, transform: Any, rows: Any, *, moving: bool) -> tuple[Step, Any, bool]:
        """Return the step of fitted transformers, the training rows after it, and if they move."""
        if transform is None or isinstance(transform, str):
            return _Same(), rows, moving
        if isinstance(transform, Pipeline):
            steps, after, moves = [], rows, moving
            try:
                for _, inside in transform.steps:
                    step, after, moves = self.build(inside, after, moving=moves)
                    steps.append(step)
            except ValueError:  # text between two steps, such as imputed categories
                return self._hold(transform, rows, moving)
            return _Chain(tuple(steps)), after, moves
        if isinstance(transform, ColumnTransformer | FeatureUnion):
            return self._beside(transform, rows, moving)
        return self._leaf(transform, rows, moving)

    def _beside(self, transform: Any, rows: Any, moving: bool) -> tuple[Step, Any, bool]:
        """Return the steps of a column transformer or a union."""
        if isinstance(transform, ColumnTransformer):
            inside = [(step, columns) for _, step, columns in transform.transformers_]
        elif transform.transformer_weights:
            return self._hold(transform, rows, moving)
        else:
            inside = [(step, None) for _, step in transform.transformer_list]
        parts, outcomes, moves = [], [], False
        for step, columns in inside:
            if step == "drop" or (columns is not None and not np.size(columns)):
                continue
            built, outcome, one = self.build(step, _of(rows, columns), moving=moving)
            parts.append((built, columns))
            outcomes.append(as_columns(outcome))
            moves = moves or one
        dense = all(isinstance(part, Tensor) for part in outcomes)
        if isinstance(transform, ColumnTransformer):
            dense = not transform.sparse_output_
        after = as_rows(side_by_side(outcomes, dense=dense))
        return _Beside(tuple(parts), dense), after, moves

    def _leaf(self, transformer: Any, rows: Any, moving: bool) -> tuple[Step, Any, bool]:
        """Return the step of one transformer, checked against it."""
        try:
            step = self._known(transformer, rows)
            if step is not None:
                train, again = step(rows, rows, self.kept)
                if same_features(as_rows(again), _plain(transformer.transform(as_rows(rows)))):
                    if isinstance(step, _Selected):
                        self.held.append(type(transformer).__name__)
                    return step, as_rows(train), moving or follows_data(transformer)
        except (ValueError, TypeError, RuntimeError):
            pass  # an option that is not written out: the transformer is held
        return self._hold(transformer, rows, moving)

    def _hold(self, transformer: Any, rows: Any, moving: bool) -> tuple[Step, Any, bool]:
        """Return a transformer as it was fitted."""
        follows = follows_data(transformer) and not isinstance(transformer, _DISCRETE)
        if moving or follows:
            self.held.extend(type(leaf).__name__ for leaf in leaves(transformer))
        plain = as_rows(rows)
        train = _plain(transformer.transform(plain))
        if is_cross_fitted(transformer) and self.folds and bool(self.kept.all()):
            sample = None if self.sample is None else self.sample.numpy()
            _, train = fit_again(Pipeline([("one", transformer)]), plain, self.labels, sample)
            train = _plain(train)
        return Held(transformer, as_columns(train)), train, False

    def _known(self, transformer: Any, rows: Any) -> Step | None:
        """Return the step that is written out for a transformer, if one is."""
        kind = type(transformer)
        if kind in _SIMPLE:
            return _SIMPLE[kind](transformer)
        if kind is FunctionTransformer and transformer.func is None:
            return _Same()
        if kind is StandardScaler:
            return Standardized(transformer, self.sample)
        if kind in (TfidfVectorizer, TfidfTransformer):
            if kind is TfidfVectorizer and _limited(transformer):
                self.held.append("the vocabulary of TfidfVectorizer")
            return weighted(transformer, rows)
        if kind in (KBinsDiscretizer, SplineTransformer):
            return separate(transformer, rows, self.kept, self.sample)
        if kind is TargetEncoder:
            return encoded(transformer, self.labels, self.kept, folds=self.folds)
        if kind is PolynomialFeatures:
            return _Multiplied(transformer.powers_)
        if isinstance(transformer, SelectorMixin):
            return _Selected(np.flatnonzero(transformer.get_support()))
        return None


def _limited(vectorizer: Any) -> bool:
    """Return whether the words of a vectorizer are chosen by how often they are used."""
    chosen = vectorizer.max_features is not None or vectorizer.max_df != 1.0
    return bool(chosen or vectorizer.min_df not in (0.0, 1))


def _of(rows: Any, columns: Any) -> Any:
    """Return the columns that a column transformer hands to one of its steps."""
    if columns is None:
        return rows
    if isinstance(rows, Table):
        return rows.columns(columns)
    if isinstance(rows, Tensor | SparseColumns):
        return selected(rows, np.atleast_1d(np.arange(rows.shape[1])[columns]))
    return _safe_indexing(rows, columns, axis=1)


def _plain(rows: Any) -> Any:
    """Return what a transformer returned without the names of a frame."""
    return rows.to_numpy() if hasattr(rows, "to_numpy") else rows
