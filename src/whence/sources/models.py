"""The models that are fitted on a table where none is given, and the one that is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from whence.adapters.sklearn import from_sklearn
from whence.errors import InvalidInput, listed
from whence.objective.trained import Trained
from whence.preprocessing.containers import final
from whence.progress import clock
from whence.sources.columns import free_text
from whence.sources.files import ALSO_LABELS
from whence.sources.tables import Table
from whence.tiles import drawn
from whence.workers import threads_for

ModelKind: TypeAlias = Literal["linear", "forest", "boosting", "auto"]

_LEVELS = 50  # levels of a text column that get an indicator of their own
_TERMS = 2_000  # commonest words of free text that get a weight
_TERMS_OF_TREES = 200  # the same for trees, which read dense columns
_HELD_OUT = 0.2  # share of rows on which kinds of models are compared
_COMPARED = 20_000  # rows on which they are compared at most
_NUMBERS = 4e7  # numbers of a model's input at most: 320 MB; of more rows a sample is taken


@dataclass(frozen=True, eq=False, kw_only=True)
class Fitted:
    """A table with the model fitted on it.

    Args:
        X: The rows of the table as the model takes them; the index names them.
        y: Their targets.
        objective: The model with all rows but those held out.
        held_out: Names of the rows that the model was not fitted on.
        words: What the model is, such as "logistic regression".
        notes: What was done to the data, and why it is that model, a sentence each.
    """

    X: Any
    y: pd.Series[Any]
    objective: Trained
    held_out: tuple[Any, ...]
    words: str
    notes: tuple[str, ...]

    def query(self, rows: list[Any]) -> tuple[Any, Any]:
        """Return rows of the file, by name, as queries."""
        return self.X.loc[rows], self.y.loc[rows].to_numpy()

    def answering(self, row: Any, label: str) -> tuple[Any, Any]:
        """Return a row of the file as a query with another label, which is given as text.

        Args:
            row: The name of the row.
            label: The label.

        Raises:
            InvalidInput: If it is no other label of the table.
        """
        labels = {str(own): own for own in self.y.unique()}
        found, own = labels.pop(label, None), str(self.y.loc[row])
        if found is None or label == own:
            others = sorted(labels.keys() - {own})
            raise InvalidInput(
                f"Expected --against with another label than {own!r}, which row {row} has: "
                f"{listed(others)}. Got {label!r:.80}."
            )
        return self.X.loc[[row]], np.asarray([found], dtype=self.y.to_numpy().dtype)


def default_model(table: Table) -> Pipeline:
    """Return the model that is fitted where none is given, not yet fitted.

    Numbers: median imputation, standardized. Text: one indicator per level (the 50 commonest), a
    missing value is a level. Free text: TF-IDF of the 2,000 commonest words. Then logistic
    regression for labels, ridge regression for quantities, both with scikit-learn's default
    penalty.

    Args:
        table: What it is to be fitted on.

    Returns:
        A scikit-learn pipeline.

    Raises:
        InvalidInput: If a column is empty.
    """
    numeric, text, prose = _kinds(table)
    words = TfidfVectorizer(max_features=_TERMS, sublinear_tf=True)
    parts = [
        *([("numbers", _of_numbers(table.X[numeric]), numeric)] if numeric else []),
        *([("text", _of_levels(table.X[text]), text)] if text else []),
        *((f"words of {name}", words, name) for name in prose),
    ]
    # One kind of columns needs no transformer of columns, which takes most of the time of a refit.
    columns = parts[0][1] if len(parts) == 1 and not prose else ColumnTransformer(parts)
    final = LogisticRegression(tol=1e-6, max_iter=2000) if table.classification else Ridge()
    return make_pipeline(columns, final)


def _of_numbers(X: pd.DataFrame) -> Any:
    """Return what standardizes columns of numbers, with medians where values are missing."""
    if not X.isna().to_numpy().any():
        return StandardScaler()
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler())


def _of_levels(X: pd.DataFrame) -> Any:
    """Return what gives each level of columns of text an indicator, a missing value one too."""
    # Only where levels are left out need they be counted, which takes most of the time of a refit.
    most = _LEVELS if (X.nunique() >= _LEVELS).any() else None
    levels = OneHotEncoder(handle_unknown="ignore", max_categories=most, sparse_output=False)
    if not X.isna().to_numpy().any():
        return levels
    return make_pipeline(SimpleImputer(strategy="constant", fill_value="missing"), levels)


def forest_model(table: Table) -> Pipeline:
    """Return a random forest as it is fitted on a table where it is asked for, not yet fitted.

    Columns as `boosting_model` has them, the numbers of levels as numbers. A hundred trees,
    scikit-learn's defaults.

    Args:
        table: What it is to be fitted on.

    Returns:
        A scikit-learn pipeline.

    Raises:
        InvalidInput: If a column is empty.
    """
    kind: Any = RandomForestClassifier if table.classification else RandomForestRegressor
    return make_pipeline(_for_trees(table), kind(random_state=0))


def boosting_model(table: Table) -> Pipeline:
    """Return gradient boosting as it is fitted on a table where it is asked for, not yet fitted.

    Numbers as they are, missing ones too; a text column by the numbers of its levels, which the
    trees take as categories where there are at most 250; free text: TF-IDF of the 200 commonest
    words. A hundred rounds, scikit-learn's defaults.

    Args:
        table: What it is to be fitted on.

    Returns:
        A scikit-learn pipeline.

    Raises:
        InvalidInput: If a column is empty.
    """
    numeric, text, _ = _kinds(table)
    kind: Any = (
        HistGradientBoostingClassifier if table.classification else HistGradientBoostingRegressor
    )
    categories = list(range(len(numeric), len(numeric) + len(text)))
    final = kind(categorical_features=categories or None, early_stopping=False, random_state=0)
    return make_pipeline(_for_trees(table), final)


def _for_trees(table: Table) -> ColumnTransformer:
    """Return what makes a table's columns numbers for trees: numbers, levels, words."""
    numeric, text, prose = _kinds(table)
    levels = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=250
    )
    return ColumnTransformer(
        [
            ("numbers", "passthrough", numeric),
            ("text", make_pipeline(levels), text),
            *(
                (f"words of {name}", TfidfVectorizer(max_features=_TERMS_OF_TREES), name)
                for name in prose
            ),
        ],
        sparse_threshold=0,
    )


