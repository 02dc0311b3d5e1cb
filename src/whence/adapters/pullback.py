"""Derivatives in transformed columns, mapped back to the user's columns.

An affine transformer x ↦ A x + a has the constant Jacobian A, found by probing it one column at a
time and checked on real rows. A one-hot encoded column has no derivative; what is reported for it
is the derivative in the strength of the category the row has, Σ_k G_k x_k over its indicators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, TypeAlias

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from whence.arrays import Floats
from whence.preprocessing.containers import final
from whence.preprocessing.table import positions
from whence.rows import columns_at, dense, formed, take
from whence.tiles import spread

Parts: TypeAlias = tuple[Floats, Floats]
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
    sample, first = _few(rows), transform.steps[0][1]
    parts = _parts(first, sample)
    if parts is None:
        return None

    def encode(some: Any) -> Floats:
        return dense(first.transform(some))

    rest = transform.steps[1:]
    tail = _affine(Pipeline(rest).transform, encode(sample)) if rest else None
    if rest and tail is None:
        return None
    affine, strengths = parts
    return Pullback(encode=encode, affine=affine, strengths=strengths, tail=tail)


def _few(rows: Any) -> Any:
    """Return some rows, spread over the table."""
    where = spread(rows.shape[0], _CHECKED_ROWS)
    return take(rows, where)


def _affine(transform: Callable[[Any], Any], sample: Any) -> Floats | None:
    """Return the Jacobian [d_out, d_in] of an affine transform, or `None` if it is not affine."""
    try:
        numbers = dense(sample)
    except (TypeError, ValueError):
        return None

    def apply(some: Floats) -> Floats:
        return dense(transform(formed(some, sample)))

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


@singledispatch
def _parts(first: Any, sample: Any) -> Parts | None:
    """Return the affine and the one-hot map of a first step, or `None` if it is neither."""
    return _block(final(first), first, sample)


@_parts.register
def _parts_by_columns(first: ColumnTransformer, sample: Any) -> Parts | None:
    width = sample.shape[1]
    encoded = dense(first.transform(sample)).shape[1]
    affine, strengths = np.zeros((encoded, width)), np.zeros((encoded, width))
    for name, step, columns in first.transformers_:
        place = first.output_indices_[name]
        if place.stop == place.start:
            continue
        where = positions(sample, columns)
        block = _block(final(step), step, columns_at(sample, where))
        if block is None:
            return None
        affine[place, where], strengths[place, where] = block
    return affine, strengths


@singledispatch
def _block(last: Any, step: Any, sample: Any) -> Parts | None:
    """Return the affine and the one-hot map [e, d] of a step that ends in another."""
    jacobian = _affine(step.transform, sample)
    return None if jacobian is None else (jacobian, np.zeros_like(jacobian))


@_block.register
def _unchanged(last: str, step: str, sample: Any) -> Parts:
    width = sample.shape[1]
    return np.eye(width), np.zeros((width, width))


@_block.register
def _one_hot(last: OneHotEncoder, step: Any, sample: Any) -> Parts:
    strengths = np.repeat(np.eye(sample.shape[1]), last._n_features_outs, axis=0)
    return np.zeros_like(strengths), strengths
