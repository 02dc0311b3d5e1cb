"""A fitted pipeline's transformers as one differentiable step; what cannot follow is held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatchmethod
from types import NoneType
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
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
from torch import Tensor

from whence.preprocessing.columns import Columns, Rows
from whence.preprocessing.containers import inside, leaves
from whence.preprocessing.dense import DenseColumns
from whence.preprocessing.power import Powered
from whence.preprocessing.projection import Projected
from whence.preprocessing.refit import (
    fit_again,
    follows_data,
    is_cross_fitted,
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
from whence.preprocessing.step import Held, Leaf, Statistics, Step
from whence.preprocessing.table import Plain, side_by_side, transformed
from whence.preprocessing.target import encoded
from whence.preprocessing.text import of_counts, of_documents
from whence.rows import without_names

Built: TypeAlias = tuple[Step, Rows, bool]

# Of these no statistic moves a little: categories and words that appear and vanish.
_DISCRETE = {CountVectorizer, TfidfVectorizer, OneHotEncoder, OrdinalEncoder}


@dataclass(frozen=True, eq=False)
class _Chain(Step):
    """Steps one after another.

    Args:
        steps: The steps.
    """

    steps: tuple[Step, ...]

    def __call__(self, train: Rows, others: Rows, kept: Tensor) -> tuple[Columns, Columns]:
        """Return both after the last step."""
        for step in self.steps:
            train, others = step(train, others, kept)
        return train.numbers(), others.numbers()

    def fitted(self, train: Rows, kept: Tensor) -> Statistics:
        """Return those of each step."""
        found = []
        for step in self.steps:
            found.append(step.fitted(train, kept))
            train = step.of_train(train, found[-1])
        return Statistics(steps=tuple(found))

    def of_train(self, train: Rows, statistics: Statistics) -> Columns:
        """Return the training rows after the last step."""
        for step, own in zip(self.steps, statistics.steps, strict=True):
            train = step.of_train(train, own)
        return train.numbers()

    def of_others(self, others: Rows, statistics: Statistics) -> Columns:
        """Return other rows after the last step."""
        for step, own in zip(self.steps, statistics.steps, strict=True):
            others = step.of_others(others, own)
        return others.numbers()


@dataclass(frozen=True, eq=False)
class _Beside(Step):
    """Steps side by side, each on some columns.

    Args:
        parts: Each step with its columns, `None` for all of them.
        dense: Whether the result is dense.
    """

    parts: tuple[tuple[Step, Any], ...]
    dense: bool

    def fitted(self, train: Rows, kept: Tensor) -> Statistics:
        """Return those of each step."""
        found = (step.fitted(_of(train, at), kept) for step, at in self.parts)
        return Statistics(steps=tuple(found))

    def of_train(self, train: Rows, statistics: Statistics) -> Columns:
        """Return the columns of all steps."""
        each = zip(self.parts, statistics.steps, strict=True)
        parts = [step.of_train(_of(train, at), own) for (step, at), own in each]
        return side_by_side(parts, dense=self.dense)

    def of_others(self, others: Rows, statistics: Statistics) -> Columns:
        """Return the columns of all steps."""
        each = zip(self.parts, statistics.steps, strict=True)
        parts = [step.of_others(_of(others, at), own) for (step, at), own in each]
        return side_by_side(parts, dense=self.dense)


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
    selects: ClassVar[bool] = True

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return the selected columns."""
        return x.at(self.which)