@dataclass(frozen=True)
class _Kind:
    """A kind of model that is fitted where none is given.

    Args:
        name: What it is called beside other kinds.
        model: Returns it, not fitted.
        words: What it is called: of labels, of quantities.
    """

    name: str
    model: Callable[[Table], Pipeline]
    words: tuple[str, str]


# Of equally good ones the first is taken: the sooner its answers come, the earlier it stands.
_OF_KIND: dict[ModelKind, _Kind] = {
    "linear": _Kind("the linear model", default_model, ("logistic regression", "ridge regression")),
    "forest": _Kind("a random forest", forest_model, ("random forest",) * 2),
    "boosting": _Kind("gradient boosting", boosting_model, ("gradient boosting",) * 2),
}


def fit_table(
    table: Table,
    *,
    model: Any = None,
    kind: ModelKind = "linear",
    hold_out: list[Any] | None = None,
) -> Fitted:
    """Fit a default model on a table, or take one that was fitted on it.

    Args:
        table: The table.
        model: A fitted scikit-learn estimator or pipeline; `None` fits a default model.
        kind: Which: "linear" is `default_model`, "forest" `forest_model`, "boosting"
            `boosting_model`, and "auto" the one of the three that is best on a fifth of the rows
            when fitted on the others.
        hold_out: Names of rows that the default model is not fitted on: those to be explained.

    Returns:
        The model, at its optimum where it has one, with the table.

    Raises:
        InvalidInput: If the table does not suit the model.
        UnsupportedModel: If the given model predicts nothing from rows.
    """
    if model is not None:
        return _given(table, model)
    held = tuple(row for row in hold_out or () if row in table.X.index)
    everything = _strings(table.X)
    X, y = everything.drop(index=list(held)), table.y.drop(index=list(held))
    if y.nunique() < 2:
        raise InvalidInput(
            f"Expected a target with at least 2 values beside the held-out rows. Got only "
            f"{str(y.iloc[0]) if len(y) else 'none'!r}."
        )
    X, y, notes = _at_most(table, X, y)
    if kind == "auto":
        kind, note = _better(table, X, y)
        notes = (*notes, note)
    chosen = _OF_KIND[kind]
    words = chosen.words[not table.classification]
    with clock(f"fitting {words}"):
        trained = from_sklearn(_fitted(chosen.model(table), X, y), X, y.to_numpy())
        if kind == "linear":
            trained = trained.refit()
    return Fitted(
        X=everything,
        y=table.y,
        objective=trained,
        held_out=held,
        words=words,
        notes=(*table.notes, *notes),
    )


def _fitted(model: Pipeline, X: pd.DataFrame, y: pd.Series[Any]) -> Pipeline:
    """Return a model fitted on rows, by as many threads as there is work for."""
    with threads_for(X.size, type(final(model)).__module__):
        return model.fit(X, y.to_numpy())


