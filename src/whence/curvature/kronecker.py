r"""Kronecker-factored curvature of a module: KFAC, EKFAC, and their inverses in closed form.

A layer that multiplies, s = W ā (ā = a with a 1 for the bias), has per-example gradients
Σ_t δ_t ā_tᵀ. Taking ā and δ as independent, its block of the Gauss–Newton matrix is

```
KFAC:   G ⊗ A,  G = E Σ_t δ_t δ_tᵀ,  A = E mean_t ā_t ā_tᵀ          = (Q_G ⊗ Q_A) (λ_G λ_Aᵀ) (·)ᵀ
EKFAC:  (Q_G ⊗ Q_A) Λ (·)ᵀ,  Λ = E (Q_Gᵀ (Σ_t δ_t ā_tᵀ) Q_A)²       the true second moments there
```

E runs over the training examples and over directions u of the outputs with E uuᵀ = ∂²ℓ/∂f²: all of
them (one per class), one random draw, or the loss's own gradient (the empirical Fisher). Parameters
that do not multiply (norms, embeddings, recurrent ones) get their exact block when small, and their
exact diagonal otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from whence.curvature.exact import Curvature
from whence.errors import InvalidInput, UnsupportedModel
from whence.linalg.direct import Direct
from whence.linalg.operator import LinearOperator, split_damping
from whence.linalg.solver import Inverse, Solver
from whence.linalg.spectral import Diagonal, KroneckerEigen, Spectral, eigendecompose
from whence.linalg.structured import BlockDiagonal
from whence.objective.layers import (
    Use,
    contribution,
    multiplied,
    multiplies,
    products,
    stored_by_inputs,
)
from whence.objective.losses import CrossEntropy, Loss, output_hessian
from whence.objective.module import ModuleObjective

Fisher = Literal["expected", "sampled", "empirical"]

_BLOCK = 256  # parameters of one tensor up to which its exact block is kept
_CLASSES = 32  # outputs up to which the expectation over directions is taken exactly
_TILE = 2**24  # numbers in a tile of rotated gradients


@final
@dataclass(frozen=True, kw_only=True)
class EKFAC(Solver):
    """Invert the Gauss–Newton matrix in its Kronecker eigenbasis, eigenvalues corrected.

    By itself it is the solver of `whence.influence(..., solver=EKFAC())`; as
    `CG(preconditioner=EKFAC())` it starts an iteration that ends at the exact answer.

    Args:
        fisher: "expected" takes all directions of the outputs, "sampled" one random one per example
            (and fresh ones for the eigenvalues: a shared draw is biased), "empirical" the gradients
            of the training losses. `None`: expected up to 32 outputs, sampled above.
        seed: Of the sampled directions.

    Cost:
        Two passes over the training data, each with one backward pass per direction; the
        eigendecomposition of an [in + 1] and an [out] matrix per layer; p numbers kept, twice.

    References:
        George et al. (2018), "Fast Approximate Natural Gradient Descent in a Kronecker-factored
        Eigenbasis", section 3; Grosse et al. (2023), "Studying Large Language Model
        Generalization with Influence Functions", section 3.1.

    Examples:
        >>> import torch, whence
        >>> data = torch.randn(50, 4), torch.arange(50) % 3
        >>> recipe = whence.Recipe(learning_rate=0.5, batch_size=50, epochs=200)
        >>> run = whence.train(torch.nn.Linear(4, 3), whence.CrossEntropy(), data, recipe)
        >>> objective = whence.from_torch(run.model, whence.CrossEntropy(), data)
        >>> query = (data[0][:2], data[1][:2])
        >>> whence.influence(objective, query, solver=whence.EKFAC(), damping=0.1).values.shape
        (2, 50)
    """

    fisher: Fisher | None = None
    seed: int = 0

    def prepare(self, A: LinearOperator) -> Inverse:
        """Return the inverse of the Kronecker approximation of A, damped as A is.

        Args:
            A: A `Hessian` or `GGN` of a torch module, perhaps damped.

        Returns:
            The inverse, in closed form.

        Raises:
            UnsupportedModel: If A does not belong to a torch module.
            NotPositiveDefinite: If an eigenvalue is zero and A is not damped.
        """
        return _prepared(A, self.fisher, self.seed, corrected=True)


@final
@dataclass(frozen=True, kw_only=True)
class KFAC(Solver):
    """Invert the Gauss–Newton matrix as a Kronecker product per layer.

    Args:
        fisher: As for `EKFAC`.
        seed: Of the sampled directions.

    Cost:
        One pass over the training data with one backward pass per direction.

    References:
        Martens & Grosse (2015), section 3; Eschenhagen et al. (2023) for shared weights ("expand").
    """

    fisher: Fisher | None = None
    seed: int = 0

    def prepare(self, A: LinearOperator) -> Inverse:
        """Return the inverse of the Kronecker approximation of A, damped as A is."""
        return _prepared(A, self.fisher, self.seed, corrected=False)


def kronecker(
    objective: ModuleObjective,
    *,
    corrected: bool = True,
    fisher: Fisher | None = None,
    seed: int = 0,
) -> Spectral:
    """Return the Kronecker approximation of the Gauss–Newton matrix, penalty included.

    Args:
        objective: R of a torch module at θ̂.
        corrected: EKFAC; else KFAC.
        fisher: "expected", "sampled", "empirical", or `None` to choose by the number of outputs.
        seed: Of the sampled directions.

    Returns:
        The operator, [p, p], which knows its spectrum.

    Raises:
        InvalidInput: If a factor is not finite; the module is named.
    """
    few = objective.train.subset(np.arange(1))
    width = objective.outputs(few)[0].numel()
    chosen = fisher or ("expected" if width <= _CLASSES else "sampled")
    layers = _layers(objective)
    rest = [name for name in objective.shapes if not any(name in layer.names for layer in layers)]
    _accumulate(objective, layers, _Directions(objective.loss, chosen, seed))
    for layer in layers:
        layer.rotate()
    others = _Others(objective, rest)
    if corrected or others.factored:
        draws = _Directions(objective.loss, chosen, seed + 1)
        _second_moments(objective, layers if corrected else [], others, draws)
    others.differentiate(_Directions(objective.loss, "sampled", seed + 2))
    blocks = [*(layer.block() for layer in layers), *others.blocks()]
    places = [*(layer.places() for layer in layers), *others.places()]
    l2 = float(objective.l2.mean())
    operator = Reordered(BlockDiagonal(tuple(blocks)), torch.cat(places))
    return operator.map_spectrum(lambda values: values + l2)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Reordered(Spectral):
    """An operator on permuted parameters: row j of `inner` is parameter `order[j]`.

    Args:
        inner: The operator in its own order, [p, p].
        order: A permutation of 0..p−1, [p].
    """

    inner: Spectral
    order: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """P by p."""
        return self.inner.shape

    @property
    def dtype(self) -> torch.dtype:
        """The inner dtype."""
        return self.inner.dtype

    @property
    def device(self) -> torch.device:
        """The inner device."""
        return self.inner.device

    def matmat(self, V: Tensor) -> Tensor:
        """Return A V."""
        product = torch.empty_like(V)
        product[self.order] = self.inner.matmat(V[self.order])
        return product

    def eigenvalues(self) -> Tensor:
        """Return the inner eigenvalues, [p]."""
        return self.inner.eigenvalues()

    def map_spectrum(self, function: Callable[[Tensor], Tensor]) -> Reordered:
        """Return f(A)."""
        return Reordered(self.inner.map_spectrum(function), self.order)


def _prepared(A: LinearOperator, fisher: Fisher | None, seed: int, *, corrected: bool) -> Inverse:
    """Return the damped inverse of the Kronecker approximation of a module's curvature."""
    curvature, damping = split_damping(A)
    objective = curvature.objective if isinstance(curvature, Curvature) else None
    if not isinstance(objective, ModuleObjective):
        raise UnsupportedModel(
            f"Expected the curvature of a torch module for Kronecker factors. Got {A!r}. Models "
            "linear in their parameters are solved exactly: leave out solver=."
        )
    operator = kronecker(objective, corrected=corrected, fisher=fisher, seed=seed)
    return Direct().prepare(operator.damped(damping))


