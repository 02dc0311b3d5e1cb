r"""Exact retraining of models trained with the true hinge, by walking their support vectors.

One output a of f(x) = W x + b·constant minimizes, with signs y = ±1 and Cᵢ = wᵢ v_a(yᵢ)/n,

```
Σᵢ Cᵢ max(0, 1 − yᵢ f(xᵢ)) + ½ Σⱼ l2ⱼ θⱼ² + Σⱼ slopeⱼ θⱼ        θⱼ = (Σᵢ βᵢ xᵢⱼ − slopeⱼ) / l2ⱼ
```

where β minimizes ½ βᵀ X diag(1/l2) Xᵀ β − …, 0 <= yᵢβᵢ <= Cᵢ, and Σ β = 0 if the intercept has no
penalty. Where yf > 1, β = 0: such an example can go and nothing changes. Where yf < 1, yβ = C.
Only those with yf = 1 are in between, and a removal moves few of them from one side to another.
An ε-insensitive loss is two hinges per example, y (t − f) in place of 1 − yf, with y = 1 at
t = target − ε and y = −1 at t = target + ε; both go with it.

The walk happens among the rows near the margin, whose products are kept; every answer is then
checked on all rows, and a row that would have crossed the margin joins the ones near it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import numpy as np
import torch
from torch import Tensor

from whence.arrays import Floats
from whence.errors import UnsupportedModel
from whence.fitting.machine import Machine, Rows, hinges_of, machine
from whence.linear.objective import LinearObjective
from whence.objective.objective import Objective

_NOT_HINGED = (
    "Expected an objective trained with the true hinge. Got {}. Use whence.fitting.newton."
)


@dataclass(frozen=True, eq=False, kw_only=True)
class HingeFit:
    """The exact minimum of a true-hinge objective; made by `fit_hinge`.

    Args:
        objective: The objective at its minimum.
        machines: One per output.
    """

    objective: LinearObjective
    machines: tuple[Machine, ...]

    def without(self, indices: Rows) -> Tensor:
        """Return θ̂₋ᵢ − θ̂ for each example removed alone, [p, k].

        Args:
            indices: Positions in the training data, [k].

        Returns:
            Changes of the parameters; zero where yf > 1.

        Warns:
            NotConvergedWarning: If a walk was given up.

        Cost:
            A walk of a few to a few dozen steps per support vector, and one product with X.
        """
        return self._parameters([machine.without(indices) for machine in self.machines])

    def reweighted(self, weights: Tensor) -> Tensor:
        """Return the minimum with other example weights, [p].

        Args:
            weights: The new weights >= 0, [n].

        Returns:
            θ̂.

        Warns:
            NotConvergedWarning: If the walk was given up.
        """
        ratio = _costs(self.objective.reweighted(weights))
        solved = [
            machine.reweighted(cost) for machine, cost in zip(self.machines, ratio, strict=True)
        ]
        return self._parameters([machine.theta[:, None] for machine in solved])[:, 0]

    def _parameters(self, columns: list[Floats]) -> Tensor:
        """Return [d, k] per output, the intercept last, as [p, k]."""
        return _flat(columns, self.objective.constant is not None)


def fit_hinge(objective: Objective) -> HingeFit:
    """Find the exact minimum of an objective trained with the true hinge, from θ̂.

    Args:
        objective: R with `trained_loss` a true hinge; its features in float64.

    Returns:
        The minimum, ready for removals. Where an unpenalized intercept is optimal on an interval,
        its middle, as in LIBSVM.

    Raises:
        UnsupportedModel: If the loss is another, or a coefficient other than the intercept has no
            penalty.

    Warns:
        NotConvergedWarning: If the minimum was not reached to 1e-10 in units of the margin.

    Cost:
        About one step per row that is on another side of the margin than θ̂ has it; the products
        of the 2,048 rows nearest to the margin are kept.

    References:
        Cauwenberghs & Poggio (2000), Incremental and decremental support vector machine learning.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_breast_cancer
        >>> from sklearn.preprocessing import scale
        >>> from sklearn.svm import SVC
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> X = scale(X)
        >>> objective = whence.from_sklearn(SVC(kernel="linear").fit(X, y), X, y)
        >>> fit = fit_hinge(objective)
        >>> fit.without(np.arange(3)).shape
        torch.Size([31, 3])
    """
    return _fit(objective)


@singledispatch
def _fit(objective: Objective) -> HingeFit:
    """Return the minimum; a model that is not linear in θ has no support vectors to walk."""
    raise UnsupportedModel(_NOT_HINGED.format(objective.trained_loss))


@_fit.register
def _(objective: LinearObjective) -> HingeFit:
    if not objective.hinged:
        raise UnsupportedModel(_NOT_HINGED.format(objective.trained_loss))
    costs = _costs(objective)
    machines = tuple(machine(objective, a, costs[a]) for a in range(objective.c))
    for each in machines:
        each.warn_if_unsettled()
    params = _flat([machine.theta[:, None] for machine in machines], objective.constant is not None)
    return HingeFit(objective=objective.at(params[:, 0].to(objective.params)), machines=machines)


def _costs(objective: LinearObjective) -> Floats:
    """Return C = w v/n of each hinge of each output, [c, m]."""
    factors = hinges_of(objective).factors.numpy()
    weights = objective.weights.double().numpy()
    return np.asarray(factors * np.tile(weights / len(weights), factors.shape[1] // len(weights)))


def _flat(columns: list[Floats], intercept: bool) -> Tensor:
    """Return θ of each output, [d or d + 1, k], in the order of the objective's parameters."""
    if not intercept:
        return torch.from_numpy(np.concatenate(columns))
    coef = [column[:-1] for column in columns]
    return torch.from_numpy(np.concatenate([*coef, *(column[-1:] for column in columns)]))
