"""Changes of cells of a table's training rows, within bounds: how few turn a prediction?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from whence.applications.poisoning import mean_loss, predicted
from whence.checked import checked
from whence.checked import positions as checked_positions
from whence.errors import InvalidInput, UnsupportedModel
from whence.methods.edits import mean_s_test
from whence.methods.prediction import as_array
from whence.objective.objective import Objective, objective_of
from whence.objective.trained import Data, Examples, Trained
from whence.result import Card, Result
from whence.rows import column, column_names, with_cells
from whence.views.answer import target_class
from whence.views.columns import column_name, has_cells

_ROWS = 500  # training rows, by influence, of which every cell is looked at
_TRIED = 3  # changes of the largest predicted effect that are fitted


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class CellChanges(Result):
    """Cells of training rows that were changed, and what that did; made by `change_cells`.

    Args:
        ids: The user's names of the changed rows, in the order of the changes, [m].
        positions: Their positions in the training data, [m].
        columns: The names of the changed columns, [m].
        before: The values that were there, [m].
        after: The values that are there now, [m].
        losses: The mean loss of the queries after each change, the clean one first, [m + 1].
        flipped: Which queries are now predicted otherwise, [q].
        poisoned: The model fitted on the changed rows.
    """

    ids: NDArray[Any]
    positions: NDArray[np.intp]
    columns: tuple[str, ...]
    before: tuple[Any, ...]
    after: tuple[Any, ...]
    losses: tuple[float, ...]
    flipped: NDArray[np.bool_]
    poisoned: Objective

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each change: whose cell, which, from what to what, and the loss."""
        return pd.DataFrame(
            {
                "row": self.ids,
                "column": self.columns,
                "before": pd.Series(self.before, dtype=object),
                "after": pd.Series(self.after, dtype=object),
                "loss": self.losses[1:],
            }
        )

    def card(self) -> Card:
        """Return the outcome in a sentence, and the changes."""
        cells, rows = len(self.positions), len(np.unique(self.positions))
        title = (
            f"{int(self.flipped.sum())} of {len(self.flipped)} predictions flipped by "
            f"{cells} changed cell{'s' * (cells != 1)} of {rows} training row{'s' * (rows != 1)}; "
            f"mean loss {self.losses[0]:.3f} -> {self.losses[-1]:.3f}, refitted"
        )
        return Card(title=title, table=self.to_frame())


@dataclass(frozen=True, kw_only=True)
class _Change:
    """One cell of a training row gets another value.

    Args:
        rise: The predicted rise of the queries' mean loss.
        row: Position of the row.
        column: Position of the column.
        value: What the cell becomes.
    """

    rise: float
    row: int
    column: int
    value: Any


@checked
def change_cells(
    objective: Trained,
    queries: Data,
    *,
    bounds: Mapping[Any, Any] | None = None,
    indices: Any = None,
    most: int = 10,
) -> CellChanges:
    """Change cells of training rows one by one until the predictions of some queries flip.

    Each turn predicts what every allowed value of every allowed cell does to the queries' mean
    loss, −(1/n) ∇m̄ᵀ H⁻¹ (g(x′, y) − g(x, y)), fits the model again with each of the three best, its
    preprocessing with it, and keeps the one that raises the loss most. No cell is changed twice.

    Args:
        objective: A classifier of a table from `whence.from_sklearn`.
        queries: (X, y) of the queries whose loss is to rise.
        bounds: By the name of a column, or its position where columns have no names, what its cells
            may become: (low, high) for numbers, of which the two ends are tried; a list of values
            for any column. A column that is not named stays as it is. `None`: all columns, each
            within its own smallest and largest value, or among its own values. Whole numbers stay
            whole, and a category stays one that the column has.
        indices: Positions of the rows that may be changed; all if `None`.
        most: At most so many cells are changed, >= 1. It ends when all queries have flipped, or no
            change raises their loss.

    Returns:
        The changed cells, and the model fitted on them.

    Raises:
        UnsupportedModel: If the model is no such classifier.
        InvalidInput: If a bound names no column or holds no value for it, another option is out of
            range, or queries cannot be used.

    Cost:
        Per cell one solve, the gradients of the allowed changes of at most 500 rows (those with the
        largest influence) and three refits.

    References:
        Koh & Liang (2017), section 2.2, equation 3, and section 5.2.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_breast_cancer
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> X = (X[:, :5] - X[:, :5].mean(0)) / X[:, :5].std(0)
        >>> model = LogisticRegression(tol=1e-8).fit(X[20:120], y[20:120])
        >>> objective = whence.from_sklearn(model, X[20:120], y[20:120])
        >>> attack = whence.attacks.change_cells(
        ...     objective, (X[:1], y[:1]), bounds={0: (-2.0, 2.0), 3: (-2.0, 2.0)}, most=2
        ... )
        >>> attack.losses[0] < attack.losses[1] < attack.losses[2]
        True
        >>> set(attack.columns) <= {"column 0", "column 3"}
        True
    """
    if most < 1:
        raise InvalidInput(f"Expected most >= 1 cells to change. Got {most}.")
    current = objective_of(objective)
    rows = current.train.inputs
    if not current.classes or current.statistics is None or not has_cells(rows):
        raise UnsupportedModel(
            "Expected a classifier of a frame or an array from whence.from_sklearn, which is "
            f"fitted again on changed rows. Got {objective!r}."
        )
    current = current.refit()
    encoded = current.examples(queries)
    allowed = _allowed(rows, bounds)
    n = len(current.train)
    among = np.arange(n) if indices is None else checked_positions("indices", indices, n)
    before, losses = predicted(current, encoded), [mean_loss(current, encoded)]
    made: list[_Change] = []
    replaced: list[Any] = []
    while len(made) < most and not (predicted(current, encoded) != before).all():
        best = max(
            (
                (_made(current, each), each)
                for each in _best(current, encoded, allowed, among, made)
            ),
            key=lambda pair: mean_loss(pair[0], encoded),
            default=None,
        )
        if best is None or mean_loss(best[0], encoded) <= losses[-1]:
            break
        replaced.append(column(current.train.inputs, best[1].column).iloc[best[1].row])
        current = best[0]
        made.append(best[1])
        losses.append(mean_loss(current, encoded))
    where = np.array([each.row for each in made], dtype=np.intp)
    return CellChanges(
        ids=current.train.ids[where],
        positions=where,
        columns=tuple(column_name(rows, each.column) for each in made),
        before=tuple(replaced),
        after=tuple(each.value for each in made),
        losses=tuple(losses),
        flipped=predicted(current, encoded) != before,
        poisoned=current,
    )


