r"""The regularized empirical risk that a model was trained on, seen as tensors and products.

```
R(θ) = (1/n) Σᵢ wᵢ ℓ(f_θ(xᵢ), yᵢ) + Ω(θ),    Ω(θ) = ½ Σⱼ l2ⱼ θⱼ²
```

θ is one flat vector of p numbers; θ̂ the trained value. V [p, k] holds k directions in parameter
space as columns. gᵢ = ∇_θ ℓ(zᵢ, θ̂) is an example's gradient *without* the penalty and
Jᵢ = ∂f_θ(xᵢ)/∂θ [c, p] the Jacobian of its outputs, so that gᵢ = Jᵢᵀ ∂ℓ/∂f.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.errors import UnsupportedModel
from whence.objective.measures import Measure
from whence.objective.statistics import Statistics
from whence.objective.trained import Examples, Trained
from whence.tiles import tiles

if TYPE_CHECKING:
    from typing_extensions import Self

AnyObjective = TypeVar("AnyObjective", bound="Objective")  # the same kind comes back

_TOGETHER = 16  # examples whose Jacobians are made at once; the work grows with its square


class Objective(Trained):
    """R(θ) at θ̂ and the products from which influence is made. Immutable.

    Every method takes θ̂ as the point of expansion. `deltas` [p, k] are k displacements: the
    quantity is evaluated, not linearized, at each θ̂ + δ_k.

    Attributes:
        slope: A linear term Σ slopeⱼ θⱼ of R, [p], or `None`: an L1 penalty on its active set,
            where it is l1 · sign(θ̂ⱼ).
        statistics: What else of the model follows its training data, or `None`: a removal then
            changes nothing but the weight of the removed example.

    The other attributes are those of `Trained`; the weights are in the dtype of `params`.
    """

    if TYPE_CHECKING:  # read-only, as those of `Trained`

        @property
        def params(self) -> Tensor:
            """θ̂, flat, [p]."""

        @property
        def l2(self) -> Tensor:
            """The penalty of each parameter, [p]."""

    slope: Tensor | None
    statistics: Statistics[Any, Any] | None = None

    @abstractmethod
    def at(self, params: Tensor) -> Self:
        """Return the same objective expanded at other parameters, [p]."""

    @abstractmethod
    def reweighted(self, weights: Tensor) -> Self:
        """Return the same objective with other example weights, [n], the 1/n kept."""

    @abstractmethod
    def restricted(self, indices: NDArray[np.intp]) -> Self:
        """Return the objective of these training examples alone, their mean in place of R's."""

    @abstractmethod
    def flat_directions(self) -> Tensor:
        """Return orthonormal directions along which R is exactly constant, [p, r]; often r = 0."""

    @abstractmethod
    def dense_hessian(self) -> Tensor:
        """Return ∇²R(θ̂) as a matrix, [p, p]."""

    @abstractmethod
    def outputs_at(self, examples: Examples, deltas: Tensor) -> Tensor:
        """Return f_{θ̂+δ}(x) for each δ in `deltas` [p, k], shape [b, c, k]."""

    @abstractmethod
    def gradient_at(self, examples: Examples, weights: Tensor, deltas: Tensor) -> Tensor:
        """Return Σ_b weights[b, k] ∇ℓ(z_b, θ̂ + δ_k), [p, k]: no penalty and no 1/n."""

    @abstractmethod
    def jvp(self, examples: Examples, v: Tensor) -> Tensor:
        """Return J V, [b, c, k]."""

    @abstractmethod
    def vjp(self, examples: Examples, w: Tensor) -> Tensor:
        """Return Σ_b J_bᵀ W_b for W [b, c, k], shape [p, k]."""

    @abstractmethod
    def gradient_dot(self, examples: Examples, measure: Measure, v: Tensor) -> Tensor:
        """Return ∇m(z_b)ᵀ V for V [p, k], shape [b, k]."""

    @abstractmethod
    def gradient_sum(self, examples: Examples, measure: Measure, w: Tensor) -> Tensor:
        """Return Σ_b W[b, k] ∇m(z_b) for W [b, k], shape [p, k]."""

    @property
    def linear(self) -> bool:
        """Whether f is linear in θ: the Gauss–Newton matrix is then the Hessian."""
        return False

    @property
    def intercepts(self) -> int:
        """How many of the last parameters are intercepts of a model linear in θ."""
        return 0

    def in_float32(self) -> Objective | None:
        """Return the same objective in float32, made once; `None` where it would save nothing."""
        return None

    def within(self, rtol: float) -> Objective:
        """Return the objective with per-example gradients that may be off by this, or itself."""
        return self

    @property
    def hinged(self) -> bool:
        """Whether the exact minimum of a true hinge is found by its active set."""
        return False

    @property
    def dependent_columns(self) -> int:
        """How many combinations of unpenalized columns vanish on every training example."""
        return 0

    def gradient_columns(self, examples: Examples, measure: Measure) -> Tensor:
        """Return ∇m(z_b) as columns, [p, b]: of few examples."""
        unit = torch.eye(len(examples), dtype=self.params.dtype, device=self.params.device)
        return self.gradient_sum(examples, measure, unit)

    def jacobians(self, examples: Examples) -> Tensor:
        """Return J_b for each example, [b, c, p]: of few examples."""
        c = self.outputs(examples.subset(np.arange(1))).shape[1]
        found = self.params.new_empty(len(examples), c, len(self.params))
        for tile in tiles(len(examples), budget=_TOGETHER):
            part = examples.subset(np.arange(tile.start, tile.stop))
            seeds = torch.eye(len(part) * c, dtype=found.dtype, device=found.device)
            rows = self.vjp(part, seeds.reshape(len(part), c, -1)).T
            found[tile] = rows.reshape(len(part), c, -1)
        return found

    @abstractmethod
    def hvp(self, v: Tensor) -> Tensor:
        """Return ∇²R(θ̂) V, the penalty included, for V [p, k], shape [p, k]."""

    @abstractmethod
    def ggnvp(self, v: Tensor) -> Tensor:
        """Return ((1/n) Σᵢ wᵢ Jᵢᵀ ∂²ℓ/∂f² Jᵢ + Ω″) V for V [p, k], shape [p, k]."""

    @abstractmethod
    def input_gradient(self, examples: Examples, v: Tensor) -> Tensor:
        """Return ∂/∂x (g_bᵀ v) for v [p], in the shape of the user's inputs, [b, ...]."""

    @abstractmethod
    def lift(self, v: Tensor) -> Tensor:
        """Return V [p, k] in the user's own parameters, [p′, k]; the identity for most models."""

    @abstractmethod
    def refit(self, weights: Tensor | None = None) -> Objective:
        """Return the objective that the model's own fit gives under other example weights."""

    def refit_edited(self, where: NDArray[np.intp], new: Examples) -> Objective:
        """Return the objective that the model's own fit gives with some examples replaced."""
        changed: Objective = self
        for place, index in enumerate(where.tolist()):
            if changed.statistics is None:
                super().refit_edited(where, new)  # says that it cannot be done
            else:
                row = new.subset(np.array([place]))
                changed = changed.statistics.edited(changed, index, row)
        return changed.refit()

    def identity(self) -> tuple[Tensor | str, ...]:
        """Return the kind of loss, the penalty, and the weights that are not trained."""
        return type(self.trained_loss).__name__, self.l2, *self.frozen()

    def differentiable(self) -> Objective:
        """Return the objective itself."""
        return self


