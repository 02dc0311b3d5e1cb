"""Which removals need an objective of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

import whence
from tests.fitted import Fitted
from whence.curvature.changes import Changes
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


def test_newton_s_step_is_the_minimum_of_a_quadratic_and_no_other_is_taken(
    binary: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    queries = x[:4], y[:4]
    for ridge in (Ridge(2.0).fit(x, y), make_pipeline(Ridge(2.0)).fit(x, y)):
        objective = whence.from_sklearn(ridge, x, y)
        damped = whence.influence(objective, queries, order="refined", damping=0.5).values
        with monkeypatch.context() as patch:
            patch.setattr(Changes, "refine", None)
            refined = whence.influence(objective, queries, order="refined")
            with pytest.raises(TypeError):
                whence.influence(objective, queries, order="refined", damping=0.5)
            with pytest.raises(TypeError):
                whence.influence(binary.objective, binary.queries, order="refined")
        actual = np.stack(
            [
                (clone(ridge).fit(np.delete(x, i, 0), np.delete(y, i)).predict(x[:4]) - y[:4]) ** 2
                for i in range(40)
            ],
            1,
        )
        before = (ridge.predict(x[:4]) - y[:4])[:, None] ** 2
        np.testing.assert_allclose(2 * refined.values, actual - before, rtol=1e-8, atol=1e-12)
        assert refined.diagnostics.residual < 1e-8
        assert np.abs(damped - refined.values).max() > 1e-4


def test_a_column_is_unsettled_that_moved_by_more_than_a_fiftieth_of_its_largest_number(
    binary: Fitted,
) -> None:
    after = torch.tensor([[10.0, 10.0, -10.0], [1.0, 1.0, 0.0]]).double()
    moved = torch.tensor([[0.0, 0.1, 0.0], [0.19, 0.21, -0.3]]).double()
    objective = binary.objective
    assert unsettled(objective, 0.0, after - moved, after).tolist() == [False, True, True]
    assert not unsettled(objective, 0.1, after - moved, after).any()
