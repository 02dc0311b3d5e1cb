"""Domain mismatch: the groups of training rows that drive the errors on some queries."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from whence.arrays import Floats
from whence.checked import checked, shown
from whence.errors import InvalidInput, UnsupportedModel, meant
from whence.linalg.solver import Solver
from whence.methods.changes import group_effect
from whence.methods.choose import chosen
from whence.methods.converged import converged
from whence.methods.method import Method
from whence.methods.model_quality import model_quality
from whence.methods.prediction import Indices, MeasureLike, Order, as_array, positions
from whence.objective.losses import measure_of
from whence.objective.measures import measure_name
from whence.objective.trained import Data, Examples, Trained
from whence.pages import write
from whence.result import Card, Result
from whence.rows import check_same_order, column, column_names, quarters
from whence.scores import Diagnostics
from whence.views.columns import spreads
from whence.views.groups import Group, groups_page
from whence.views.made import Made

Groups = Mapping[Any, Indices] | Sequence[Any] | NDArray[Any]
Columns = str | int | Sequence[str | int]
_Named = list[tuple[str, NDArray[np.intp]]]  # groups, with where their rows are

_DISTINCT = 10  # values of a column of numbers or dates up to which each is a group of its own


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class GroupInfluence(Result):
    """What one group of training rows does to the queries.

    Args:
        name: Of the group.
        positions: Of its rows in the training data, [m].
        influence: The first-order effect of removing each row alone on the queries' mean measure,
            [m]; in the unit of the loss, positive where the row helps.
        effect: What removing the whole group does to it, in the order asked for.
        feature: The name of the input feature with the largest input attribution, or `None` where
            inputs are no columns.
        input_attribution: The mean of |∂ measure / ∂ feature| over its rows, per standard deviation
            of the feature in the training data, or per distance of its two values, [d].
    """

    name: str
    positions: NDArray[np.intp]
    influence: Floats
    effect: float
    feature: str | None
    input_attribution: Floats

    @property
    def total(self) -> float:
        """Σ of the influence of its rows: the first-order effect of removing all of them."""
        return float(self.influence.sum())

    @property
    def per_row(self) -> float:
        """The mean of |influence| over its rows."""
        return float(np.abs(self.influence).mean())

    def card(self) -> Card:
        """Return the group with its effect."""
        return Card(
            title=f"{self.name}, {len(self.positions):,} rows: {self.effect:+.4g} without them"
        )


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class DomainMismatch(Result):
    """Groups of training rows by what they do to a slice of queries; made by `domain_mismatch`.

    Args:
        groups: The groups, the largest influence per row first.
        influence: The first-order effect of removing each training row alone on `value`, [n].
        value: The queries' mean measure as it is.
        order: How the effects of whole groups were found.
        measure: What is predicted.
        unit: Of the loss, where it is that; else empty.
        features: The names of the input features, [d]; empty where inputs are no columns.
        convex: Whether the model is known to be convex.
        diagnostics: How far to trust the first-order numbers.
        trained: The model.
    """

    groups: tuple[GroupInfluence, ...]
    influence: Floats
    value: float
    order: str
    measure: str
    unit: str
    features: tuple[str, ...]
    convex: bool
    diagnostics: Diagnostics
    trained: Trained

    def card(self) -> Card:
        """Return the groups, the largest influence per row first."""
        return Card(
            title=f"{len(self.groups)} groups of {len(self.influence):,} training rows; the mean "
            f"{self.measure} of the queries is {self.value:.3f}",
            table=self.to_frame().dropna(axis="columns", how="all"),
            words=(
                f"effect: the change of that mean without the group (order={self.order!r}); total: "
                "the sum of the changes without each of its rows alone; per_row: their mean size. "
                "Sorted by per_row: effects grow with the size of a group.",
            ),
        )

    def __str__(self) -> str:
        """Return the card's title, a row per group, and what the columns are."""
        known = self.to_frame().dropna(axis="columns", how="all").head(20)
        table = known.to_string(index=False, float_format="{:.4g}".format)
        return "\n".join([self.card().title, table, *self.card().words])

    def to_frame(self) -> pd.DataFrame:
        """Return a row per group: name, size, per_row, total, effect, feature, strength."""
        return pd.DataFrame(
            [
                {
                    "group": group.name,
                    "size": len(group.positions),
                    "per_row": group.per_row,
                    "total": group.total,
                    "effect": group.effect,
                    "feature": group.feature,
                    "strength": group.input_attribution.max() if group.feature else np.nan,
                }
                for group in self.groups
            ]
        )

    @checked
    def report(
        self,
        path: str | os.PathLike[str],
        *,
        title: str = "Which training rows drive these errors?",
        about: Sequence[str] = (),
        command: str = "domain_mismatch(objective, queries, ...).report(path)",
    ) -> Path:
        """Write the groups as one self-contained HTML page.

        Args:
            path: The file; an existing one is replaced, whole or not at all.
            title: The heading.
            about: Which data and model these are, a sentence each; the first stands on top.
            command: What reproduces the page; shown at its end.

        Returns:
            The path.

        Raises:
            InvalidInput: If the path cannot be written.
        """
        page = groups_page(
            (
                Group(
                    name=group.name,
                    size=len(group.positions),
                    per_row=group.per_row,
                    total=group.total,
                    effect=group.effect,
                    feature=group.feature,
                )
                for group in self.groups
            ),
            measure=self.measure,
            unit=self.unit,
            value=self.value,
            order=self.order,
            trained=self.trained,
            quality=model_quality(self.trained),
            diagnostics=self.diagnostics,
            made=Made(title=title, about=tuple(about), command=command),
        )
        return write(page, path)


