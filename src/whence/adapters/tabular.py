"""A user's table as features: checked, transformed, and traced back to its own columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from whence.adapters.kernel import RowSpace, dense
from whence.adapters.pullback import Pullback
from whence.checked import array, said
from whence.checked import labels as checked_labels
from whence.errors import InvalidInput
from whence.linear.features import DenseFeatures, Features, SparseFeatures
from whence.linear.objective import InputMap, LinearExamples
from whence.objective.arrays import first_not_finite, shared
from whence.rows import column_names, is_sparse

Floats = NDArray[np.float64]


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

    @cached_property
    def pullback(self) -> Pullback | None:
        """The way from transformed columns back to the user's own, found when it is needed."""
        return self.find_pullback()

    def encode(self, data: Any) -> LinearExamples:
        """Check and encode (x, y): one row or many."""
        if not isinstance(data, tuple) or len(data) != 2:
            raise InvalidInput(
                f"Expected a pair (X, y). Got {type(data).__name__}. Pass queries as (X, y)."
            )
        rows, ids = as_rows(data[0], self.width, self.names)
        return self.encode_rows(rows, ids, data[1], self.features_of(rows))

    def features_of(self, inputs: Any) -> Features:
        """Return the features of checked rows."""
        return self.features(self.transformed(inputs))

    def encode_rows(
        self, rows: Any, ids: NDArray[Any], y: Any, features: Features
    ) -> LinearExamples:
        """Encode checked rows, whose features are known, with their targets."""
        labels = checked_labels("targets", y)
        labels = labels.reshape(1, *labels.shape) if labels.ndim == 0 else labels
        if len(labels) != rows.shape[0]:
            raise InvalidInput(
                f"Expected one target per row. Got {rows.shape[0]} rows and {len(labels)} targets."
            )
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
        if self.columns is not None:
            matrix = matrix[:, self.columns]
        if self.space is not None:
            return DenseFeatures(torch.from_numpy(self.space.coordinates(matrix)))
        if isinstance(matrix, sparse.csr_array):
            return SparseFeatures(matrix)
        return DenseFeatures(shared(matrix))

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
        return torch.cat([coef.reshape(-1, k), self.constant * v[size:]])


def as_rows(x: Any, width: int | None, names: tuple[str, ...] | None) -> tuple[Any, NDArray[Any]]:
    """Return a user's X as rows of the width that was fitted on, with their ids.

    Args:
        x: An array, frame, sparse matrix, or one row of them; texts where the width is `None`.
        width: The number of columns fitted on, or `None` for texts.
        names: The names of the columns fitted on, or `None`.

    Returns:
        A frame, array or CSR matrix of b rows, or b texts, and their ids, [b].

    Raises:
        InvalidInput: If there are no rows, or other columns than were fitted on.
    """
    if width is None:
        return _as_texts(x)
    if isinstance(x, pd.Series):
        x = x.to_frame().T.infer_objects()
    if isinstance(x, pd.DataFrame):
        if x.columns.has_duplicates:
            twice = x.columns[x.columns.duplicated()][0]
            raise InvalidInput(f"Expected distinct column names. Got {twice!r} twice. Rename one.")
        if names is not None and list(x.columns) != list(names):
            missing = [name for name in names if name not in x.columns]
            if missing:
                raise InvalidInput(
                    f"Expected the columns the estimator was fitted on. Got a frame without "
                    f"{missing[0]!r}. Pass the same columns."
                )
            x = x[list(names)]
    elif is_sparse(x):
        x = x.tocsr()
    else:
        x = array("rows", x)
        x = x.reshape(1, -1) if x.ndim == 1 else x
        if x.ndim != 2:
            raise InvalidInput(f"Expected rows and columns. Got an array of shape {x.shape}.")
    if x.shape[0] == 0:
        raise InvalidInput("Expected at least one row. Got none.")
    if x.shape[1] != width:
        raise InvalidInput(
            f"Expected {width} columns, as the estimator was fitted on. Got {x.shape[1]}."
        )
    if isinstance(x, pd.DataFrame):
        return x, x.index.to_numpy()
    if names is not None and not is_sparse(x):
        x = pd.DataFrame(x, columns=list(names))
    return x, np.arange(x.shape[0])


def _as_texts(x: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return one text or several as an array of objects, with their ids."""
    ids = x.index.to_numpy() if isinstance(x, pd.Series) else None
    if isinstance(x, str | bytes):
        x = [x]
    texts = np.empty(0, dtype=object)
    if not isinstance(x, pd.DataFrame):
        texts = np.asarray(x, dtype=object)
    if texts.ndim != 1 or not len(texts):
        raise InvalidInput(
            "Expected texts, as the pipeline was fitted on: a list, an array or a Series of "
            f"strings, at least one. Got {type(x).__name__} of shape {np.shape(x)}. Pass the one "
            "column that holds the texts."
        )
    wrong = next((j for j, text in enumerate(texts) if not isinstance(text, str | bytes)), None)
    if wrong is not None:
        raise InvalidInput(f"Expected strings. Got {texts[wrong]!r:.40} in position {wrong}.")
    return texts, np.arange(len(texts)) if ids is None else ids


def as_floats(rows: Any) -> Any:
    """Return rows as float64, dense or CSR, all finite.

    Args:
        rows: A frame, array or sparse matrix of numbers.

    Returns:
        A float64 array or CSR array.

    Raises:
        InvalidInput: If an entry is no finite number; the first is named.
    """
    if is_sparse(rows):
        matrix: Any = sparse.csr_array(rows, dtype=np.float64)
        if not np.isfinite(matrix.data).all():
            at = int(np.flatnonzero(~np.isfinite(matrix.data))[0])
            row = int(np.searchsorted(matrix.indptr, at, side="right")) - 1
            raise InvalidInput(_NOT_FINITE.format(matrix.data[at], row, matrix.indices[at]))
        return matrix
    names = column_names(rows)
    try:
        matrix = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"Expected columns of numbers. Got one that is not: {error}. Encode text columns "
            "inside a Pipeline, for example with OneHotEncoder, and pass the pipeline."
        ) from error
    bad = first_not_finite(shared(matrix))
    if bad is not None:
        row, column = bad
        name = repr(names[column]) if names else column
        raise InvalidInput(_NOT_FINITE.format(matrix[row, column], row, name))
    return matrix


_NOT_FINITE = (
    "Expected finite numbers. Got {} in row {}, column {}. "
    "Impute or drop missing values, inside the pipeline if there is one."
)