@dataclass(frozen=True)
class _Directions:
    """Directions u of the outputs with E uuᵀ = ∂²ℓ/∂f²."""

    loss: Loss
    fisher: Fisher
    seed: int
    generator: torch.Generator = field(default_factory=torch.Generator, compare=False)

    def __post_init__(self) -> None:
        """Seed the draws."""
        self.generator.manual_seed(self.seed)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return r directions per example, [b, ..., r]."""
        if self.fisher == "empirical":
            return self.loss.gradient(outputs, targets).unsqueeze(-1)
        if isinstance(self.loss, CrossEntropy):
            counts = (targets != self.loss.ignore_index).to(outputs.dtype)[..., None]
            p = torch.softmax(outputs, -1) * counts
            if self.fisher == "sampled":
                z = p.sqrt() * self._normal(p)
                return (z - p * z.sum(-1, keepdim=True)).unsqueeze(-1)
            roots = torch.diag_embed(p.sqrt()) - p.unsqueeze(-1) * p.sqrt().unsqueeze(-2)
            return roots * self._signs(roots) if outputs.ndim > 2 else roots
        flat = outputs.flatten(1)
        values, vectors = torch.linalg.eigh(output_hessian(self.loss, flat, targets))
        roots = vectors * values.clamp_min(0).sqrt().unsqueeze(1)
        if self.fisher == "sampled":
            roots = roots @ self._normal(flat).unsqueeze(-1)
        spread: Tensor = roots.reshape(*outputs.shape, -1)
        return spread

    def _signs(self, roots: Tensor) -> Tensor:
        """Return a random sign per position, which takes out products between positions."""
        shape = (*roots.shape[:-2], 1, 1)
        return torch.randint(0, 2, shape, generator=self.generator).mul_(2).sub_(1).to(roots)

    def _normal(self, like: Tensor) -> Tensor:
        """Return standard normal numbers."""
        return torch.randn(like.shape, generator=self.generator).to(like)


class _Layer:
    """One module that multiplies: its factors, then their eigenbasis, then the eigenvalues."""

    def __init__(
        self, objective: ModuleObjective, module: nn.Module, weight: str, bias: str | None
    ):
        self.module, self.weight, self.bias = module, weight, bias
        self.names = {weight} if bias is None else {weight, bias}
        self.objective = objective
        shape = objective.shapes[weight]
        size = objective.slices[weight].stop - objective.slices[weight].start
        self.outputs = shape[1] if stored_by_inputs(module) else shape[0]
        self.inputs = size // self.outputs + (bias is not None)
        like = objective.params
        self.left = like.new_zeros(self.outputs, self.outputs)
        self.right = like.new_zeros(self.inputs, self.inputs)
        self.values = like.new_zeros(self.outputs, self.inputs)

    def seen(self, use: Use) -> Tensor:
        """Return ā, [b, t, in + 1]."""
        a = multiplied(self.module, use.inputs)
        return a if self.bias is None else torch.cat([a, a.new_ones(*a.shape[:2], 1)], 2)

    def rotate(self) -> None:
        """Replace the factors by their eigenvectors, and Λ by the product of their eigenvalues."""
        name = next(n for n, m in self.objective.model.named_modules() if m is self.module)
        for factor in (self.left, self.right):
            if not torch.isfinite(factor).all():
                raise InvalidInput(
                    f"Expected finite Kronecker factors. Got NaN or infinity in module {name!r}. "
                    "Check its activations, or select other parameters with params=."
                )
        of_left, self.left = torch.linalg.eigh(self.left)
        of_right, self.right = torch.linalg.eigh(self.right)
        self.values = torch.outer(of_left.clamp_min(0), of_right.clamp_min(0))

    def block(self) -> Spectral:
        """Return the block as an operator."""
        return KroneckerEigen(self.left, self.right, self.values)

    def places(self) -> Tensor:
        """Return where in θ each entry of [out, in + 1] stands, flat."""
        at = self.objective.slices[self.weight]
        weight = torch.arange(at.start, at.stop).reshape(self.objective.shapes[self.weight])
        weight = weight.T if stored_by_inputs(self.module) else weight.flatten(1)
        if self.bias is not None:
            bias = self.objective.slices[self.bias]
            weight = torch.cat([weight, torch.arange(bias.start, bias.stop).unsqueeze(1)], 1)
        return weight.reshape(-1).to(self.left.device)


class _Others:
    """The parameters that no multiplying module holds alone: exact blocks and diagonals."""

    def __init__(self, objective: ModuleObjective, names: list[str]) -> None:
        self.objective = objective
        self.factored = [name for name in names if name in objective.factored]
        self.looped = [name for name in names if name not in objective.factored]
        self.moments: dict[str, Tensor] = {}
        for name in names:
            size = objective.shapes[name].numel()
            small = size <= _BLOCK and name in self.factored
            shape = (size, size) if small else (size,)
            self.moments[name] = objective.params.new_zeros(shape)

    def add(self, uses: list[Use], deltas: tuple[Tensor | None, ...], weights: Tensor) -> None:
        """Add one pass over a batch, with weights wᵢ/n."""
        b = len(weights)
        eye = torch.eye(b, dtype=weights.dtype, device=weights.device)
        rows: dict[str, Tensor] = {}
        for use, delta in zip(uses, deltas, strict=True):
            for own, name in self.objective.owners[use.module]:
                if name not in self.factored or delta is None:
                    continue
                piece = contribution(use, own, delta, b)
                assert piece is not None
                if self.moments[name].ndim == 2:
                    rows[name] = rows.get(name, 0) + piece.sum(eye).T
                else:
                    self.moments[name] += piece.squares(weights)
        for name, matrix in rows.items():
            self.moments[name] += matrix.T @ (matrix * weights.unsqueeze(1))

    def differentiate(self, directions: _Directions) -> None:
        """Fill the diagonals of parameters that are differentiated one example at a time."""
        if not self.looped:
            return
        objective, n = self.objective, len(self.objective.train)
        for part, x, y in objective.train.batches(objective.batch_size):
            gradients = objective.looped(x, y, lambda f, t: directions(f, t)[..., 0])
            for name in self.looped:
                squares = gradients[:, objective.slices[name]].square()
                self.moments[name] += squares.T @ (objective.weights[part] / n)

    def blocks(self) -> Iterator[Spectral]:
        """Yield an operator per parameter."""
        for moment in self.moments.values():
            if moment.ndim == 2:
                yield eigendecompose(moment).map_spectrum(lambda values: values.clamp_min(0))
            else:
                yield Diagonal(moment)

    def places(self) -> Iterator[Tensor]:
        """Yield where each parameter stands in θ."""
        for name in self.moments:
            at = self.objective.slices[name]
            yield torch.arange(at.start, at.stop, device=self.objective.params.device)


def _layers(objective: ModuleObjective) -> list[_Layer]:
    """Return the multiplying modules whose weight is selected, factored and theirs alone."""
    holders: dict[str, int] = {}
    for held in objective.owners.values():
        for _, name in held:
            holders[name] = holders.get(name, 0) + 1
    layers = []
    for module, held in objective.owners.items():
        own = {
            mine: name for mine, name in held if holders[name] == 1 and name in objective.factored
        }
        if "weight" in own and multiplies(module):
            layers.append(_Layer(objective, module, own["weight"], own.get("bias")))
    return layers


def _accumulate(objective: ModuleObjective, layers: list[_Layer], draws: _Directions) -> None:
    """Sum A = E mean_t ā āᵀ and G = E Σ_t δ δᵀ of every layer over the training data."""
    n = len(objective.train)
    by_module = {layer.module: layer for layer in layers}
    for part, uses, passes in objective.traced(draws):
        weights = objective.weights[part] / n
        for first, deltas in enumerate(passes):
            for use, delta in zip(uses, deltas, strict=True):
                layer = by_module.get(use.module)
                if layer is None or delta is None:
                    continue
                if first == 0:
                    a = layer.seen(use)
                    _add_moment(layer.right, a, weights / a.shape[1])
                _add_moment(layer.left, products(layer.module, delta), weights)


def _add_moment(total: Tensor, rows: Tensor, weights: Tensor) -> None:
    """Add Σ_bt w_b r_bt r_btᵀ for rows [b, t, d]."""
    weighted = (rows * weights.reshape(-1, 1, 1)).flatten(0, 1)
    total.addmm_(weighted.T, rows.flatten(0, 1))


def _second_moments(
    objective: ModuleObjective, layers: list[_Layer], others: _Others, draws: _Directions
) -> None:
    """Replace Λ of every layer by E (Q_Gᵀ g Q_A)², and sum the moments of the other parameters."""
    n = len(objective.train)
    by_module = {layer.module: layer for layer in layers}
    for layer in layers:
        layer.values.zero_()
    for part, uses, passes in objective.traced(draws):
        weights = objective.weights[part] / n
        inputs: dict[int, Tensor] = {}
        for deltas in passes:
            others.add(uses, deltas, weights)
            gathered: dict[_Layer, tuple[list[Tensor], list[Tensor]]] = {}
            for place, (use, delta) in enumerate(zip(uses, deltas, strict=True)):
                owner = by_module.get(use.module)
                if owner is None or delta is None:
                    continue
                if place not in inputs:
                    inputs[place] = owner.seen(use) @ owner.right
                lefts, rights = gathered.setdefault(owner, ([], []))
                lefts.append(products(owner.module, delta) @ owner.left)
                rights.append(inputs[place])
            for layer, (lefts, rights) in gathered.items():
                left, right = torch.cat(lefts, 1), torch.cat(rights, 1)
                layer.values += _squared_products(left, right, weights)


def _squared_products(left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
    """Return Σ_b w_b (Σ_t left_t right_tᵀ)², [out, in]."""
    if left.shape[1] == 1:
        squares = left[:, 0].square() * weights.unsqueeze(1)
        return squares.T @ right[:, 0].square()
    total = left.new_zeros(left.shape[2], right.shape[2])
    step = max(1, _TILE // total.numel())
    for start in range(0, len(left), step):
        part = slice(start, start + step)
        product = torch.bmm(left[part].mT, right[part]).square_()
        total += torch.einsum("boi,b->oi", product, weights[part])
    return total
