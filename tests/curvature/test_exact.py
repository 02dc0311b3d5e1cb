"""The Gauss–Newton matrix formed at once, against its products."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.network.zoo import ZOO, objective_of
from whence.curvature.exact import GGN
from whence.linalg import materialize


@pytest.mark.parametrize("name", ZOO)
def test_formed_from_gradients_it_is_what_multiplies(name: str) -> None:
    objective = objective_of(name)
    weights = torch.linspace(0, 2, len(objective.train), dtype=objective.params.dtype)
    curvature = GGN(replace(objective, weights=weights))
    torch.testing.assert_close(curvature.dense(), materialize(curvature), rtol=1e-9, atol=1e-11)