def _given(table: Table, model: Any) -> Fitted:
    """Return a model that was fitted on a table by the user, on the cells as pandas reads them."""
    raw = table.raw
    names = getattr(model, "feature_names_in_", None)
    X: Any = raw.drop(columns=str(table.y.name))
    if names is not None:
        gone = [str(name) for name in names if name not in X.columns]
        if gone:
            raise InvalidInput(
                f"Expected the columns that the model was fitted on. Got {table.path.name} without "
                f"{listed(gone)}. Name the file that it was fitted on."
            )
        X = X[list(names)]
    elif not hasattr(model, "n_features_in_") and (prose := free_text(X)):
        X = X[prose[0]]  # a pipeline that begins with a reader of texts
    elif (width := getattr(model, "n_features_in_", X.shape[1])) != X.shape[1]:
        raise InvalidInput(
            f"Expected the {width} columns that the model was fitted on: an array, which names "
            f"none. Got {X.shape[1]} in {table.path.name} beside {table.y.name}. Fit the model to "
            "a frame, whose columns are found by name; or keep only its own columns in the file."
        )
    y = raw[str(table.y.name)]
    unknown = y.isin(ALSO_LABELS) & ~y.isin(getattr(model, "classes_", y))  # were missing to it
    X, y = X[~unknown], y[~unknown]
    return Fitted(
        X=X,
        y=y,
        objective=from_sklearn(model, X, y.to_numpy()),
        held_out=(),
        words=type(final(model)).__name__,
        notes=table.found,
    )


def _at_most(
    table: Table, X: pd.DataFrame, y: pd.Series[Any]
) -> tuple[pd.DataFrame, pd.Series[Any], tuple[str, ...]]:
    """Return the rows, or a random sample of them if the model's input would not fit in memory."""
    numeric, text, prose = _kinds(table)
    levels = sum(min(X[name].nunique() + 1, _LEVELS) for name in text)
    most = int(_NUMBERS / max(len(numeric) + levels + 100 * len(prose), 1))
    if len(X) <= most:
        return X, y, ()
    some = np.sort(np.random.default_rng(0).choice(len(X), most, replace=False))
    note = f"The model is fitted on {most:,} of {len(X):,} rows, drawn at random."
    return X.iloc[some], y.iloc[some], (note,)


def _better(table: Table, X: pd.DataFrame, y: pd.Series[Any]) -> tuple[ModelKind, str]:
    """Return the kind that is better on a fifth of the rows, and by how much, in a sentence."""
    order = drawn(len(X), _COMPARED)
    n = max(1, round(_HELD_OUT * len(order)))
    judging, rest = order[:n], order[n:]
    if y.iloc[rest].nunique() < 2:
        return (
            "linear",
            "There are too few rows to compare kinds of models: the linear model is used.",
        )
    scores: dict[ModelKind, float] = {}
    truth = y.iloc[judging].to_numpy()
    for kind, each in _OF_KIND.items():
        fitted = _fitted(each.model(table), X.iloc[rest], y.iloc[rest])
        said: NDArray[Any] = fitted.predict(X.iloc[judging])
        if table.classification:
            scores[kind] = float((said == truth).mean())
        else:
            scores[kind] = -float(np.sqrt(np.square(said - truth).mean()))
    told = [
        f"{_OF_KIND[kind].name} is right on {100 * score:.0f} %"
        if table.classification
        else f"{_OF_KIND[kind].name} is off by {-score:,.3f}"
        for kind, score in scores.items()
    ]
    best = max(scores, key=lambda kind: scores[kind])
    return best, f"On {n:,} held-out rows {listed(told)}: {_OF_KIND[best].name} is used."


def _kinds(table: Table) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the columns of numbers, of levels and of free text."""
    X = table.X
    empty = [str(name) for name in X.columns if X[name].isna().all()]
    if empty:
        raise InvalidInput(f"Expected values in every column. Got none in {empty[0]!r}. Drop it.")
    numeric = [c for c in X.columns if pd.api.types.is_numeric_dtype(X[c])]
    prose = free_text(X)
    return numeric, [c for c in X.columns if c not in numeric and c not in prose], prose


def _strings(X: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose text columns are of one type, with NaN for what is missing."""
    numeric = X.select_dtypes("number").columns
    text = [name for name in X.columns if name not in numeric]
    if not text:
        return X
    plain = X.copy()
    for name in text:
        column = X[name].astype(object)
        plain[name] = column.where(column.isna(), column.astype(str)).where(column.notna(), np.nan)
    return plain
