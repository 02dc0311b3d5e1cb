"""A user's table as features: checked, transformed, and traced back to its own columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.adapters.kernel import Kernel, RowSpace
from whence.adapters.pullback import Pullback
from whence.adapters.rows import labels_of
from whence.adapters.tables import as_floats, as_rows, pair
from whence.arrays import Floats
from whence.checked import said
from whence.errors import InvalidInput
from whence.linear.features import DenseFeatures, Features, SparseFeatures
from whence.linear.objective import InputMap, LinearExamples, LinearObjective
from whence.objective.arrays import shared
from whence.rows import dense, is_sparse

_FAR = 100.0  # times its spread from 0: squares of such a column have four digits less
_LOOKED_AT = 256  # rows that tell which columns may be far from 0


@dataclass(frozen=True, eq=False, kw_only=True)
class TabularMap(InputMap):
    """How rows of a table become features of a fitted estimator.

    Args:
        width: The number of columns the estimator was fitted on; `None` where it reads texts.
        names: Their names, or `None` where it was fitted on an array.
        transform: What stands before the estimator in its pipeline, or `None`.
        targets: Encodes the targets, and refuses those the estimator cannot have.
        outputs: c, the number of outputs.
        d: The number of features of the model.
        transformed_width: The number of columns after the transformers.
        find_pullback: Returns the way from transformed columns back to the user's own, or `None`
            where there is none.
        columns: The transformed columns that the model uses, or `None` for all.
        space: The row space of a kernel or wide model, or `None`.
        constant: The value of the constant column.
        center: What is taken off the transformed columns before the model reads them, or `None`.
    """

    width: int | None
    names: tuple[str, ...] | None
    transform: Callable[[Any], Any] | None
    targets: Callable[[Any], Tensor]
    outputs: int
    d: int
    transformed_width: int
    find_pullback: Callable[[], Pullback | None]
    columns: NDArray[np.intp] | None = None
    space: RowSpace | None = None
    constant: float = 1.0
    center: Floats | None = None

    @cached_property
    def pullback(self) -> Pullback | None:
        """The way from transformed columns back to the user's own, found when it is needed."""
        return self.find_pullback()

    def encode(self, data: Any) -> LinearExamples:
        """Check and encode (x, y): one row or many."""
        inputs, given = pair(data)
        rows, ids = as_rows(inputs, self.width, self.names)
        return self.encode_rows(rows, ids, given, self.features_of(rows))

    def features_of(self, inputs: Any) -> Features:
        """Return the features of checked rows."""
        return self.features(self.transformed(inputs))

    def encode_rows(
        self, rows: Any, ids: NDArray[Any], y: Any, features: Features
    ) -> LinearExamples:
        """Encode checked rows, whose features are known, with their targets."""
        labels = labels_of(y)
        labels = labels.reshape(1, *labels.shape) if labels.ndim == 0 else labels
        if len(labels) != rows.shape[0]:
            raise InvalidInput(
                f"Expected one target per row. Got {rows.shape[0]} rows and {len(labels)} targets."
            )
        return self.examples(rows, ids, labels, features)

    def examples(
        self, rows: Any, ids: NDArray[Any], labels: NDArray[Any], features: Features
    ) -> LinearExamples:
        """Return rows and labels that were checked before as examples."""
        return LinearExamples(
            features=features,
            targets=self.targets(labels),
            ids=ids,
            inputs=rows,
            encoded_by=self,
        )

    def transformed(self, rows: Any) -> Any:
        """Return the rows after the pipeline's transformers, as checked floats."""
        if self.transform is None:
            return as_floats(rows)
        with said("rows that the pipeline's own steps can transform"):
            return as_floats(self.transform(rows))

    def features(self, matrix: Any) -> Features:
        """Return the features of transformed rows."""
        if self.center is not None:
            matrix = matrix - self.center
        if self.columns is not None:
            matrix = matrix[:, self.columns]
        if self.space is not None:
            return DenseFeatures(torch.from_numpy(self.space.coordinates(matrix)))
        return SparseFeatures(matrix) if is_sparse(matrix) else DenseFeatures(shared(matrix))

    def vjp(self, examples: LinearExamples, *terms: tuple[Tensor, Tensor]) -> Tensor:
        """Return Σ_a W[b, a] ∂f_a/∂x_b in the user's own columns where there is a way back."""
        return torch.stack([self._vjp(examples, *term) for term in terms]).sum(0)

    def _vjp(self, examples: LinearExamples, params: Tensor, w: Tensor) -> Tensor:
        """Return the same for one model."""
        weights = w.detach().numpy()
        coef = params[: self.outputs * self.d].reshape(self.outputs, self.d).numpy()
        if self.space is None:
            gradient = weights @ coef
        elif self.space.kernel.name == "linear":
            gradient = weights @ self.space.lift(coef.T).T
        else:
            rows, centers = dense(self.transformed(examples.inputs)), dense(self.space.pivots)
            duals = weights @ self.space.dual(coef.T).T
            gradient = self.space.kernel.gradient(duals, centers, rows)
        if self.columns is not None:
            scattered = np.zeros((len(gradient), self.transformed_width))
            scattered[:, self.columns] = gradient
            gradient = scattered
        if self.pullback is not None:
            gradient = self.pullback(gradient, examples.inputs)
        return torch.from_numpy(np.ascontiguousarray(gradient))

    def lift(self, v: Tensor) -> Tensor:
        """Return V in coefficients of the transformed columns, then intercepts as stated."""
        k, size = v.shape[1], self.outputs * self.d
        coef = v[:size].reshape(self.outputs, self.d, k)
        if self.space is not None:
            coef = torch.stack([torch.from_numpy(self.space.lift(a.numpy())) for a in coef])
        if self.columns is not None:
            scattered = coef.new_zeros(self.outputs, self.transformed_width, k)
            scattered[:, self.columns] = coef
            coef = scattered
        levels = self.constant * v[size:]
        center = self.center if self.space is None else self.space.kernel.place
        if center is not None:
            levels = levels - torch.einsum("d,cdk->ck", torch.from_numpy(center), coef)
        return torch.cat([coef.reshape(-1, k), levels])