def objective_of(trained: Trained) -> Objective:
    """Return the differentiable view of a model.

    Args:
        trained: An objective, or a recorded training.

    Returns:
        R at θ̂.

    Raises:
        UnsupportedModel: If the model has no derivatives in parameters.
    """
    objective = trained.differentiable()
    if isinstance(objective, Objective):
        return objective
    raise UnsupportedModel(
        "Expected a model with derivatives in its parameters: a linear model, a torch module or a "
        f"recorded training. Got {trained!r}. Use whence.explain or whence.influence without a "
        "solver or an order, which take the method of its kind, or one that fits it again: "
        "whence.Retrained(), or whence.LeaveOneOut()."
    )


def risk(objective: Objective) -> float:
    """Return R(θ̂) with the loss that influence differentiates.

    Args:
        objective: The objective.

    Returns:
        (1/n) Σ wᵢ ℓᵢ + Ω(θ̂), in nats.
    """
    penalty = (objective.l2 * objective.params.square()).sum() / 2
    if objective.slope is not None:
        penalty = penalty + objective.slope @ objective.params
    return training_loss(objective) + float(penalty)


def training_loss(objective: Objective) -> float:
    """Return the mean loss of the training data, without the penalty.

    Args:
        objective: The objective.

    Returns:
        (1/n) Σ wᵢ ℓᵢ, in nats.
    """
    train = objective.train
    losses = objective.loss(objective.outputs(train), train.targets)
    return float((objective.weights * losses).sum() / len(train))


def risk_gradient(objective: Objective) -> Tensor:
    """Return ∇R(θ̂), [p]: zero where the fit has converged.

    Args:
        objective: The objective.

    Returns:
        (1/n) Σ wᵢ gᵢ + Ω′(θ̂), [p].
    """
    weights = objective.weights.unsqueeze(1) / len(objective.train)
    data = objective.gradient_sum(objective.train, objective.loss, weights)
    return with_penalty(objective, data)


def with_penalty(objective: Objective, data: Tensor) -> Tensor:
    """Return ∇R(θ̂) from its part that the data contribute.

    Args:
        objective: The objective.
        data: (1/n) Σ wᵢ gᵢ, [p, 1].

    Returns:
        The gradient, [p].
    """
    gradient = data.squeeze(1) + objective.l2 * objective.params
    return gradient if objective.slope is None else gradient + objective.slope