@checked
def domain_mismatch(
    objective: Trained,
    queries: Data,
    *,
    columns: Columns | None = None,
    groups: Groups | None = None,
    order: Order | Literal["refit"] = "refit",
    measure: MeasureLike = "loss",
    method: Method | None = None,
    solver: Solver | None = None,
    damping: float | None = None,
) -> DomainMismatch:
    """Find which groups of training rows drive the errors on a slice of queries, and through what.

    With m̄ the queries' mean measure: each row's influence (wᵢ/n) ∇m̄ᵀ H⁻¹ gᵢ, summed and averaged
    by group; the feature in which |∂m̄/∂xᵢ| is largest on average over the group's rows, per
    standard deviation of the feature or from one of its two values to the other; and what becomes
    of m̄ when the model is fitted without the group.

    Args:
        objective: R at θ̂.
        queries: (X, y) of the slice: one query or many, weighed equally.
        columns: Columns of the training rows, by name or position. Each value is a group, such as
            "age = [0-10)", and so are the rows without one; numbers and dates with more than 10
            values are cut at their quartiles.
        groups: A label per training row, [n], or positions by name. Give this or `columns`.
        order: How to find the effect of a whole group: "first", "newton", "refined" or "refit".
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        method: What scores the rows; `whence.Influence` if `None`. Another method's scores add up
            for order="first", and features are named only where it follows changes of inputs.
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.

    Returns:
        The groups: `.groups`, `.influence`, `.to_frame()`, `.report(path)`.

    Raises:
        InvalidInput: If queries, columns or groups cannot be used, or a group is all there is.
        UnsupportedModel: If columns are asked of rows that have none, or a refit of a model that
            is not known to be convex.

    Cost:
        One solve, one mixed derivative of all rows of groups, and an effect per group.

    References:
        Koh & Liang (2017), section 5.3.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
        >>> objective = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> women = X[X["sex"] < 0]
        >>> slices = domain_mismatch(objective, (women, y[women.index]), columns="sex")
        >>> slices.to_frame()["size"].tolist()
        [235, 207]
    """
    if (columns is None) == (groups is None):
        got = "neither" if columns is None else "both"
        raise InvalidInput(
            f"Expected either columns=, whose values make the groups, or groups=. Got {got}."
        )
    named = _by_columns(objective, columns) if groups is None else _by_name(groups, objective)
    base = converged(objective) if order == "refit" else objective
    examples = objective.examples(queries)
    quantity = measure_of(objective.loss, measure)
    found = chosen(objective, method, solver, damping).fit(objective)
    values, diagnostics = found.mean_values(examples, quantity, np.arange(len(objective.train)))
    each = as_array(values)
    features = _features(objective.train)
    spread = spreads(objective.train.inputs) if features else np.ones(0)
    options: dict[str, Any] = {"method": method, "solver": solver, "damping": damping}
    groups_found = []
    for name, where in named:
        slopes = np.zeros(len(features))
        if found.follows_inputs:
            slopes = as_array(found.input_gradient(examples, quantity, where))
            slopes = np.abs(slopes.reshape(len(where), -1)).mean(0)
            slopes = slopes * spread if len(slopes) == len(spread) else slopes
        effect = group_effect(base, where, examples, order=order, measure=measure, **options)
        groups_found.append(
            GroupInfluence(
                name=name,
                positions=where,
                influence=each[where],
                effect=float(effect.mean()),
                feature=_name(features, slopes),
                input_attribution=slopes,
            )
        )
    groups_found.sort(key=lambda group: -group.per_row)
    return DomainMismatch(
        groups=tuple(groups_found),
        influence=each,
        value=float(quantity(objective.outputs(examples), examples.targets).mean()),
        order=order,
        measure=measure_name(measure),
        unit=objective.loss.unit if measure == "loss" else "",
        features=features,
        convex=objective.convex,
        diagnostics=diagnostics,
        trained=objective,
    )


