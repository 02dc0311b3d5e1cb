"""Arrays of a user as tensors, looked at a few rows at a time."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from whence.objective.arrays import first_not_finite, shared


def test_an_array_is_shared_and_not_copied() -> None:
    array = np.arange(6.0).reshape(2, 3)
    array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = shared(array)
    assert found.data_ptr() == array.ctypes.data
    assert found.tolist() == array.tolist()


@pytest.mark.parametrize("place", [(0, 0), (1, 2), (4, 1), (6, 2)])
def test_the_first_number_that_is_not_finite(
    place: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whence.objective.arrays._AT_ONCE", 6)  # two rows
    numbers = torch.zeros(7, 3)
    assert first_not_finite(numbers) is None
    numbers[place] = math.inf
    numbers[6, 2] = math.nan
    assert first_not_finite(numbers) == place
    assert first_not_finite(numbers[:, place[1]]) == place[:1]
    assert first_not_finite(numbers[:0]) is None
