"""A family of models from outside the package: one class, and every method that refits takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes
from torch import Tensor

import whence
from whence.errors import UnsupportedModel
from whence.methods.choose import default_of
from whence.objective.losses import Loss

LOSS = whence.SquaredError()


@dataclass(frozen=True, eq=False, repr=False)
class Rows(whence.Examples):
    """Rows of numbers with their targets."""

    inputs: NDArray[np.float64]
    targets: Tensor
    ids: NDArray[Any]

    def subset(self, indices: NDArray[np.intp]) -> Rows:
        return Rows(self.inputs[indices], self.targets[indices], self.ids[indices])


@dataclass(frozen=True, eq=False, repr=False)
class WeightedMean(whence.Trained):
    """A kernel regression that whence has never heard of: Nadaraya and Watson's."""

    train: Rows
    weights: Tensor
    width: float = 1.0
    loss: Loss = LOSS
    trained_loss: Loss = LOSS
    convex: bool = False
    classes: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()

    def examples(self, data: Any) -> Rows:
        if isinstance(data, Rows):
            return data
        x, y = np.atleast_2d(data[0]), np.atleast_1d(data[1])
        return Rows(x, torch.from_numpy(y), np.arange(len(x)))

    def outputs(self, examples: Rows) -> Tensor:  # type: ignore[override]
        away = ((examples.inputs[:, None] - self.train.inputs) ** 2).sum(2)
        votes = torch.from_numpy(np.exp(-away / (2 * self.width**2))) * self.weights
        return (votes @ self.train.targets / votes.sum(1)).unsqueeze(1)

    def refit(self, weights: Tensor | None = None) -> WeightedMean:
        return self if weights is None else replace(self, weights=weights)


def model() -> tuple[WeightedMean, tuple[NDArray[Any], NDArray[Any]]]:
    x, y = load_diabetes(return_X_y=True)
    x, y = ((x - x.mean(0)) / x.std(0))[:120, :3], (y[:120] - y.mean()) / y.std()
    train = Rows(x[10:], torch.from_numpy(y[10:]), np.arange(10, 120))
    return WeightedMean(train, torch.ones(110, dtype=torch.float64)), (x[:10], y[:10])


def test_leave_one_out_is_the_removal() -> None:
    trained, queries = model()
    scores = whence.LeaveOneOut().fit(trained).scores(queries)
    weights = torch.ones(110, dtype=torch.float64)
    weights[17] = 0
    examples = trained.examples(queries)
    before, after = (
        trained.loss(each.outputs(examples), examples.targets)
        for each in (trained, trained.refit(weights))
    )
    assert np.allclose(scores.values[:, 17], after - before)


def test_an_ensemble_agrees_with_it() -> None:
    trained, queries = model()
    ensemble = whence.Retrained(fits=40).fit(trained).scores(queries).values
    removals = whence.LeaveOneOut().fit(trained).scores(queries).values
    assert np.corrcoef(ensemble.ravel(), removals.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("method", [None, whence.LeaveOneOut(), whence.Retrained(fits=20)])
def test_every_use_takes_it(method: whence.Method | None, tmp_path: Path) -> None:
    trained, (x, y) = model()
    if method is None:
        assert default_of(trained)[0] == whence.Retrained()
    explanation = whence.explain(trained, (x[0], y[0]), k=3, method=method)
    assert len(explanation.helpful) + len(explanation.harmful) == 6
    if method is None:
        assert "Scored by Retrained, because the model is known by its" in str(explanation)
    assert explanation.report(tmp_path / "why.html", verify=2).stat().st_size > 1000
    assert whence.group_effect(trained, [3, 4], (x, y), method=method).shape == (10,)
    score = whence.evaluate(trained, (x, y), subsets=20, method=method)
    assert score.mean > 0.5


def test_a_method_that_differentiates_says_what_to_use() -> None:
    trained, queries = model()
    with pytest.raises(UnsupportedModel, match=r"whence.Retrained\(\), or whence.LeaveOneOut\(\)"):
        whence.influence(trained, queries, order="refined")
    assert whence.influence(trained, queries).values.shape == (10, 110)
