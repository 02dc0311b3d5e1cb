"""Derivatives in transformed columns, mapped back to the user's columns.

An affine transformer x ↦ A x + a has the constant Jacobian A, found by probing it one column at a
time and checked on real rows. A one-hot encoded column has no derivative; what is reported for it
is the derivative in the strength of the category the row has, Σ_k G_k x_k over its indicators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from whence.adapters.kernel import dense
from whence.rows import column_names, take

Floats = NDArray[np.float64]
_CHECKED_ROWS = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class Pullback:
    """Derivatives in transformed columns, carried back to the user's columns.

    Args:
        encode: The user's rows as encoded by the first step, [b, e].
        affine: From encoded columns to the user's columns where they are affine, [e, d′].
        strengths: The same where they are one-hot: 1 where column k encodes the user's column j.
        tail: The Jacobian of the later steps, [d_t, e], or `None` for the identity.
    """

    encode: Callable[[Any], Floats]
    affine: Floats
    strengths: Floats
    tail: Floats | None

    def __call__(self, gradient: Floats, rows: Any) -> Floats:
        """Return ∂/∂x in the user's columns, [b, d′], from the transformed ones, [b, d_t]."""
        if self.tail is not None:
            gradient = gradient @ self.tail
        direct = gradient @ self.affine
        if not self.strengths.any():
            return np.asarray(direct)
        return np.asarray(direct + (gradient * self.encode(rows)) @ self.strengths)


def pullback_of(transform: Pipeline, rows: Any) -> Pullback | None:
    """Return the way back through a fitted pipeline's transformers, or `None`.

    Args:
        transform: Fitted transformers.
        rows: Rows of the training data, a frame or an array.

    Returns:
        The pullback, or `None` where a step is neither affine nor one-hot.
    """
    sample = _few(rows)
    first = transform.steps[0][1]
    if isinstance(first, (ColumnTransformer, OneHotEncoder)):
        parts = _column_parts(first, sample)
        if parts is None:
            return None
        affine, strengths = parts

        def encode(some: Any) -> Floats:
            return dense(first.transform(some))

        rest = transform.steps[1:]
        tail = _affine(Pipeline(rest).transform, encode(sample)) if rest else None
        if rest and tail is None:
            return None
        return Pullback(encode=encode, affine=affine, strengths=strengths, tail=tail)
    matrix = _affine(transform.transform, sample)
    if matrix is None:
        return None
    return Pullback(encode=dense, affine=matrix, strengths=np.zeros_like(matrix), tail=None)


def _few(rows: Any) -> Any:
    """Return some rows, spread over the table."""
    where = np.unique(np.linspace(0, rows.shape[0] - 1, _CHECKED_ROWS).astype(int))
    return take(rows, where)


def _affine(transform: Callable[[Any], Any], sample: Any) -> Floats | None:
    """Return the Jacobian [d_out, d_in] of an affine transform, or `None` if it is not affine."""
    try:
        numbers = dense(sample)
    except (TypeError, ValueError):
        return None

    def apply(some: Floats) -> Floats:
        if isinstance(sample, pd.DataFrame):
            return dense(transform(pd.DataFrame(some, columns=sample.columns)))
        return dense(transform(some))

    numbers = np.where(np.isnan(numbers), 0.0, numbers)  # affine in the cells that are not missing
    if not np.isfinite(numbers).all():
        return None
    base = numbers.mean(0)
    step = np.maximum(np.abs(numbers).max(0), 1.0)
    try:
        origin = apply(base[None])
        jacobian = ((apply(base + np.diag(step)) - origin) / step[:, None]).T
    except ValueError:  # numbers that are categories have no mean
        return None
    predicted = origin + (numbers - base) @ jacobian.T
    real = apply(numbers)
    scale = max(1.0, float(np.abs(real).max()))
    return jacobian if np.allclose(predicted, real, rtol=0, atol=1e-8 * scale) else None


def _column_parts(first: Any, sample: Any) -> tuple[Floats, Floats] | None:
    """Return the affine and one-hot maps [e, d′] of a column transformer, or `None`."""
    width = sample.shape[1]
    if isinstance(first, OneHotEncoder):
        encoded = dense(first.transform(sample)).shape[1]
        strengths = np.zeros((encoded, width))
        _mark_onehot(strengths, 0, first, list(range(width)))
        return np.zeros_like(strengths), strengths
    names = list(column_names(sample) or range(width))
    encoded = dense(first.transform(sample)).shape[1]
    affine, strengths = np.zeros((encoded, width)), np.zeros((encoded, width))
    for name, step, columns in first.transformers_:
        place = first.output_indices_[name]
        if place.stop == place.start:
            continue
        where = [names.index(column) for column in _listed(columns, names)]
        part = sample.iloc[:, where] if isinstance(sample, pd.DataFrame) else sample[:, where]
        last = step.steps[-1][1] if isinstance(step, Pipeline) else step
        if isinstance(last, OneHotEncoder):
            _mark_onehot(strengths, place.start, last, where)
        elif step == "passthrough":
            affine[place.start : place.stop, where] = np.eye(len(where))
        else:
            jacobian = _affine(step.transform, part)
            if jacobian is None:
                return None
            affine[place, where] = jacobian
    return affine, strengths


def _listed(columns: Any, names: list[Any]) -> list[Any]:
    """Return which columns a column transformer's selection names."""
    if isinstance(columns, slice):
        return names[columns]
    chosen = np.atleast_1d(np.asarray(columns, dtype=object))
    if len(chosen) and isinstance(chosen[0], (bool, np.bool_)):
        return [name for name, keep in zip(names, chosen, strict=True) if keep]
    return [c if c in names else names[c] for c in chosen.tolist()]


def _mark_onehot(strengths: Floats, start: int, encoder: OneHotEncoder, where: list[int]) -> None:
    """Write 1 where an encoded column stands for a category of the user's column."""
    sizes = encoder._n_features_outs
    for column, size in zip(where, sizes, strict=True):
        strengths[start : start + size, column] = 1
        start += size
