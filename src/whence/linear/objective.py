"""Models that are linear in their parameters: f(x) = W x + b, with closed-form products.

All products are with the design matrix X; nothing loops over examples or is of size [n, p].
θ = (W row by row, [c, d]; then b, [c]), as `coef_` and `intercept_` or `weight` and `bias` are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.errors import InvalidInput
from whence.linear.examples import InputMap as InputMap
from whence.linear.examples import LinearExamples as LinearExamples
from whence.linear.features import Features
from whence.linear.flat import flat_directions, null_space
from whence.linear.hessian import data_hessian
from whence.objective.cache import cached
from whence.objective.losses import Loss, SquaredError
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.statistics import Question, Statistics
from whence.objective.trained import Examples
from whence.tiles import tiles

if TYPE_CHECKING:
    from typing_extensions import Self

LinearStatistics = Statistics["LinearObjective", LinearExamples]
LinearQuestion = Question["LinearObjective", LinearExamples]

_TILE = 2**25  # numbers in one temporary: 256 MB of float64
_ROWS = 4096  # rows whose products with one output's columns are held at once
_CACHE = 2**22  # bytes of X in a tile, read once for both products of an HVP


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LinearObjective(Objective):
    """The objective of a model with outputs W x + b·constant, at θ̂ = (W, b).

    Args:
        loss: ℓ, as differentiated by influence.
        trained_loss: ℓ as it was minimized; differs from `loss` where that is smoothed.
        train: The training examples.
        weights: wᵢ >= 0, [n].
        params: θ̂, [p].
        l2: The penalty per parameter, [p].
        constant: The value of the constant column, or `None` for a model without intercept.
        inputs: How user data become features.
        convex: Whether R is convex: true for every model whence takes from scikit-learn.
        notes: What a reader of the results must know, a sentence each.
        classes: The user's names of the classes; empty for a regression.
        slope: The linear term of an L1 penalty on its active set, [p], or `None`.
        refit_with: Fits it again with other weights: (objective, weights [n]) -> objective.
        free: Which parameters may move, [p], or `None` for all: an L1 penalty's zeros stay, l2 = 1.
        stopped: What the estimator says of its own fit, if that stopped early; else empty.
        statistics: What else follows the training data, or `None`.
    """

    loss: Loss
    trained_loss: Loss
    train: LinearExamples
    weights: Tensor
    params: Tensor
    l2: Tensor
    constant: float | None
    inputs: InputMap
    refit_with: Callable[[LinearObjective, Tensor], LinearObjective]
    convex: bool = True
    notes: tuple[str, ...] = ()
    classes: tuple[Any, ...] = ()
    slope: Tensor | None = None
    free: Tensor | None = None
    stopped: str = ""
    statistics: LinearStatistics | None = None

    def __post_init__(self) -> None:
        """Check that the shapes agree."""
        d = self.train.features.shape[1] + (self.constant is not None)
        if len(self.params) == 0 or len(self.params) % d or self.l2.shape != self.params.shape:
            raise InvalidInput(
                f"Expected params and l2 of c x {d} numbers for {d} columns. "
                f"Got {tuple(self.params.shape)} and {tuple(self.l2.shape)}."
            )

    @property
    def c(self) -> int:
        """The number of outputs."""
        return len(self.params) // (self.train.features.shape[1] + (self.constant is not None))

    def at(self, params: Tensor) -> Self:
        """Return the same objective expanded at other parameters, [p]."""
        return replace(self, params=params, stopped="")

    def reweighted(self, weights: Tensor) -> Self:
        """Return the same objective with other example weights, [n]."""
        return replace(self, weights=weights)

    def refit(self, weights: Tensor | None = None) -> LinearObjective:
        """Return the objective at its minimum under other example weights, [n]."""
        return self.refit_with(self, self.weights if weights is None else weights)

    def restricted(self, indices: NDArray[np.intp]) -> Self:
        """Return the objective of these training examples alone."""
        train, weights = self.train.subset(indices), self.weights[torch.as_tensor(indices)]
        return replace(self, train=train, weights=weights, statistics=None)

    def flat_directions(self) -> Tensor:
        """Return where R is constant, [p, r]: dependent columns, shifts under softmax."""
        c, d = self.c, len(self.params) // self.c
        columns = self._unpenalized
        if not len(columns):
            return self.params.new_zeros(len(self.params), 0)
        inside = flat_directions(self._null_space, columns, c, d, shifts=self.loss.zero_sum)
        if self.constant is None:
            return inside.flatten(0, 1)
        return torch.cat([inside[:, :-1].flatten(0, 1), inside[:, -1]])

    @property
    def linear(self) -> bool:
        """Whether f is linear in θ: it is."""
        return True

    @property
    def intercepts(self) -> int:
        """How many of the last parameters are intercepts: one per output, if any."""
        return 0 if self.constant is None else self.c

    @property
    def hinged(self) -> bool:
        """Whether θ̂ minimizes the true hinge."""
        return self.trained_loss.hinged

    @property
    def dependent_columns(self) -> int:
        """How many combinations of unpenalized columns vanish on every training row."""
        return self._null_space.shape[1] if len(self._unpenalized) else 0

    @property
    def unpenalized_least_squares(self) -> bool:
        """Whether this is least squares with columns that have no penalty."""
        columns = self._unpenalized < self.train.features.shape[1]
        return self.loss == SquaredError() and bool(columns.any())

    @property
    def _unpenalized(self) -> Tensor:
        """Positions of the columns of X (the last: the constant) without a penalty."""
        free, c = self.l2 == 0, self.c
        if self.constant is None:
            return free.reshape(c, -1).all(0).nonzero().flatten()
        both = torch.cat([free[:-c].reshape(c, -1), free[-c:].unsqueeze(1)], 1)
        return both.all(0).nonzero().flatten()

    @cached_property
    def _null_space(self) -> Tensor:
        """Combinations of unpenalized columns that vanish on every training row, [u, k]."""
        features, weights = self.train.features, self.weights
        return null_space(features, weights, self.constant, self._unpenalized)

    def dense_hessian(self) -> Tensor:
        """Return ∇²R(θ̂), [p, p]: one weighted Gram matrix per pair of outputs.

        Cost: c(c+1)/2 symmetric products of [d, n] by [n, d], c(c−1)/2 under softmax; p² numbers.
        """
        hessian = self.data_hessian(self.train.features)
        if self.free is not None:
            hessian *= self.free.unsqueeze(1) & self.free
        hessian.diagonal().add_(self.l2)
        return hessian

    def data_hessian(self, features: Features) -> Tensor:
        """Return (1/n) Σ wᵢ Sᵢ ⊗ zᵢzᵢᵀ for the training rows z in some coordinates, [n, r]."""
        outputs, targets = self.outputs(self.train), self.train.targets
        return data_hessian(self.loss, outputs, targets, self.weights, features, self.constant)

    def in_float32(self) -> LinearObjective | None:
        """Return the same objective in float32, made once; `None` where it would save nothing."""
        return self._in_float32

    @cached_property
    def _in_float32(self) -> LinearObjective | None:
        """The float32 twin of a dense float64 objective."""
        features = self.train.features.in_float32()
        if features is None or self.params.dtype != torch.float64:
            return None
        return replace(
            self,
            train=replace(self.train, features=features),
            weights=self.weights.float(),
            params=self.params.float(),
            l2=self.l2.float(),
            slope=None if self.slope is None else self.slope.float(),
        )

    def examples(self, data: Any) -> LinearExamples:
        """Check and encode a user's (x, y); examples of a refit of this model are encoded anew."""
        return self._rows(data) if isinstance(data, Examples) else self.inputs.encode(data)

    def _rows(self, examples: Examples) -> LinearExamples:
        """Return examples as this model reads them: encoded again if another map made them."""
        if not isinstance(examples, LinearExamples):
            raise InvalidInput(
                f"Expected examples made by this objective's .examples(data). Got {type(examples)}."
            )
        if examples.encoded_by is None or examples.encoded_by is self.inputs:
            return examples
        return cached(self, ("encoded", examples), lambda own: own.inputs.encoded(examples))

    def frozen(self) -> tuple[Tensor, ...]:
        """Return what rows become features by, where that is a network."""
        return self.inputs.fixed()

    def outputs(self, examples: Examples) -> Tensor:
        """Return W x + b, [b, c]."""
        if examples is self.train:
            return self._train_outputs
        return self.jvp(examples, self.params.unsqueeze(1)).squeeze(2)

    @cached_property
    def _train_outputs(self) -> Tensor:
        """The outputs of all training examples, [n, c]."""
        return self.jvp(self.train, self.params.unsqueeze(1)).squeeze(2)

    def outputs_at(self, examples: Examples, deltas: Tensor) -> Tensor:
        """Return f_{θ̂+δ}(x), [b, c, k]."""
        return self.outputs(examples).unsqueeze(2) + self.jvp(examples, deltas)

    def gradient_at(self, examples: Examples, weights: Tensor, deltas: Tensor) -> Tensor:
        """Return Σ_b weights[b, k] ∇ℓ(z_b, θ̂ + δ_k), [p, k], in tiles of rows."""
        rows, k = self._rows(examples), deltas.shape[1]
        outputs = self.outputs(examples)

        def weighted_gradients(tile: slice, change: Tensor) -> Tensor:
            f = change.add_(outputs[tile].unsqueeze(1))  # [b, k, c]
            targets = rows.targets[tile].repeat_interleave(k, dim=0)
            e = self.loss.gradient(f.flatten(0, 1), targets).reshape(f.shape)
            return e.mul_(weights[tile].unsqueeze(2))

        return self._there_and_back(rows.features, deltas, weighted_gradients)

    def jvp(self, examples: Examples, v: Tensor) -> Tensor:
        """Return J V, [b, c, k]."""
        return self._forward(self._rows(examples).features, v).transpose(1, 2)

    def vjp(self, examples: Examples, w: Tensor) -> Tensor:
        """Return Σ_b J_bᵀ W_b, [p, k]."""
        return self._backward(self._rows(examples).features, w.transpose(1, 2))

    def gradient_dot(self, examples: Examples, measure: Measure, v: Tensor) -> Tensor:
        """Return ∇m(z_b)ᵀ V, [b, k]: one product with X per output, but for one under softmax."""
        rows = self._rows(examples)
        e = measure.gradient(self.outputs(rows), rows.targets)
        coef, intercept = self._split(v)
        if measure.zero_sum:  # Σ_a e_a = 0, so Σ_a e_a u_a = Σ_a e_a (u_a − u_0)
            e, coef = e[:, 1:], coef[1:] - coef[:1]
            intercept = None if intercept is None else intercept[1:] - intercept[:1]
        total = torch.zeros(len(rows), v.shape[1], dtype=v.dtype)
        for tile in tiles(len(rows), budget=_ROWS):
            part = rows.features.rows(tile)
            for a in range(len(coef)):
                column = part.matmul(coef[a])
                if intercept is not None:
                    column += intercept[a]
                total[tile].addcmul_(e[tile, a : a + 1], column)
        return total

    def gradient_sum(self, examples: Examples, measure: Measure, w: Tensor) -> Tensor:
        """Return Σ_b W[b, k] ∇m(z_b), [p, k]."""
        rows = self._rows(examples)
        e = measure.gradient(self.outputs(rows), rows.targets)
        total = torch.zeros(len(self.params), w.shape[1], dtype=w.dtype)
        for tile in self._tiles(len(rows), w.shape[1]):
            weighted = e[tile].unsqueeze(1) * w[tile].unsqueeze(2)
            total += self._backward(rows.features.rows(tile), weighted)
        return total

    def gradient_columns(self, examples: Examples, measure: Measure) -> Tensor:
        """Return ∂m/∂f ⊗ x for each example, [p, b]."""
        rows = self._rows(examples)
        e = measure.gradient(self.outputs(rows), rows.targets)
        parts = [(e.unsqueeze(2) * rows.features.by_column().unsqueeze(1)).flatten(1)]
        if self.constant is not None:
            parts.append(self.constant * e)
        return self._freed(torch.cat(parts, 1).T)

    def jacobians(self, examples: Examples) -> Tensor:
        """Return J_b for each example, [b, c, p]: of few examples."""
        rows = self._rows(examples)
        rows_dense, c = rows.features.by_column(), self.c
        d = rows_dense.shape[1]
        jacobians = self.params.new_zeros(len(rows), c, len(self.params))
        for a in range(c):
            jacobians[:, a, a * d : (a + 1) * d] = rows_dense
            if self.constant is not None:
                jacobians[:, a, c * d + a] = self.constant
        return jacobians if self.free is None else jacobians * self.free

    def hvp(self, v: Tensor) -> Tensor:
        """Return ∇²R(θ̂) V: two products with X per tile of rows."""
        n, targets = len(self.train), self.train.targets
        outputs = self.outputs(self.train).to(v.dtype)

        def curved(tile: slice, tangents: Tensor) -> Tensor:
            product = self.loss.hvp(outputs[tile], targets[tile], tangents.transpose(1, 2))
            return product.mul_((self.weights[tile] / n).reshape(-1, 1, 1)).transpose(1, 2)

        data = self._there_and_back(self.train.features, self._freed(v), curved)
        return torch.addcmul(data, self.l2.to(v.dtype).unsqueeze(1), v)

    def ggnvp(self, v: Tensor) -> Tensor:
        """Return ∇²R(θ̂) V: for a model linear in θ the Gauss–Newton matrix is the Hessian."""
        return self.hvp(v)

    def input_gradient(self, examples: Examples, v: Tensor) -> Tensor:
        """Return ∂/∂x (g_bᵀ v), [b, d′].

        With u = J v: gᵀv = eᵀu, e = ∂ℓ/∂f, so the derivative is Σ_a e_a ∂u_a/∂x
        + Σ_a (∂²ℓ/∂f² u)_a ∂f_a/∂x.
        """
        rows = self._rows(examples)
        outputs = self.outputs(rows)
        e = self.loss.gradient(outputs, rows.targets)
        u = self.jvp(rows, v.unsqueeze(1))
        curved = self.loss.hvp(outputs, rows.targets, u).squeeze(2)
        return self.inputs.vjp(rows, (v, e), (self.params, curved))

    def lift(self, v: Tensor) -> Tensor:
        """Return V [p, k] in the user's own parameters."""
        return self.inputs.lift(v)

    def _tiles(self, n: int, k: int) -> Iterator[slice]:
        """Yield slices of rows that stay in cache, and whose [rows, k, c] stay within a tile."""
        in_cache = _CACHE // (self.train.features.numbers * self.params.element_size())
        step = max(1, min(_TILE // max(1, self.c * k), max(256, in_cache)))
        return tiles(n, budget=step)

    def _split(self, v: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return V as coefficients [c, d, k] and scaled intercepts [c, k]."""
        c, k = self.c, v.shape[1]
        if self.constant is None:
            return v.reshape(c, -1, k), None
        return v[:-c].reshape(c, -1, k), self.constant * v[-c:]

    def _forward(self, features: Features, v: Tensor) -> Tensor:
        """Return X V, [b, k, c]: the layout in which outputs of one k lie together."""
        coef, intercept = self._split(v)
        c, d, k = coef.shape
        product = features.matmul(coef.permute(1, 2, 0).reshape(d, k * c)).reshape(-1, k, c)
        return product if intercept is None else product.add_(intercept.T)

    def _there_and_back(
        self, features: Features, v: Tensor, between: Callable[[slice, Tensor], Tensor]
    ) -> Tensor:
        """Return Σ_b J_bᵀ u_b, [p, k], u = between(rows, J V) [b, k, c] a tile of rows at a time.

        V is brought into the order of the products, and the sum out of it, once for all tiles.
        """
        held, columns = features.held()
        coef, intercept = self._split(v)
        c, d, k = coef.shape
        coef = coef if columns is None else coef[:, columns]
        coef = coef.permute(1, 2, 0).reshape(-1, k * c)
        total = torch.zeros_like(coef.T).T  # as rmatmul returns it
        sums = v.new_zeros(k, c)
        for tile in self._tiles(features.shape[0], k):
            rows = held.rows(tile)
            f = rows.matmul(coef).reshape(-1, k, c)
            u = between(tile, f if intercept is None else f.add_(intercept.T))
            total += rows.rmatmul(u.reshape(-1, k * c))
            sums += u.sum(0)
        product = v.new_zeros(c, d, k)
        product[:, slice(None) if columns is None else columns] = total.reshape(-1, k, c).permute(
            2, 0, 1
        )
        product = product.reshape(-1, k)
        if self.constant is not None:
            product = torch.cat([product, self.constant * sums.T])
        return self._freed(product)

    def _backward(self, features: Features, w: Tensor) -> Tensor:
        """Return Xᵀ W for W [b, k, c], shape [p, k]."""
        b, k, c = w.shape
        product = features.rmatmul(w.reshape(b, k * c)).reshape(-1, k, c)
        coef = product.permute(2, 0, 1).reshape(-1, k)
        if self.constant is not None:
            coef = torch.cat([coef, self.constant * w.sum(0).T])
        return self._freed(coef)

    def _freed(self, v: Tensor) -> Tensor:
        """Return V with the parameters that may not move set to zero."""
        return v if self.free is None else v * self.free.unsqueeze(1)
