"""Leverages and gradients that stand as columns, against products with one unit at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression

import whence
from whence.curvature.forms import leverages
from whence.linalg import Cholesky, Dense
from whence.linear.objective import LinearObjective
from whence.objective.objective import Objective


def objective_of(kind: str, *, intercept: bool) -> LinearObjective:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 40 if kind == "wide" else 5)) * (rng.random((24, 1)) < 0.9)
    y = rng.integers(0, 3 if kind == "classes" else 2, 24)
    rows = sparse.csr_array(x) if kind == "sparse" else x
    penalty = {"penalty": "l1", "solver": "liblinear"} if kind == "l1" else {}
    model = LogisticRegression(C=0.5, fit_intercept=intercept, max_iter=1000, **penalty)
    return whence.from_sklearn(model.fit(rows, y), rows, y)


@pytest.mark.filterwarnings("ignore:.*penalty.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*penalty.*:UserWarning")
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("kind", ["dense", "wide", "classes", "sparse", "l1"])
def test_columns_jacobians_and_leverages(kind: str, intercept: bool) -> None:
    objective = objective_of(kind, intercept=intercept)
    train, loss, c = objective.train, objective.loss, objective.c
    some = train.subset(np.array([3, 0, 21]))
    unit = torch.eye(3, dtype=torch.float64)
    columns = objective.gradient_columns(some, loss)
    torch.testing.assert_close(columns, objective.gradient_sum(some, loss, unit))
    torch.testing.assert_close(columns, Objective.gradient_columns(objective, some, loss))
    jacobians = objective.jacobians(some)
    for at in range(3):
        one = some.subset(np.array([at]))
        naive = objective.vjp(one, torch.eye(c, dtype=torch.float64).unsqueeze(0)).T
        torch.testing.assert_close(jacobians[at], naive)
    hessian = objective.dense_hessian() + 0.1 * torch.eye(len(objective.params))
    inverse = Cholesky().prepare(Dense(hessian))
    naive = jacobians @ torch.linalg.inv(hessian) @ jacobians.mT
    torch.testing.assert_close(leverages(objective, inverse, some), naive)