@dataclass(frozen=True, eq=False)
class _Multiplied(_Same):
    """`PolynomialFeatures`.

    Args:
        powers: The exponent of each column in each product, [d_out, d].
    """

    powers: NDArray[np.intp]

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return the products."""
        cells, columns = x.cells(), []
        for exponents in self.powers:
            column = cells.new_ones(len(cells))
            for j in np.flatnonzero(exponents):
                column = column * cells[:, j] ** int(exponents[j])
            columns.append(column)
        return DenseColumns(torch.stack(columns, 1))


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
    step, _, _ = builder.build(transform, Plain(rows), moving=False)
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

    @singledispatchmethod
    def build(self, transform: Any, rows: Rows, *, moving: bool) -> Built:
        """Return the step of fitted transformers, the training rows after it, and if they move."""
        try:
            make = _STEPS.get(type(transform), _chosen)
            step = make(self, transform, rows)
            if step is not None:
                train, again = step(rows, rows, self.kept)
                if same_features(again.plain, transformed(transform, rows).plain):
                    if step.selects:
                        self.held.append(type(transform).__name__)
                    return step, Plain(train.plain), moving or follows_data(transform)
        except (ValueError, TypeError, RuntimeError):
            pass  # an option that is not written out: the transformer is held
        return self._hold(transform, rows, moving)

    @build.register(str)
    @build.register(NoneType)
    def _nothing(self, transform: str | None, rows: Rows, *, moving: bool) -> Built:
        return _Same(), rows, moving

    @build.register
    def _one_after_another(self, transform: Pipeline, rows: Rows, *, moving: bool) -> Built:
        steps, after, moves = [], rows, moving
        try:
            for step in inside(transform) or []:
                built, after, moves = self.build(step, after, moving=moves)
                steps.append(built)
        except ValueError:  # text between two steps, such as imputed categories
            return self._hold(transform, rows, moving)
        return _Chain(tuple(steps)), after, moves

    @build.register
    def _by_columns(self, transform: ColumnTransformer, rows: Rows, *, moving: bool) -> Built:
        parts = [
            (step, columns)
            for _, step, columns in transform.transformers_
            if step != "drop" and (columns is None or np.size(columns))
        ]
        return self._beside(parts, rows, moving, dense=not transform.sparse_output_)

    @build.register
    def _of_all_columns(self, transform: FeatureUnion, rows: Rows, *, moving: bool) -> Built:
        if transform.transformer_weights:
            return self._hold(transform, rows, moving)
        parts = [(step, None) for step in inside(transform) or [] if step != "drop"]
        return self._beside(parts, rows, moving, dense=None)

    def _beside(
        self, parts: list[tuple[Any, Any]], rows: Rows, moving: bool, *, dense: bool | None
    ) -> Built:
        """Return steps side by side; the result is dense if all are, where that is not known."""
        steps, outcomes, moves = [], [], False
        for transform, columns in parts:
            step, outcome, one = self.build(transform, _of(rows, columns), moving=moving)
            steps.append((step, columns))
            outcomes.append(outcome.numbers())
            moves = moves or one
        if dense is None:
            dense = all(outcome.is_dense for outcome in outcomes)
        after = Plain(side_by_side(outcomes, dense=dense).plain)
        return _Beside(tuple(steps), dense), after, moves

    def _hold(self, transformer: Any, rows: Rows, moving: bool) -> Built:
        """Return a transformer as it was fitted."""
        follows = follows_data(transformer) and type(transformer) not in _DISCRETE
        if moving or follows:
            self.held.extend(type(leaf).__name__ for leaf in leaves(transformer))
        train = transformed(transformer, rows)
        if is_cross_fitted(transformer) and self.folds and bool(self.kept.all()):
            sample = None if self.sample is None else self.sample.numpy()
            pipeline = Pipeline([("one", transformer)])
            _, crossed = fit_again(pipeline, rows.plain, self.labels, sample)
            train = Plain(without_names(crossed))
        return Held(transformer, train.numbers()), train, False


def _of(rows: Rows, columns: Any) -> Rows:
    """Return the columns that a column transformer hands to one of its steps."""
    return rows if columns is None else rows.part(columns)


def _function(builder: _Builder, transformer: Any, rows: Rows) -> Step | None:
    """Return the step of a `FunctionTransformer` that does nothing."""
    return _Same() if transformer.func is None else None


def _documents(builder: _Builder, transformer: Any, rows: Rows) -> Step:
    """Return the step of a `TfidfVectorizer`, whose vocabulary may be chosen by the data."""
    chosen = transformer.max_features is not None or transformer.max_df != 1.0
    if chosen or transformer.min_df not in (0.0, 1):
        builder.held.append("the vocabulary of TfidfVectorizer")
    return of_documents(transformer, rows)


def _separate(builder: _Builder, transformer: Any, rows: Rows) -> Step | None:
    """Return the step of a transformer of each column alone."""
    return separate(transformer, rows, builder.kept, builder.sample)


def _encoded(builder: _Builder, transformer: Any, rows: Rows) -> Step:
    """Return the step of a `TargetEncoder`."""
    return encoded(transformer, builder.labels, builder.kept, folds=builder.folds)


def _chosen(builder: _Builder, transformer: Any, rows: Rows) -> Step | None:
    """Return the step of a selection of columns, whichever it is; `None` for another kind."""
    if isinstance(transformer, SelectorMixin):
        return _Selected(np.flatnonzero(transformer.get_support()))
    return None


# The transformers that are written out, each with what makes its step.
_STEPS: dict[type, Callable[[_Builder, Any, Rows], Step | None]] = {
    FunctionTransformer: _function,
    KBinsDiscretizer: _separate,
    MaxAbsScaler: lambda _, fitted, __: ByLargest(fitted),
    MinMaxScaler: lambda _, fitted, __: BetweenExtremes(fitted),
    Normalizer: lambda _, fitted, __: Normed(fitted),
    PCA: lambda _, fitted, __: Projected(fitted, centered=True),
    PolynomialFeatures: lambda _, fitted, __: _Multiplied(fitted.powers_),
    PowerTransformer: lambda _, fitted, __: Powered(fitted),
    RobustScaler: lambda _, fitted, __: Robust(fitted),
    SimpleImputer: lambda _, fitted, __: Imputed(fitted),
    SplineTransformer: _separate,
    StandardScaler: lambda builder, fitted, _: Standardized(fitted, builder.sample),
    TargetEncoder: _encoded,
    TfidfTransformer: lambda _, fitted, __: of_counts(fitted),
    TfidfVectorizer: _documents,
    TruncatedSVD: lambda _, fitted, __: Projected(fitted, centered=False),
}