def _allowed(rows: Any, bounds: Mapping[Any, Any] | None) -> dict[int, tuple[Any, ...]]:
    """Return by position of a column which values its cells may get."""
    names = column_names(rows) or tuple(range(rows.shape[1]))
    asked = dict.fromkeys(names) if bounds is None else bounds
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise InvalidInput(
            f"Expected bounds of columns of the training data, such as {names[0]!r}. Got "
            f"{unknown[0]!r}."
        )
    return {
        names.index(name): _values(name, column(rows, names.index(name)), asked[name])
        for name in asked
    }


def _values(name: Any, cells: pd.Series[Any], bound: Any) -> tuple[Any, ...]:
    """Return which values the cells of one column may get."""
    there = cells.dropna().infer_objects()
    kinds = pd.api.types
    if not kinds.is_numeric_dtype(there.dtype) or kinds.is_bool_dtype(there.dtype):
        has = there.unique().tolist()
        values = has if bound is None else list(np.atleast_1d(np.asarray(bound, dtype=object)))
        if unknown := [value for value in values if value not in has]:
            raise InvalidInput(f"Expected values that column {name!r} has. Got {unknown[0]!r:.60}.")
        return tuple(values)
    if bound is None:
        there = there[np.isfinite(there.astype(np.float64))]
        if there.empty:
            return ()
    try:
        numbers = np.array((there.min(), there.max()) if bound is None else bound, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    whole = not there.empty and bool((there == there.round()).all())
    ends = bound is None or type(bound) is tuple
    if whole and ends and numbers.shape == (2,):
        numbers = np.array([np.ceil(numbers[0]), np.floor(numbers[1])])
    shaped = numbers.shape == (2,) and numbers[0] <= numbers[1] if ends else numbers.ndim == 1
    fitting = np.isfinite(numbers) & (~np.array(whole) | (numbers == np.round(numbers)))
    if not shaped or not fitting.all():
        raise InvalidInput(
            f"Expected (low, high), low <= high, or a list of values, for column {name!r}"
            f"{', which holds whole numbers' if whole else ''}. Got {bound!r:.60}."
        )
    return tuple(int(value) if whole else float(value) for value in np.unique(numbers))


def _best(
    objective: Objective,
    queries: Examples,
    allowed: Mapping[int, tuple[Any, ...]],
    among: NDArray[np.intp],
    made: list[_Change],
) -> list[_Change]:
    """Return the changes whose predicted rise of the mean loss is largest, the largest first."""
    direction = mean_s_test(objective, queries)
    among = among[objective.weights[among].numpy() > 0]
    slopes = _slopes(objective, among, objective.train.subset(among), direction)
    strongest = np.argsort(-np.abs(slopes), kind="stable")[:_ROWS]
    where, now = among[strongest], slopes[strongest]
    done = {(each.row, each.column) for each in made}
    found: list[_Change] = []
    for at, value in ((at, value) for at, values in allowed.items() for value in values):
        free = np.array([(int(row), at) not in done for row in where], dtype=bool)
        new = _examples(objective, where, at, value)
        rises = (now - _slopes(objective, where, new, direction)) / len(objective.train)
        rises[~free] = -np.inf
        found += [
            _Change(rise=float(rises[best]), row=int(where[best]), column=at, value=value)
            for best in np.argsort(-rises, kind="stable")[:_TRIED]
            if rises[best] > 0
        ]
    return sorted(found, key=lambda each: -each.rise)[:_TRIED]


def _slopes(
    objective: Objective, where: NDArray[np.intp], examples: Examples, direction: Tensor
) -> NDArray[np.float64]:
    """Return wᵢ gᵀ H⁻¹ ∇m̄ of examples in the places of training rows, [k]."""
    slopes = objective.gradient_dot(examples, objective.loss, direction).squeeze(1)
    return as_array(objective.weights[where] * slopes)


def _examples(objective: Objective, where: NDArray[np.intp], at: int, value: Any) -> Examples:
    """Return training rows with one value in a column, and their own labels."""
    some = objective.train.subset(where)
    labels = [objective.classes[target_class(target)] for target in some.targets]
    return objective.examples((with_cells(some.inputs, at, value), np.array(labels)))


def _made(objective: Objective, change: _Change) -> Objective:
    """Return the objective fitted on one changed cell."""
    where = np.array([change.row], dtype=np.intp)
    new = _examples(objective, where, change.column, change.value)
    return objective.refit_edited(where, new)
