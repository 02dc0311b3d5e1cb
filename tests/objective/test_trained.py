"""What a family of models need not write: the smallest one has it from its base."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import whence
from whence.errors import UnsupportedModel
from whence.objective.objective import objective_of
from whence.objective.trained import Data, Examples, Trained


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows(Examples):
    ids: NDArray[Any]
    targets: Tensor
    inputs: Any = None

    def subset(self, indices: NDArray[np.intp]) -> Rows:
        return Rows(ids=self.ids[indices], targets=self.targets[torch.from_numpy(indices)])


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Mean(Trained):
    """The weighted mean of the targets."""

    train: Rows
    weights: Tensor
    loss: whence.SquaredError = field(default_factory=whence.SquaredError)
    trained_loss: whence.SquaredError = field(default_factory=whence.SquaredError)
    convex: bool = True
    classes: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()

    def examples(self, data: Data) -> Rows:
        raise NotImplementedError

    def outputs(self, examples: Examples) -> Tensor:
        mean = (self.weights * self.train.targets).sum() / self.weights.sum()
        return mean.expand(len(examples), 1)

    def refit(self, weights: Tensor | None = None) -> Mean:
        return self if weights is None else replace(self, weights=weights)


@pytest.fixture
def mean() -> Mean:
    targets = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    return Mean(train=Rows(ids=np.arange(3), targets=targets), weights=torch.ones(3).double())


def test_what_the_smallest_model_has(mean: Mean) -> None:
    assert repr(mean) == "<Mean of SquaredError() on 3 examples>"
    assert mean.identity() == (repr(mean),)
    assert (mean.frozen(), mean.together, mean.instant, mean.jumps) == ((), 1, False, False)
    assert mean.path() is None
    assert mean.differentiable() is None
    with pytest.raises(UnsupportedModel, match="derivatives in its parameters"):
        objective_of(mean)
    with pytest.raises(UnsupportedModel, match="edited examples"):
        mean.refit_edited(np.array([0]), mean.train)


def test_refits_are_one_for_each_row_of_weights(mean: Mean) -> None:
    weights = torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    assert [float(fit.outputs(mean.train)[0]) for fit in mean.refits(weights)] == [4.0, 1.5]


def test_other_labels_are_the_same_examples(mean: Mean) -> None:
    changed = mean.train.relabeled(mean.train.targets + 1)
    assert changed.targets.tolist() == [2.0, 3.0, 7.0]
    assert changed.ids is mean.train.ids
    assert Examples.__repr__(changed) == "<Rows of 3 examples>"
