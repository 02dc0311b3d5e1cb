r"""The regularized empirical risk that a model was trained on, seen as tensors and products.

```
R(θ) = (1/n) Σᵢ wᵢ ℓ(f_θ(xᵢ), yᵢ) + Ω(θ),    Ω(θ) = ½ Σⱼ l2ⱼ θⱼ²
```

θ is one flat vector of p numbers; θ̂ the trained value. V [p, k] holds k directions in parameter
space as columns. gᵢ = ∇_θ ℓ(zᵢ, θ̂) is an example's gradient *without* the penalty and
Jᵢ = ∂f_θ(xᵢ)/∂θ [c, p] the Jacobian of its outputs, so that gᵢ = Jᵢᵀ ∂ℓ/∂f.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.errors import UnsupportedModel
from whence.objective.measures import Measure
from whence.objective.trained import Examples, Trained
from whence.tiles import tiles

if TYPE_CHECKING:
    from typing_extensions import Self

AnyObjective = TypeVar("AnyObjective", bound="Objective")  # the same kind comes back
Own = TypeVar("Own", bound="Objective")  # the kind that statistics belong to
OwnExamples = TypeVar("OwnExamples", bound=Examples)  # and its examples

_TOGETHER = 16  # examples whose Jacobians are made at once; the work grows with its square


class Statistics(ABC, Generic[Own, OwnExamples]):
    r"""What a fit computes from its training examples besides θ: s(w), and how it follows them.

    Such are means and scales of the preprocessing, class weights by frequency, the sum of weights
    by which a mean loss divides, the active set of an L1 penalty. At ∇_θ R(θ̂, s(w), w) = 0 an
    example then moves a measure in three ways:

    ```
    dm/dwᵢ = −∇mᵀ H⁻¹ (gᵢ/n + ∂²R/∂θ∂s · ds/dwᵢ) + ∂m/∂s · ds/dwᵢ
    ```
    """

    @property
    @abstractmethod
    def reweights(self) -> bool:
        """Whether a removal changes the weights of the examples that stay."""

    @property
    @abstractmethod
    def moves_features(self) -> bool:
        """Whether the features of examples follow other training examples."""

    @property
    @abstractmethod
    def held(self) -> str:
        """What `effects` holds though it follows the data, in a sentence; "" if nothing."""

    @property
    def lacks_a_class(self) -> bool:
        """Whether the objective is the fit itself, without a class that lost its last example."""
        return False

    @abstractmethod
    def only_weights(self, where: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return for which training examples a removal changes nothing but weights.

        Args:
            where: Positions of the k examples.

        Returns:
            False where other features, or other parameters in use, come with it, [k].
        """

    @abstractmethod
    def weights(self, kept: Tensor) -> Tensor:
        """Return the weight of every training example where only some are there.

        Args:
            kept: 1 for an example that stays, 0 for one that is removed, [n, k].

        Returns:
            The weights in each case, [n, k].
        """

    @abstractmethod
    def weights_as(self, where: NDArray[np.intp], targets: Tensor) -> Tensor:
        """Return the weight that training examples would have with other targets, [k].

        Args:
            where: Positions of the k examples.
            targets: The other targets, encoded, [k].
        """

    @abstractmethod
    def changed(self, objective: Own, weights: Tensor) -> Own:
        """Return R(·, s(w′), w′) at θ̂: the statistics of reweighted data, θ not yet fitted.

        Args:
            objective: R(·, s(w), w) at θ̂.
            weights: w′, [n].

        Returns:
            The objective; where `lacks_a_class`, the fit itself, the class with probability 0.
        """

    def own_fit(self, objective: Own, weights: Tensor) -> Own | None:
        """Return where the library's own fit to other weights ends, or `None`."""

    @abstractmethod
    def edited(self, objective: Own, index: int, example: OwnExamples) -> Own:
        """Return R at θ̂ with one training example replaced, the statistics of the new data.

        Args:
            objective: R at θ̂.
            index: Position of the example that is replaced.
            example: What comes in its place, [1].

        Returns:
            The objective; the new example has the sample weight of the old one.
        """

    @abstractmethod
    def effects(
        self,
        objective: Own,
        queries: OwnExamples,
        measure: Measure,
        shares: Tensor,
        directions: Tensor,
        added: tuple[OwnExamples, int] | None = None,
    ) -> Tensor | None:
        """Return what each removal does to measures through s, to first order.

        Args:
            objective: R at θ̂.
            queries: The q queries.
            measure: m.
            shares: The k quantities asked for, as sums of the queries' measures, [q, k].
            directions: H⁻¹ ∇ of each quantity, [p, k].
            added: An example to be added, [1], with the sample weight of that at a position; its
                addition, with the sign of a removal, comes behind those of the training examples.

        Returns:
            wᵢ (∇mᵀ H⁻¹ ∂²R/∂θ∂s − ∂m/∂s) ds/dwᵢ, [k, n] or [k, n + 1]; `None` where nothing
            follows.
        """

    @abstractmethod
    def through_inputs(
        self,
        objective: Own,
        queries: OwnExamples,
        measure: Measure,
        shares: Tensor,
        directions: Tensor,
        where: NDArray[np.intp],
    ) -> Tensor | None:
        """Return what moving training inputs does to one quantity through s, to first order.

        The arguments are those of `effects` for one quantity, and the positions of k examples.

        Returns:
            Derivatives in the shape of the user's inputs, [k, ...]; `None` where nothing follows.
        """


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
    train = objective.train
    losses = objective.loss(objective.outputs(train), train.targets)
    penalty = (objective.l2 * objective.params.square()).sum() / 2
    if objective.slope is not None:
        penalty = penalty + objective.slope @ objective.params
    return float((objective.weights * losses).sum() / len(train) + penalty)


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
