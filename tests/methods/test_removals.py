"""Which removals need an objective of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

import whence
from tests.fitted import Fitted
from whence.methods.prediction import Order
from whence.methods.removals import follows, moves_more, unsettled


@pytest.mark.parametrize("order", ["first", "newton", "refined"])
def test_only_a_minimum_with_corners_is_followed_from_piece_to_piece(
    binary: Fitted, order: Order
) -> None:
    where = np.arange(5)
    assert not moves_more(binary.objective, order, where).any()
    x, y = binary.x[:40], binary.y[:40]
    hinge = LinearSVC(loss="hinge", tol=1e-8, max_iter=100_000, random_state=0).fit(x, y)
    cornered = whence.from_sklearn(hinge, x, y)
    assert moves_more(cornered, order, where).all() == (order != "first")


def test_a_change_without_a_class_is_followed_whole(multinomial: Fitted) -> None:
    objective, y = multinomial.objective, multinomial.y
    whole = np.flatnonzero(y == y.min())
    assert follows(objective, "newton", whole)
    assert not follows(objective, "newton", whole[1:])


def test_a_column_is_unsettled_that_moved_by_more_than_a_fiftieth_of_its_largest_number(
    binary: Fitted,
) -> None:
    after = torch.tensor([[10.0, 10.0, -10.0], [1.0, 1.0, 0.0]]).double()
    moved = torch.tensor([[0.0, 0.1, 0.0], [0.19, 0.21, -0.3]]).double()
    objective = binary.objective
    assert unsettled(objective, 0.0, after - moved, after).tolist() == [False, True, True]
    assert not unsettled(objective, 0.1, after - moved, after).any()
