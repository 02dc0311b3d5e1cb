"""Leave-one-out and top-k removal of a recorded training, against separate trainings."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whence
from whence.errors import InvalidInput
from whence.evaluation import (
    loo_correlation,
    replays,
    retraining_ensemble,
    top_k_removal,
)
from whence.training.run import Run
from whence.training.train import train

N, QUERIES = 12, 3


def data(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return x, (x[:, 0] > 0).long()


def trained(weights: Tensor | None = None, *, seed: int = 0) -> Run:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    recipe = whence.Recipe(
        learning_rate=0.1, momentum=0.5, batch_size=5, epochs=6, dtype=torch.float64
    )
    return train(model, whence.CrossEntropy(), data(N, 1), recipe, weights=weights)


def without(*positions: int) -> Run:
    weights = torch.ones(N)
    weights[list(positions)] = 0
    return trained(weights)


def measured(run: Run, measure: str) -> np.ndarray[Any, Any]:
    x, y = data(QUERIES, 2)
    outputs = run.program.outputs(run.params, x)
    loss = whence.CrossEntropy()
    return (loss(outputs, y) if measure == "loss" else loss.margin(outputs, y)).numpy()


def test_leave_one_out_is_training_without_each() -> None:
    run = trained()
    expected = np.stack(
        [measured(without(i), "loss") - measured(run, "loss") for i in (3, 0, 7)], axis=1
    )
    found = whence.leave_one_out(run, [3, 0, 7], data(QUERIES, 2))
    assert np.allclose(found, expected, rtol=0, atol=1e-12)


def test_an_example_without_weight_changes_nothing() -> None:
    found = whence.leave_one_out(without(4), [4, 5], data(QUERIES, 2))
    assert np.array_equal(found[:, 0], np.zeros(QUERIES))
    assert np.abs(found[:, 1]).min() > 0


def test_metagradients_predict_leave_one_out() -> None:
    run = trained()
    scores = whence.metagradient(run, data(QUERIES, 2)).values
    actual = whence.leave_one_out(run, range(N), data(QUERIES, 2))
    assert loo_correlation(scores, actual).pearson > 0.95


def test_top_k_removal_trains_without_the_first_of_each_query() -> None:
    run = trained()
    scores = np.random.default_rng(0).permutation(QUERIES * N).reshape(QUERIES, N)
    curve = top_k_removal(run, scores, data(QUERIES, 2), removed=[0, 2, 5], together=2)
    assert curve.removed.tolist() == [0, 2, 5]
    assert np.allclose(curve.outcomes[0].numpy(), measured(run, "margin"), rtol=0, atol=1e-12)
    for row, k in ((1, 2), (2, 5)):
        for query in range(QUERIES):
            top = np.argsort(-scores[query])[:k]
            expected = measured(without(*top.tolist()), "margin")[query]
            assert float(curve.outcomes[row, query]) == pytest.approx(expected, abs=1e-12)


def test_top_k_removal_measures_what_is_asked_for() -> None:
    run, queries = trained(), data(QUERIES, 2)
    scores = np.random.default_rng(1).permutation(QUERIES * N).reshape(QUERIES, N)

    def sums(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sum(1) + targets

    by_loss = top_k_removal(run, scores, queries, removed=[0, 3], measure="loss")
    by_sum = top_k_removal(run, torch.from_numpy(scores), queries, removed=[1, 3], measure=sums)
    for query in range(QUERIES):
        rest = without(*np.argsort(-scores[query])[:3].tolist())
        at_query = measured(rest, "loss")[query]
        assert float(by_loss.outcomes[1, query]) == pytest.approx(at_query, abs=1e-12)
        outputs = rest.program.outputs(rest.params, queries[0])[query]
        expected = float(outputs.sum()) + int(queries[1][query])
        assert float(by_sum.outcomes[1, query]) == pytest.approx(expected, abs=1e-12)
    narrow, wide = (
        top_k_removal(run, scores, queries, removed=[1, 3], confidence=confidence)
        for confidence in (0.5, 0.99)
    )
    assert (wide.low < narrow.low).all()
    assert (narrow.high < wide.high).all()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("alone", [False, True])
def test_replays_fill_a_ensemble(
    tmp_path: Path, alone: bool, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if alone:
        monkeypatch.setattr("whence.training.replay._ENOUGH", 0)
    runs = [trained(seed=seed) for seed in (0, 1)]
    retraining = replays(runs, data(QUERIES, 2), measure="margin")
    assert retraining.size == (1 if alone else 16)
    ensemble = retraining_ensemble(
        pickle.loads(pickle.dumps(retraining)),
        N,
        subsets=3,
        seeds=2,
        fingerprint="data",
        directory=tmp_path,
        workers=workers,
    )
    for seed, run in enumerate(runs):
        for subset in range(3):
            again = train(
                run.program.module.filled(run.program.start),
                whence.CrossEntropy(),
                data(N, 1),
                run.recipe,
                weights=ensemble.masks[subset].double(),
            )
            expected = torch.from_numpy(measured(again, "margin"))
            assert torch.allclose(ensemble.outcomes[seed, subset], expected, rtol=0, atol=1e-11)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    run, queries = trained(), data(QUERIES, 2)
    with pytest.raises(InvalidInput, match="from 0 to 11. Got 12"):
        whence.leave_one_out(run, [3, 12], queries)
    with pytest.raises(InvalidInput, match="Expected indices"):
        whence.leave_one_out(run, [], queries)
    with pytest.raises(InvalidInput, match=r"Got \[0.5\]"):
        whence.leave_one_out(run, [0.5], queries)  # type: ignore[list-item]
    with pytest.raises(InvalidInput, match=r"at least one. Got 0"):
        replays([], queries)
    with pytest.raises(InvalidInput, match=r"queries \(x, y\)"):
        replays([run], (queries[0][:, :3], queries[1]))
    with pytest.raises(InvalidInput, match="seeds from 0 to 0.*Got 1"):
        replays([run], queries).retrain(torch.ones(1, N), [1])
    with pytest.raises(InvalidInput, match=r"scores of shape \[3, 12\].*Got \[3, 11\]"):
        top_k_removal(run, np.zeros((3, 11)), queries, removed=[0, 1])
    with pytest.raises(InvalidInput, match="fewer than all 12"):
        top_k_removal(run, np.zeros((3, 12)), queries, removed=[0, 12])
    with pytest.raises(InvalidInput, match="whole numbers"):
        top_k_removal(run, np.zeros((3, 12)), queries, removed=[-1, 2])
    with pytest.raises(InvalidInput, match="strictly rising"):
        top_k_removal(run, np.zeros((3, 12)), queries, removed=[2, 1])
    monkeypatch.setattr("whence.evaluation.retraining.retrain", None)  # before any training
    with pytest.raises(InvalidInput, match="at least two strictly rising"):
        top_k_removal(run, np.zeros((3, 12)), queries, removed=[2])
