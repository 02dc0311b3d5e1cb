"""A torch module and a scikit-learn estimator that are the same model give the same answers."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import whence
from whence.errors import NotConvergedWarning
from whence.linalg import CG, Arnoldi, Cholesky, LiSSA, Nystrom
from whence.objective.objective import Objective

_L2 = 0.01


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any, Any]:
    X, y = load_iris(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    return X[1:], y[1:], (X[:1], y[:1])


@pytest.fixture(scope="module")
def twins(data: tuple[Any, Any, Any]) -> tuple[Objective, Objective]:
    X, y, _ = data
    estimator = LogisticRegression(
        C=1 / (_L2 * len(y)), fit_intercept=False, tol=1e-12, max_iter=10_000
    ).fit(X, y)
    model = nn.Linear(X.shape[1], 3, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(estimator.coef_))
    module = whence.from_torch(model, whence.CrossEntropy(), (X, y), l2=_L2, convex=True)
    return module, whence.from_sklearn(estimator, X, y)


def test_all_functions_agree(
    twins: tuple[Objective, Objective], data: tuple[Any, Any, Any]
) -> None:
    query, where = data[2], [5, 60, 132]
    for function in (
        lambda o: whence.influence(o, query).values,
        lambda o: whence.influence(o, query, measure="margin").values,
        lambda o: whence.influence(o, query, order="newton", indices=where).values,
        lambda o: whence.influence(o, query, order="refined", indices=where).values,
        lambda o: whence.self_influence(o),
        lambda o: whence.influence_on_parameters(o, where),
        lambda o: whence.group_effect(o, where, query),
        lambda o: whence.group_effect(o, where, query, order="refit"),
        lambda o: whence.perturbation(o, where, query),
        lambda o: whence.edit(o, 5, query[0][0], 2, query),
        lambda o: whence.leave_one_out(o, where, query),
    ):
        module, linear = (function(twin) for twin in twins)
        np.testing.assert_allclose(module, linear, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("solver", "tolerance"),
    [
        (CG(rtol=1e-10), 1e-8),
        (Cholesky(), 1e-8),
        (Arnoldi(rank=12), 1e-6),
        (Nystrom(rank=12), 0.05),
    ],
)
def test_solvers_agree(
    twins: tuple[Objective, Objective],
    data: tuple[Any, Any, Any],
    solver: Any,
    tolerance: float,
) -> None:
    if isinstance(solver, Cholesky):
        exact = whence.influence(twins[0], data[2]).values
    else:
        exact = whence.influence(twins[1], data[2]).values
    values = whence.influence(twins[0], data[2], solver=solver).values
    assert np.linalg.norm(values - exact) <= tolerance * np.linalg.norm(exact)


def test_the_papers_recursion(
    twins: tuple[Objective, Objective], data: tuple[Any, Any, Any]
) -> None:
    exact = whence.influence(twins[1], data[2]).values[0]
    solver = LiSSA(depth=1500, repeats=2, scale=10.0, rtol=10)
    sampled = whence.influence(twins[1], data[2], solver=solver).values[0]
    assert np.corrcoef(sampled, exact)[0, 1] > 0.97


def test_explanation(twins: tuple[Objective, Objective], data: Any, tmp_path: Path) -> None:
    module, linear = (whence.explain(twin, data[2], k=3) for twin in twins)
    assert [effect.id for effect in module.helpful] == [effect.id for effect in linear.helpful]
    assert module.verify(5).r > 0.999
    module.report(tmp_path / "why.html", verify=3)
    assert "Training example" in (tmp_path / "why.html").read_text()


def test_a_deep_network_is_damped_and_says_so() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(60, 6), torch.randint(3, (60,))
    model = nn.Sequential(nn.Linear(6, 60), nn.Tanh(), nn.Linear(60, 3))
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    with pytest.warns(whence.errors.NotConvergedWarning, match="Train further"):
        scores = whence.influence(objective, (x[:2], y[:2]))
    assert scores.diagnostics is not None
    assert scores.diagnostics.damping > 0
    assert "Gauss-Newton" in scores.diagnostics.damping_reason
    assert scores.values[0, 0] > 0  # an example helps itself
    assert np.isfinite(scores.values).all()


def test_images_keep_their_shape(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = torch.rand(20, 1, 5, 5), torch.randint(2, (20,))
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 2)).double()
    objective = whence.from_torch(
        model, whence.CrossEntropy(), (x.double(), y), l2=0.1, convex=True
    ).refit()
    assert whence.perturbation(objective, [0, 3], (x[5], y[5])).shape == (2, 1, 5, 5)
    explanation = whence.explain(objective, (x[5], y[5]), k=2)
    explanation.report(tmp_path / "image.html", verify=0)
    assert "data:image/png" in (tmp_path / "image.html").read_text()


def test_order_batches_and_threads_change_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    data = torch.randn(20, 5, dtype=torch.float64), torch.arange(20) % 3
    queries = torch.randn(9, 5, dtype=torch.float64), torch.arange(9) % 3

    def scores(order: Tensor, batch_size: int) -> Tensor:
        objective = whence.from_torch(model, whence.CrossEntropy(), data, batch_size=batch_size)
        asked = queries[0][order], queries[1][order]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)
            return torch.from_numpy(whence.influence(objective, asked, damping=0.1).values)

    plain = scores(torch.arange(9), 1024)
    order = torch.randperm(9)
    scale = float(plain.abs().max())
    torch.testing.assert_close(scores(order, 7), plain[order], rtol=0, atol=1e-10 * scale)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        twice = scores(torch.arange(9), 1024)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(twice, plain, rtol=0, atol=1e-10 * scale)


def test_data_on_disk_stay_there(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    x, y = np.load(tmp_path / "x.npy", mmap_mode="r"), np.arange(30) % 3
    objective = whence.from_torch(nn.Linear(4, 3), whence.CrossEntropy(), (x, y), l2=1.0)
    assert np.shares_memory(objective.train.inputs.numpy(), x)
    query = torch.tensor(rows[:2]), torch.tensor(y[:2])
    copied = replace(objective, train=objective.examples((torch.tensor(rows), torch.tensor(y))))
    with pytest.warns(NotConvergedWarning):
        found = whence.influence(objective, query, solver=whence.EKFAC(), damping=0.1)
    with pytest.warns(NotConvergedWarning):
        expected = whence.influence(copied, query, solver=whence.EKFAC(), damping=0.1)
    np.testing.assert_array_equal(found.values, expected.values)
