"""Similarities of training examples and queries: of inputs, and of outputs over refits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn import config_context
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.random_projection import SparseRandomProjection
from torch import Tensor

from whence.rows import is_sparse

_LEVELS = 30  # categories of a column that count as such
_WIDE = 1_000  # columns above which rows are projected
_PROJECTED = 256  # columns after that
_NEIGHBORS = (5.0, 30.0)  # ranks over which nearness fades
_NEAREST = 14  # neighbors that count equally


def coordinates(train: Any, asked: Any) -> tuple[Tensor, Tensor] | None:
    """Return training inputs and queries as points, each column of the training data standardized.

    Numbers are standardized, one that is missing or infinite is the median; text columns are
    one-hot; texts and wide rows are projected at random; tensors are flattened.

    Args:
        train: The inputs of n training examples: a frame, an array, a sparse matrix, texts or a
            tensor.
        asked: The inputs of q queries, alike.

    Returns:
        Points [n, d] and [q, d] in float64; `None` where inputs are in no such form.
    """
    with config_context(transform_output="default"):  # whatever a user has set for transformers
        return _coordinates(train, asked)


def _coordinates(train: Any, asked: Any) -> tuple[Tensor, Tensor] | None:
    """Return inputs as points."""
    if isinstance(train, Tensor):
        train, asked = (part.detach().cpu().flatten(1).numpy() for part in (train, asked))
    train, asked = counted(train, asked, 2**16)
    if not is_sparse(train) and len(getattr(train, "shape", ())) != 2:
        return None
    if train.shape[1] > _WIDE:
        projection = SparseRandomProjection(_PROJECTED, random_state=0)
        train, asked = projection.fit_transform(train), projection.transform(asked)
    if is_sparse(train):
        train, asked = train.toarray(), asked.toarray()
    frame, other = (  # by position: names may be of several levels, or of several columns
        pd.DataFrame(part).set_axis(range(train.shape[1]), axis=1) for part in (train, asked)
    )
    frame, other = frame.infer_objects(), other.infer_objects()
    numeric = [c for c in frame.columns if pd.api.types.is_numeric_dtype(frame[c])]
    text = [c for c in frame.columns if c not in set(numeric)]
    frame, other = (part.replace([np.inf, -np.inf], np.nan) for part in (frame, other))
    for part in (frame, other):
        part[text] = part[text].astype(str)
    numbers = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()
    )
    levels = OneHotEncoder(handle_unknown="ignore", max_categories=_LEVELS, sparse_output=False)
    columns = make_column_transformer((numbers, numeric), (levels, text))
    points = columns.fit_transform(frame), columns.transform(other)
    first, second = (torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in points)
    return first, second


def counted(train: Any, asked: Any, size: int) -> tuple[Any, Any]:
    """Return texts as counts of their words, sparse; all else as it is.

    Args:
        train: The inputs of n training examples.
        asked: The inputs of q queries, alike.
        size: Columns that words are hashed to.
    """
    if not isinstance(train, np.ndarray) or train.ndim != 1:
        return train, asked
    hashing = HashingVectorizer(n_features=size, alternate_sign=False)
    return hashing.transform(train), hashing.transform(asked)


def likeness(asked: Tensor, train: Tensor) -> Tensor:
    """Return several similarities of queries to training examples by their inputs alone.

    A constant and the inner product; a Gaussian of the distance, as wide as half the median; and
    by the rank of nearness: fading over 5 and over 30 neighbors, and the nearest 14 alike.

    Args:
        asked: Points of the queries, [q, d].
        train: Points of the training examples, [n, d].

    Returns:
        Similarities, [6, q, n].
    """
    distances = torch.cdist(asked, train)
    median = distances.median().clamp_min(1e-12)
    ranks = distances.argsort(dim=1, stable=True).argsort(dim=1).double()
    inner = asked @ train.T / train.shape[1]
    return torch.stack(
        [
            torch.ones_like(inner),
            1 + inner,
            torch.exp(-2 * (distances / median).square()),
            (ranks < _NEAREST).double(),
            *(1 / (1 + ranks / width) for width in _NEIGHBORS),
        ]
    )


def covariation(asked: Tensor, train: Tensor) -> Tensor:
    r"""Return how outputs of queries and of training examples move together from fit to fit.

    Σ_c a_cᵀ (√(F_c F_cᵀ) + s I)⁻¹ F_c of centered outputs a [b, q] and F [b, n], with s the root
    mean square of the singular values: the covariance, its large directions held down. Where fits
    differ by their training examples alone, it stands for the model's own kernel.

    Args:
        asked: Outputs of the queries in b fits, [b, q, c].
        train: Outputs of the training examples in the same fits, [b, n, c].

    Returns:
        Similarities, [q, n].
    """
    total = train.new_zeros(asked.shape[1], train.shape[1])
    for a, f in zip(asked.unbind(2), train.unbind(2), strict=True):
        a, f = a - a.mean(0), f - f.mean(0)
        squares, vectors = torch.linalg.eigh(f @ f.T)
        sizes = squares.clamp_min(0).sqrt()
        typical = sizes.square().mean().sqrt()
        if typical > 0:
            total += (a.T @ vectors / (sizes + typical)) @ (vectors.T @ f)
    return total
