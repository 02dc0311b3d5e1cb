"""HuberRegressor: coefficients and scale, one convex problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import HuberRegressor
from torch import Tensor, nn

from whence.adapters.answers import Numbers
from whence.adapters.perceptron import Table
from whence.adapters.tabular import far_center
from whence.adapters.torch import bound
from whence.network.objective import ModuleObjective
from whence.objective.losses import Loss, SquaredError
from whence.rows import column_names, is_sparse


@dataclass(frozen=True)
class ScaledHuber(Loss):
    r"""Huber's loss with its scale: ℓ((f, σ), y) = σ + r²/σ, or σ + 2ε|r| − ε²σ where |r| > ε σ.

    r = f − y. The outputs are f and σ, [b, 2]; σ is the same for all rows.

    Args:
        epsilon: ε >= 1, how many scales away a row counts as an outlier.

    References:
        Huber & Ronchetti (2009), "Robust Statistics", section 7.7; Owen (2007).

    Examples:
        >>> import torch
        >>> ScaledHuber(epsilon=1.5)(torch.tensor([[3.0, 2.0]]), torch.tensor([1.0]))
        tensor([4.])
    """

    regresses: ClassVar[bool] = True
    unit: ClassVar[str] = "Huber's loss with its scale"

    epsilon: float

    def _parts(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return r and σ of each row, and whether it is an outlier, [b] each."""
        r = outputs[..., 0] - targets.to(outputs.dtype).reshape(outputs.shape[:-1])
        scale = outputs[..., 1]
        return r, scale, r.abs() > self.epsilon * scale

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        r, scale, outlier = self._parts(outputs, targets)
        outside = 2 * self.epsilon * r.abs() - self.epsilon**2 * scale
        return scale + torch.where(outlier, outside, r.square() / scale)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∂ℓ/∂(f, σ), [b, 2]."""
        r, scale, outlier = self._parts(outputs, targets)
        by_f = torch.where(outlier, 2 * self.epsilon * r.sign(), 2 * r / scale)
        square = (r / scale).square()
        by_scale = torch.where(outlier, 1 - self.epsilon**2 * torch.ones_like(r), 1 - square)
        return torch.stack([by_f, by_scale], -1)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return 2/σ (1, −r/σ)ᵀ(1, −r/σ) u, zero for outliers."""
        r, scale, outlier = self._parts(outputs, targets)
        along = torch.stack([torch.ones_like(r), -r / scale], -1).unsqueeze(-1)
        size = torch.where(outlier, torch.zeros_like(r), 2 / scale)[..., None, None]
        return size * along * (along * tangents).sum(-2, keepdim=True)

    def prediction(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return f, [b]."""
        return outputs[:, 0]

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless there is one target per row."""
        SquaredError().check_targets(outputs[..., :1], targets)


@final
class _WithScale(nn.Module):
    """A linear model beside the scale, which is a parameter too.

    Args:
        estimator: Fitted.
        center: What is taken off the columns before the model reads them, [d].
    """

    center: Tensor

    def __init__(self, estimator: Any, center: Tensor) -> None:
        """Take the coefficients of a fitted estimator."""
        super().__init__()
        self.register_buffer("center", center)
        coef = torch.from_numpy(np.asarray(estimator.coef_, dtype=np.float64))
        self.linear = nn.Linear(len(coef), 1, bias=estimator.fit_intercept, dtype=torch.float64)
        with torch.no_grad():
            self.linear.weight.copy_(coef.unsqueeze(0))
            if estimator.fit_intercept:
                self.linear.bias.fill_(float(estimator.intercept_ + center @ coef))
        self.scale = nn.Parameter(torch.tensor([float(estimator.scale_)], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x) and σ, [b, 2]."""
        return torch.cat([self.linear(x - self.center), self.scale.expand(len(x), 1)], 1)


def huber(
    estimator: Any, X: Any, y: Any, sample_weight: NDArray[np.float64] | None
) -> ModuleObjective | None:
    """Return a fitted HuberRegressor as the objective it minimized, or `None` of anything else.

    R(θ) = (1/n) Σ wᵢ ℓ((f, σ), yᵢ) + (α/n)‖w‖², convex in (w, b, σ) together.

    Args:
        estimator: Fitted.
        X: Its training rows, [n, d].
        y: Its targets, [n].
        sample_weight: Its sample weights, or `None`.
    """
    if type(estimator) is not HuberRegressor or is_sparse(X):
        return None
    names = column_names(X)
    table = Table(estimator.n_features_in_, names, Numbers(1), None)
    train = table((X, y))
    center = torch.zeros(estimator.n_features_in_, dtype=torch.float64)
    if estimator.fit_intercept:
        far = far_center(train.inputs.numpy(), np.ones(len(train), dtype=bool))
        center = center if far is None else torch.from_numpy(far)
    objective = bound(
        _WithScale(estimator, center),
        lambda _: ScaledHuber(epsilon=float(estimator.epsilon)),
        (train.inputs, train.targets),
        l2=0.0,
        params=None,
        weights=sample_weight,
        batch_size=None,
        convex=True,
    )
    l2 = torch.zeros_like(objective.params)
    l2[objective.slices["linear.weight"]] = 2 * estimator.alpha / len(train)
    note = "The outputs are the prediction and the scale, which is fitted with it."
    return replace(
        objective,
        train=replace(objective.train, ids=train.ids),
        l2=l2,
        encoder=table,
        notes=(*objective.notes, note),
        lifted=partial(_lifted, objective.slices, center),
    )


def _lifted(slices: Mapping[str, slice], center: Tensor, v: Tensor) -> Tensor:
    """Return changes of coefficients, intercept and scale, the intercept that of columns at 0."""
    if not center.any():
        return v.clone()
    own = v.clone()
    own[slices["linear.bias"]] -= center @ v[slices["linear.weight"]]
    return own
