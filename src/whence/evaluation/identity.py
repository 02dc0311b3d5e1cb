"""A digest of all that the outcomes of refits depend on besides weights and seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves

from whence.objective.trained import Examples, Trained
from whence.rows import column_names, is_sparse
from whence.storage import digest


def identity_of(trained: Trained, queries: Examples | None, what: str) -> str:
    """Return a digest of a model, its data, queries and what is observed of them.

    Args:
        trained: The model.
        queries: The queries, or `None`.
        what: What is observed, such as the name of a measure.

    Returns:
        64 hexadecimal digits, the same in every process.
    """
    asked = [] if queries is None else _content(queries)
    return digest(what, trained.weights, *trained.identity(), *_content(trained.train), *asked)


def _content(examples: Examples) -> list[Tensor | str]:
    """Return the content of examples as arrays, the same bits in every run."""
    inputs: Any = getattr(examples, "inputs", None)
    parts: list[Any] = [inputs]
    if getattr(getattr(inputs, "dtype", None), "kind", "") in ("O", "S", "U"):
        inputs = pd.DataFrame(inputs)
    if column_names(inputs) is not None:
        parts = [_hashed(inputs)]
    elif is_sparse(inputs):
        parts = [inputs.data, inputs.indices, inputs.indptr]
    leaves = [torch.as_tensor(leaf) for leaf in tree_leaves(parts) if leaf is not None]
    return [*leaves, examples.targets]


def _hashed(frame: pd.DataFrame) -> NDArray[np.int64]:
    """Return a number per row, [b]."""
    rows = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    return np.asarray(rows.astype(np.int64))
