"""W1: MNIST softmax, n = 55,000, p = 7,840, l2 0.01, no intercept; exact influence is the truth.

Truth: H in float64, built block by block from its definition and factored, for 1,000 queries; and
500 leave-one-out retrainings of the examples with the largest influence on test image 8.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.workloads.problem import Influence

TITLE = "MNIST softmax regression"
L2, REMOVED, WATCHED = 0.01, 500, 8
SETS = {"1 query": 1, "100 queries": 100, "1,000 queries": 1000}
# Not put to methods that are known to need minutes or all memory for them (Arnoldi costs the same
# whatever is asked).
ASKED = {
    "Arnoldi": ("100 queries",),
    "block CG": ("1 query", "100 queries"),
    "CG, 10 steps": ("1 query", "100 queries"),
    "CG, 100 steps": ("1 query", "100 queries"),
}
TUNING = 20  # queries from the end of the test images, by which settings are chosen


def positions(queries: str, m: int) -> NDArray[np.intp]:
    """Return which test images a set asks about."""
    if queries == "tuning":
        return np.arange(m - TUNING, m)
    return np.array([WATCHED]) if queries == "1 query" else np.arange(min(SETS[queries], m))


def build(bank: Path, quick: bool) -> None:
    """Fit, solve exactly and retrain; a minute."""
    # Imported here, so that no library is charged for the memory of whence and scikit-learn.
    from sklearn.linear_model import LogisticRegression

    import whence
    from benchmarks.workloads.margins import mean_square
    from experiments import datasets
    from whence.adapters.sklearn import linear_objective
    from whence.fitting.newton import newton

    if (bank / "truth.npz").exists():
        return
    mnist = datasets.digits() if quick else datasets.mnist()
    x = mnist.x_train.astype(np.float32).astype(np.float64)
    y, n, keep = mnist.y_train, len(mnist.x_train), len(mnist.x_test)
    x_test, y_test = mnist.x_test.astype(np.float32), mnist.y_test
    model = LogisticRegression(C=1 / (L2 * n), fit_intercept=False, tol=1e-7, max_iter=2000)
    objective = newton(linear_objective(model.fit(x, y), x, y))
    coef = objective.params.reshape(-1, x.shape[1]).numpy()
    asked = np.union1d(positions("1,000 queries", keep), positions("tuning", keep))
    exact = exact_influence(x, y, coef, x_test[asked].astype(np.float64), y_test[asked])
    watched = exact[int(np.searchsorted(asked, WATCHED))]
    removed = np.argsort(-np.abs(watched))[: min(REMOVED, n // 4)]
    query = (x_test[WATCHED : WATCHED + 1].astype(np.float64), y_test[WATCHED : WATCHED + 1])
    actual = whence.leave_one_out(objective, removed, query)[0]
    bank.mkdir(parents=True, exist_ok=True)
    inputs = torch.from_numpy(x.astype(np.float32))
    np.savez(
        bank / "data.npz",
        x=inputs.numpy(),
        y=y,
        x_test=x_test,
        y_test=y_test,
        coef=coef,
        margin=mean_square(network(coef), inputs, torch.from_numpy(y)),
    )
    with (bank / "new.npz").open("wb") as file:
        np.savez(file, asked=asked, exact=exact, removed=removed, actual=actual)
    (bank / "new.npz").rename(bank / "truth.npz")


def exact_influence(
    x: NDArray[Any], y: NDArray[Any], coef: NDArray[Any], queries: NDArray[Any], labels: Any
) -> NDArray[np.float32]:
    """Return (1/n) g_qᵀ H⁻¹ g_i from the definitions, in float64 throughout."""
    inputs, theta = torch.from_numpy(x), torch.from_numpy(coef)
    (n, d), c = inputs.shape, len(theta)

    def errors(rows: Tensor, targets: NDArray[Any]) -> tuple[Tensor, Tensor]:
        p = (rows @ theta.T).softmax(1)
        return p, p - nn.functional.one_hot(torch.from_numpy(targets), c)

    p, e = errors(inputs, y)
    hessian = torch.zeros(c * d, c * d, dtype=torch.float64)
    for a in range(c):
        for b in range(a + 1):
            weights = p[:, a] * (float(a == b) - p[:, b]) / n
            block = inputs.T @ (weights[:, None] * inputs)
            hessian[a * d : (a + 1) * d, b * d : (b + 1) * d] = block
    hessian.diagonal().add_(L2)
    factor = torch.linalg.cholesky(hessian)  # reads the lower triangle
    asked = torch.from_numpy(queries)
    _, f = errors(asked, labels)
    gradients = (f[:, :, None] * asked[:, None, :]).reshape(len(asked), -1)
    solved = torch.cholesky_solve(gradients.T, factor).T.reshape(len(asked), c, d)
    scores = np.empty((len(asked), n), dtype=np.float32)
    for i, solution in enumerate(solved):
        scores[i] = ((inputs @ solution.T) * e).sum(1).div_(n).numpy()
    return scores


def network(coef: NDArray[Any]) -> nn.Module:
    """Return the fitted softmax regression as a module."""
    layer = nn.Linear(coef.shape[1], len(coef), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(coef))
    return nn.Sequential(layer).eval()  # in a container: some libraries look for layers by name


def problem(queries: str, bank: Path, folder: Path) -> Influence:
    """Return what an adapter is given."""
    with np.load(bank / "data.npz") as data:
        chosen = positions(queries, len(data["y_test"]))
        asked = data["x_test"][chosen], data["y_test"][chosen]
        x, y, coef, margin = data["x"], data["y"], data["coef"], float(data["margin"])
    return Influence(
        x=torch.from_numpy(x),
        y=torch.from_numpy(y),
        queries=(torch.from_numpy(asked[0]), torch.from_numpy(asked[1])),
        model=network(coef),
        l2=L2,
        base=0.0,
        unit=L2,
        margin=margin,
        params=coef,
        folder=folder,
    )


def accuracy(scores: NDArray[Any], queries: str, bank: Path, unit: bool) -> dict[str, float]:
    """Compare with exact influence, and with retraining where test image 8 is among the queries."""
    from benchmarks.workloads.agreement import against, correlation

    with np.load(bank / "data.npz") as data:
        chosen = positions(queries, len(data["y_test"]))
    with np.load(bank / "truth.npz") as truth:
        rows = np.searchsorted(truth["asked"], chosen)
        found = against(scores, truth["exact"][rows], unit=unit)
        where = np.flatnonzero(chosen == WATCHED)
        if len(where):
            predicted = scores[where[0]][truth["removed"]]
            found["pearson with retraining"] = correlation(predicted, truth["actual"])
    return found
