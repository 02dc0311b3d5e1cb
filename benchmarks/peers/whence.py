"""whence itself, through its public face; the solver chosen by itself unless the name says it."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from torch import nn

import whence
from benchmarks.attribution.halves import recorded
from benchmarks.attribution.ladder import STOCHASTIC
from benchmarks.workloads.problem import Ask, Halves, Influence, Removals, Rows, Suspects
from whence import from_sklearn, influence  # importing is not what is timed
from whence.evaluation import replays, retraining_ensemble
from whence.methods.prediction import Order

_MEMBERS, _WORKERS = 32, 2  # of the 120 of the bank; the start of the workers counts in full


def exact(problem: Influence, setting: float | None) -> Ask:
    """Prepare a fitted scikit-learn model with its data, float64 as scikit-learn holds it."""
    assert problem.params is not None
    model = softmax(problem.params, problem.l2, problem.n)
    x, y = problem.x.double().numpy(), problem.y.numpy()
    asked = problem.queries[0].double().numpy(), problem.queries[1].numpy()
    objective = whence.from_sklearn(model, x, y)
    return lambda: whence.influence(objective, asked).values


def softmax(coef: Any, l2: float, n: int) -> LogisticRegression:
    """Return the fitted estimator that has these coefficients."""
    model = LogisticRegression(C=1 / (l2 * n), fit_intercept=False)
    model.classes_ = np.arange(len(coef))
    model.coef_, model.intercept_ = coef, np.zeros(len(coef))
    model.n_features_in_ = coef.shape[1]
    return model


def module(solver: Any) -> Any:
    """Return influence through a module with some solver, damped by the problem's unit."""

    def prepare(problem: Influence, setting: float) -> Ask:
        data = problem.x, problem.y
        objective = whence.from_torch(problem.model, whence.CrossEntropy(), data, l2=problem.l2)
        # The objective's curvature holds the penalty already.
        damping = problem.damping(setting) - problem.l2
        return lambda: (
            whence.influence(objective, problem.queries, solver=solver, damping=damping).values
        )

    return prepare


def ensemble(trainings: int) -> Any:
    """Return EKFAC averaged over trainings from other starts, which are part of the preparation."""

    def prepare(problem: Influence, setting: float) -> Ask:
        data = problem.x, problem.y
        others = [recorded(data, seed).model for seed in range(1, trainings)]
        objectives = [
            whence.from_torch(model, whence.CrossEntropy(), data, l2=problem.l2)
            for model in [problem.model, *others]
        ]
        damping = problem.damping(setting) - problem.l2

        def ask() -> Any:
            total: Any = 0.0
            for objective in objectives:
                scores = whence.influence(
                    objective, problem.queries, solver=whence.EKFAC(), damping=damping
                )
                total = total + scores.values / trainings
            return total

        return ask

    return prepare


def segmented(problem: Influence, setting: float | None) -> Ask:
    """Record the training again, which is part of the preparation; ask for three segments of it."""
    run = recorded((problem.x, problem.y), 0)
    return lambda: whence.unrolled(run, problem.queries).values


def projected(layers: type[nn.Module] | None = None) -> Any:
    """Return projected gradients of all parameters, or of the weights of some layers alone.

    They are kept at the first query, which pays for them.
    """

    def prepare(problem: Influence, setting: float | None) -> Ask:
        params = None
        if layers is not None:
            modules = problem.model.named_modules()
            params = {f"{name}.weight" for name, module in modules if isinstance(module, layers)}
        objective = whence.from_torch(
            problem.model,
            whence.CrossEntropy(),
            (problem.x, problem.y),
            l2=problem.l2,
            params=params,
        )
        return lambda: whence.projected(objective, problem.queries).values

    return prepare


def suspects(problem: Suspects) -> Any:
    """Return a fitted scikit-learn model of sparse rows as an objective."""
    model = LogisticRegression(C=1 / (problem.l2 * len(problem.y)))
    model.classes_ = np.array([0, 1])
    model.coef_, model.intercept_ = problem.coef[None], np.array([problem.intercept])
    model.n_features_in_ = problem.x.shape[1]
    return whence.from_sklearn(model, problem.x, problem.y)


def self_influence(problem: Suspects, setting: float | None) -> Ask:
    """Prepare the self-influence of sparse rows."""
    objective = suspects(problem)
    return lambda: whence.self_influence(objective)


def label_errors(problem: Suspects, setting: float | None) -> Ask:
    """Prepare `find_label_errors`, by the method and at the penalty that it picks by itself."""
    objective = suspects(problem)
    return lambda: whence.find_label_errors(objective).scores


def held_out(problem: Suspects, setting: float | None) -> Ask:
    """Prepare `find_label_errors`, by the loss of each row without itself, as fitted."""
    objective = suspects(problem)
    return lambda: (
        whence.find_label_errors(objective, method="held_out_loss", penalty="fitted").scores
    )


def leave_one_out(problem: Removals, setting: float | None) -> Ask:
    """Prepare a fitted scikit-learn model; ask for all refits."""
    model = softmax(problem.coef, problem.l2, len(problem.y))
    objective = whence.from_sklearn(model, problem.x, problem.y)
    return lambda: whence.leave_one_out(objective, problem.removed, problem.query)[0]


def retrainings(problem: Halves, setting: float | None) -> Ask:
    """Record one training; ask for an ensemble on the halves, whose masks are the problem's."""
    run = recorded((problem.x, problem.y), 0)

    def ask() -> Any:
        with tempfile.TemporaryDirectory() as directory:
            found = retraining_ensemble(
                replays([run], problem.queries),
                len(problem.x),
                subsets=min(_MEMBERS, len(problem.masks)),
                seeds=1,
                fingerprint="benchmark",
                directory=directory,
                workers=_WORKERS,
            )
        return found.outcomes[0].numpy()

    return ask


def of_rows(order: Order) -> Any:
    """Return influence of the rows of a table in some order."""

    def prepare(problem: Rows, setting: float | None) -> Ask:
        objective = from_sklearn(problem.model, problem.x, problem.y)
        return lambda: influence(objective, problem.queries, order=order).values

    return prepare


def refits(problem: Rows, setting: float | None) -> Ask:
    """Prepare a fitted model; ask for its refits without each row."""
    objective = from_sklearn(problem.model, problem.x, problem.y)
    return lambda: whence.leave_one_out(objective, np.arange(len(problem.y)), problem.queries)


METHODS = {
    "rows, first order": of_rows("first"),
    "rows, newton": of_rows("newton"),
    "rows, refined": of_rows("refined"),
    "rows, refits": refits,
    "exact": exact,
    "EKFAC": module(whence.EKFAC()),
    "KFAC": module(whence.KFAC()),
    "EKFAC, then batches": module(STOCHASTIC),
    "CG from EKFAC, 5 steps": module(
        whence.CG(rtol=1e-6, max_iterations=5, preconditioner=whence.EKFAC())
    ),
    "projected": projected(),
    "projected, linear layers": projected(nn.Linear),
    "EKFAC, 5 trainings": ensemble(5),
    "self-influence": self_influence,
    "SOURCE, 3 segments": segmented,
    "label errors": label_errors,
    "label errors, held out": held_out,
    "leave-one-out": leave_one_out,
    "ensemble": retrainings,
}
