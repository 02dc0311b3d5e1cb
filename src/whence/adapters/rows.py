"""Rows of a user's table with their targets, for models that are asked for predictions alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.objective.trained import Examples


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RowExamples(Examples):
    """Rows with their targets.

    Args:
        inputs: The user's rows: a frame, an array, a sparse matrix or texts, [b].
        targets: Encoded targets, [b] or [b, c].
        ids: The user's names of the rows, [b].
    """

    inputs: Any
    targets: Tensor
    ids: NDArray[Any]

    def subset(self, indices: NDArray[np.intp]) -> RowExamples:
        """Return the rows at these positions."""
        return RowExamples(
            inputs=take(self.inputs, indices),
            targets=self.targets[torch.as_tensor(indices)],
            ids=self.ids[indices],
        )


def take(rows: Any, where: NDArray[Any]) -> Any:
    """Return some of the rows.

    Args:
        rows: A frame, an array or a sparse matrix, [n].
        where: Positions.

    Returns:
        The rows, in the same form.
    """
    return rows.iloc[where] if isinstance(rows, pd.DataFrame | pd.Series) else rows[where]