def far_center(matrix: Any, kept: NDArray[np.bool_]) -> Floats | None:
    """Return the means of columns far from 0 beside their spread, 0 of the others, [d].

    Beside an intercept such columns (years, timestamps, prices) are nearly one column: what they
    say is in the last digits of their products, which rounding takes.

    Args:
        matrix: Rows, [n, d].
        kept: Which of them are there, [n].

    Returns:
        `None` where no column is far from 0, or the rows are sparse.
    """
    if is_sparse(matrix):
        return None
    there = np.flatnonzero(kept)
    some = matrix[there[:_LOOKED_AT]]
    likely = np.flatnonzero(_is_far(some))
    if not len(likely):
        return None
    columns = matrix[np.ix_(there, likely)]
    far = likely[_is_far(columns)]
    center = np.zeros(matrix.shape[1])
    center[far] = matrix[np.ix_(there, far)].mean(0)
    return center if len(far) else None


def near_support(
    kernel: Kernel, duals: Floats, support: Any, intercept: Floats
) -> tuple[Kernel, Floats]:
    """Return a kernel and an intercept that say the same of columns far from 0, with more digits.

    Args:
        kernel: k.
        duals: Of the support vectors, which sum to 0 beside a free intercept, [c, s].
        support: Support vectors, [s, d].
        intercept: [c].
    """
    count = support.shape[0]
    place = None
    if kernel.name == "linear" and count:
        place = far_center(support, np.ones(count, dtype=bool))
    if place is None:
        return kernel, intercept
    return replace(kernel, place=place), intercept + duals @ (support - place) @ place


def _is_far(columns: Floats) -> NDArray[np.bool_]:
    """Return which columns are far from 0 beside their spread; a constant one is not, [d]."""
    low, high = columns.min(0), columns.max(0)
    least = np.where(low * high > 0, np.minimum(np.abs(low), np.abs(high)), 0.0)
    return np.asarray((high > low) & (_FAR * (high - low) < least))


def table_of(objective: LinearObjective) -> TabularMap:
    """Return how the rows of an estimator's objective become features.

    Args:
        objective: R of a fitted estimator.
    """
    assert isinstance(objective.inputs, TabularMap)
    return objective.inputs
