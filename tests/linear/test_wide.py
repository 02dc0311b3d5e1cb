"""Wide models: their coordinates are made when something needs them, once."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

import whence
from whence.linear.objective import LinearObjective
from whence.linear.wide import WideObjective


def wide() -> tuple[WideObjective, LinearObjective, list[int]]:
    """A wide objective, what it becomes, and a list that grows when it does."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 50)), rng.normal(size=20)
    objective = whence.from_sklearn(Ridge().fit(x, y), x, y)
    assert isinstance(objective, WideObjective)
    assert objective.columns is not None
    made: list[int] = []

    def narrow() -> LinearObjective:
        made.append(1)
        return replace(objective)

    found = WideObjective.of(objective.columns, narrow)
    assert isinstance(found, WideObjective)
    return found, replace(objective), made


def test_coordinates_are_made_once_and_not_before_they_are_asked_for() -> None:
    objective, narrow, made = wide()
    assert len(objective.weights) == 20
    assert objective.notes == ()
    assert not objective.classes
    assert whence.self_influence(objective).shape == (20,)
    assert repr(objective) == "<WideObjective of SquaredError() on 20 examples>"
    assert not made
    assert repr(narrow.train) == "<LinearExamples of 20 examples>"
    assert len(objective.params) == len(narrow.params) <= 21
    assert objective.train.features.shape == narrow.train.features.shape
    assert made == [1]


def test_copies_share_the_coordinates() -> None:
    objective, _, made = wide()
    query = (np.ones((2, 50)), np.ones(2))
    whence.influence(objective, query)  # asks the twin that the cache owns
    assert copy.copy(objective).params is objective.params
    assert objective.reweighted(objective.weights).train is objective.train
    assert made == [1]


def test_it_is_the_same_model_in_both_coordinates() -> None:
    objective, _, _ = wide()
    assert objective.columns is not None
    torch.testing.assert_close(
        objective.outputs(objective.train), objective.columns.outputs(objective.columns.train)
    )
    torch.testing.assert_close(
        objective.lift(objective.params.unsqueeze(1)).squeeze(1), objective.columns.params
    )


def test_what_was_changed_forgets_the_columns() -> None:
    objective, _, _ = wide()
    for changed in (
        objective.at(0 * objective.params),
        objective.reweighted(2 * objective.weights),
        objective.restricted(np.arange(7)),
        replace(objective, l2=2 * objective.l2),
    ):
        assert isinstance(changed, WideObjective)
        assert changed.columns is None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    objective, _, made = wide()
    with pytest.raises(AttributeError, match="no attribute 'parms'"):
        _ = objective.parms
    assert not made
    assert not hasattr(object.__new__(WideObjective), "params")
