"""pyinfluence: influence functions and retraining of scikit-learn models, as its README uses it.

`influence(..., mode="loss")` has whence's sign and unit: the change of the loss, log loss or half
the squared error, if the row is removed.
"""

from __future__ import annotations

from pyinfluence import InfluenceFunctions, LOOInfluence

from benchmarks.workloads.problem import Ask, Rows


def influence_functions(problem: Rows, setting: float | None) -> Ask:
    """Prepare the closed form for linear models, its damping as it comes."""
    fitted = InfluenceFunctions(mode="loss").fit(problem.model, problem.x, problem.y)
    return lambda: fitted.explain(*problem.queries)


def leave_one_out(problem: Rows, setting: float | None) -> Ask:
    """Prepare refits without each row."""
    fitted = LOOInfluence(mode="loss", verbose=0).fit(problem.model, problem.x, problem.y)
    return lambda: fitted.explain(*problem.queries)


METHODS = {"influence functions": influence_functions, "leave-one-out": leave_one_out}