def _by_columns(objective: Trained, columns: Columns | None) -> _Named:
    """Return the groups that the values of some columns make."""
    train = objective.train
    names = _features(train)
    if not names:
        raise UnsupportedModel(
            "Expected training rows with columns. Got examples of another kind. Pass groups=, a "
            "label per training example."
        )
    asked = [columns] if isinstance(columns, (str, int)) else list(columns or ())
    if not asked:
        raise InvalidInput("Expected at least one column. Got none.")
    found: _Named = []
    for each in asked:
        at = _position(each, names)
        if not 0 <= at < len(names):
            raise InvalidInput(f"Expected columns from 0 to {len(names) - 1}. Got {each}.")
        values, label = column(train.inputs, at), names[at]
        if values.dtype.kind in "iufmM" and values.nunique() > _DISTINCT:
            values = quarters(values)
        for value, rows in values.groupby(values, observed=True).indices.items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            found.append((f"{label} = {shown}", np.asarray(rows, dtype=np.intp)))
        missing = np.flatnonzero(values.isna())
        if len(missing):
            found.append((f"{label} is missing", missing))
    return _proper(found, len(train))


@singledispatch
def _by_name(groups: Groups, objective: Trained) -> _Named:
    """Return the groups that a user named: one name per row, or positions by name."""
    n = len(objective.train)
    check_same_order("groups", groups, objective.train.ids)
    given = np.atleast_1d(np.asarray(groups))
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim > 1:
        raise InvalidInput(
            f"Expected groups as one label per training row. Got {shown(groups)}. Pass one column."
        )
    labels = pd.Series(given)
    if len(labels) != n:
        raise InvalidInput(
            f"Expected {n} groups, one per training row. Got {len(labels)}. To group by the values "
            "of a column, pass its name as columns=."
        )
    indices = labels.groupby(labels).indices
    groups_found = [(str(k), np.asarray(v, dtype=np.intp)) for k, v in indices.items()]
    missing = np.flatnonzero(labels.isna())
    return _proper([*groups_found, *([("no group", missing)] if len(missing) else [])], n)


@_by_name.register(Mapping)
def _of_positions(groups: Mapping[Any, Indices], objective: Trained) -> _Named:
    named = [(str(k), np.unique(positions(objective, v))) for k, v in groups.items()]
    return _proper(named, len(objective.train))


def _proper(named: _Named, n: int) -> _Named:
    """Return the groups, if they are some and none is the whole training data."""
    if not named or any(len(where) == n for _, where in named):
        raise InvalidInput(
            "Expected groups that are a part of the training rows each. Got "
            + ("none." if not named else "one that holds all of them.")
        )
    return named


def _features(train: Examples) -> tuple[str, ...]:
    """Return the names of the columns of the user's rows; none where they are no rows."""
    names = column_names(train.inputs)
    if names is not None:
        return tuple(map(str, names))
    if isinstance(train.inputs, Tensor) or len(getattr(train.inputs, "shape", ())) != 2:
        return ()
    return tuple(f"column {j}" for j in range(train.inputs.shape[1]))


@singledispatch
def _position(column: str | int, names: tuple[str, ...]) -> int:
    """Return where a column is, of a name or at a position."""
    if column not in names:
        raise InvalidInput(
            f"Expected columns of the training rows, such as {names[0]!r}. Got {column!r}."
            f"{meant(str(column), names)}"
        )
    return names.index(column)


@_position.register(int)
def _as_it_is(column: int, names: tuple[str, ...]) -> int:
    return column


def _name(features: tuple[str, ...], slopes: Floats) -> str | None:
    """Return the feature with the largest derivative, if features have names."""
    return features[slopes.argmax()] if len(features) == len(slopes) and slopes.any() else None
