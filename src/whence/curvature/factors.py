"""The factors of a module's curvature, layer by layer, summed over its training data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from whence.curvature.directions import Directions
from whence.errors import InvalidInput
from whence.linalg.spectral import Diagonal, KroneckerEigen, Spectral, eigendecompose
from whence.network.calls import ModuleCall
from whence.network.gradients import Contribution
from whence.network.layer_rules import rule_of
from whence.network.layers import contribution
from whence.network.objective import ModuleObjective
from whence.network.rule import Rule
from whence.tiles import tiles

Sharing = Literal["expand", "reduce"]
Trace: TypeAlias = tuple[slice, list[ModuleCall], Iterable[tuple[Tensor | None, ...]]]

_BLOCK = 256  # parameters of one tensor up to which its exact block is computed
_TILE = 2**22  # numbers of per-example gradients materialized at once: what a cache holds


class Layer:
    """One module that multiplies: its factors, then their eigenbasis, then the eigenvalues.

    Attributes:
        module: The module.
        rule: What is known of its kind.
        names: Its parameters' names in θ.
        left: G, then its eigenvectors, [out, out].
        right: A, then its eigenvectors, [in + 1, in + 1].
        spread: The eigenvalues of G and of A: second moments in the eigenbasis, [out] and [in + 1].
        values: Λ, [out, in + 1].
        reached: The number of its parameters in whose direction any example has a gradient.
        one_position: Whether it is called at one position per example: gradients are then δ āᵀ.
    """

    spread: tuple[Tensor, Tensor]  # these three come with the eigenbasis, by `rotate`
    values: Tensor
    reached: int

    def __init__(
        self,
        objective: ModuleObjective,
        module: nn.Module,
        rule: Rule,
        weight: str,
        bias: str | None,
    ):
        self.module, self.rule, self.weight, self.bias = module, rule, weight, bias
        self.names = {weight} if bias is None else {weight, bias}
        self.objective = objective
        shape = objective.shapes[weight]
        size = objective.slices[weight].stop - objective.slices[weight].start
        self.outputs = shape[1] if rule.by_inputs else shape[0]
        self.inputs = size // self.outputs + (bias is not None)
        like = objective.params
        self.left = like.new_zeros(self.outputs, self.outputs)
        self.right = like.new_zeros(self.inputs, self.inputs)
        self.one_position = True

    def seen(self, use: ModuleCall) -> Tensor:
        """Return ā, [b, t, in + 1]."""
        a = self.rule.activations(self.module, use.inputs)
        return a if self.bias is None else torch.cat([a, a.new_ones(*a.shape[:2], 1)], 2)

    def rotate(self) -> None:
        """Replace the factors by their eigenvectors, and Λ by the product of their eigenvalues."""
        self.check(self.left, self.right)
        rows, columns = (
            int(factor.diagonal().count_nonzero()) for factor in (self.left, self.right)
        )
        self.reached = rows * columns
        of_left, self.left = torch.linalg.eigh(self.left)
        of_right, self.right = torch.linalg.eigh(self.right)
        self.spread = of_left.clamp_min(0), of_right.clamp_min(0)
        self.values = torch.outer(*self.spread)

    def average_null_spaces(self) -> None:
        """Give the null space of a factor the mean of its eigenvalues in Λ.

        There the eigenvectors are any, as rounding has it; the mean is the same in each basis. Of
        factors of summed positions the null space holds parts of gradients: the sum over positions
        of an attention key's is zero.
        """
        for values, spread in zip((self.values, self.values.T), self.spread, strict=True):
            rounding = torch.finfo(spread.dtype).eps * len(spread)
            null = spread <= rounding * spread.max()
            values[null] = values[null].mean(0)

    def check(self, *factors: Tensor) -> None:
        """Raise unless the factors are finite."""
        if not all(bool(torch.isfinite(factor).all()) for factor in factors):
            named = self.objective.model.named_modules()
            name = next(n for n, module in named if module is self.module)
            raise InvalidInput(
                f"Expected finite Kronecker factors. Got NaN or infinity in module {name!r}. "
                "Check its activations, or select other parameters with params=."
            )

    def block(self) -> KroneckerEigen:
        """Return the block as an operator."""
        self.check(self.values)
        return KroneckerEigen(self.left, self.right, self.values)

    def places(self) -> Tensor:
        """Return the position in θ of each entry of [out, in + 1], flat."""
        at = self.objective.slices[self.weight]
        weight = torch.arange(at.start, at.stop).reshape(self.objective.shapes[self.weight])
        weight = weight.T if self.rule.by_inputs else weight.flatten(1)
        if self.bias is not None:
            bias = self.objective.slices[self.bias]
            weight = torch.cat([weight, torch.arange(bias.start, bias.stop).unsqueeze(1)], 1)
        return weight.reshape(-1).to(self.left.device)


class Others:
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

    def add(
        self, uses: list[ModuleCall], deltas: tuple[Tensor | None, ...], weights: Tensor
    ) -> None:
        """Add one pass over a batch, with weights wᵢ/n."""
        b = len(weights)
        pieces: dict[str, list[Contribution]] = {}
        for use, delta in zip(uses, deltas, strict=True):
            for own, name in use.names:
                if name in self.factored and delta is not None:
                    piece = contribution(use, own, delta, b)
                    assert piece is not None
                    pieces.setdefault(name, []).append(piece)
        for name, several in pieces.items():
            moment = self.moments[name]
            if moment.ndim == 1 and len(several) == 1:
                moment += several[0].squares(weights)
                continue
            # Gradients of calls that share a parameter are summed before they are squared.
            for seeds in _seeds(b, len(moment), weights):
                rows = sum((piece.sum(seeds).T for piece in several), start=weights.new_zeros(()))
                moment += rows.T @ rows if moment.ndim == 2 else rows.square().sum(0)

    def differentiate(self, directions: Directions) -> None:
        """Fill the diagonals of parameters whose gradients do not factor."""
        objective, n = self.objective, len(self.objective.train)
        if not (rest := [name for name in objective.shapes if name in self.looped]):
            return
        sizes = [objective.shapes[name].numel() for name in rest]
        for part, x, y in objective.train.batches(objective.batch_size):
            found = objective.per_example.each(x, y, lambda f, t: directions(f, t)[..., 0], rest)
            for name, columns in zip(rest, torch.split(found, sizes, 1), strict=True):
                self.moments[name] += columns.square().T @ (objective.weights[part] / n)

    @property
    def reached(self) -> int:
        """The number of these parameters in whose direction any example has a gradient."""
        diagonals = (m.diagonal() if m.ndim == 2 else m for m in self.moments.values())
        return sum(int(diagonal.count_nonzero()) for diagonal in diagonals)

    def blocks(self) -> Iterator[Spectral]:
        """Yield an operator per parameter."""
        for name, moment in self.moments.items():
            if not torch.isfinite(moment).all():
                raise InvalidInput(
                    f"Expected finite second moments. Got NaN or infinity in parameter {name!r}. "
                    "Check its module's activations, or select other parameters with params=."
                )
            if moment.ndim == 2:
                yield eigendecompose(moment).map_spectrum(lambda values: values.clamp_min(0))
            else:
                yield Diagonal(moment)

    def places(self) -> Iterator[Tensor]:
        """Yield the positions of each parameter in θ."""
        for name in self.moments:
            at = self.objective.slices[name]
            yield torch.arange(at.start, at.stop, device=self.objective.params.device)


def multiplying_layers(objective: ModuleObjective) -> list[Layer]:
    """Return the multiplying modules whose weight is selected, factored and theirs alone.

    Args:
        objective: R of a torch module.

    Returns:
        The layers, with nothing summed yet.
    """
    holders: dict[str, int] = {}
    for held in objective.owners.values():
        for _, name in held:
            holders[name] = holders.get(name, 0) + 1
    layers = []
    for module, held in objective.owners.items():
        own = {
            mine: name for mine, name in held if holders[name] == 1 and name in objective.factored
        }
        rule = rule_of(module) if "weight" in own else None
        if rule is not None and rule.multiplies(module):
            layers.append(Layer(objective, module, rule, own["weight"], own.get("bias")))
    return layers


def positions_of(
    layers: list[Layer], uses: list[ModuleCall], deltas: tuple[Tensor | None, ...]
) -> tuple[dict[Layer, int], bool]:
    """Return how many positions of one example count, for each layer that was called.

    A position counts if the outputs depend on the layer there: padding does not.

    Args:
        layers: The layers.
        uses: The calls of their modules on one example.
        deltas: The output gradients of each call.

    Returns:
        The positions over all calls, at least one; and whether some layer sees several.
    """
    counts: dict[Layer, int] = {}
    several = False
    for layer, delta in by_layer(layers, uses, deltas, _backward):
        several = several or delta.shape[1] > 1
        counts[layer] = max(int(delta.any(-1).sum()), 1)
    return counts, several


def add_factors(
    objective: ModuleObjective, layers: list[Layer], traces: Iterable[Trace], sharing: Sharing
) -> None:
    """Sum A and G of every layer over the training data.

    expand: A = E mean_t ā_t ā_tᵀ, G = E Σ_t δ_t δ_tᵀ, as if positions were examples;
    reduce: A = E (mean_t ā_t)(·)ᵀ, G = E (Σ_t δ_t)(·)ᵀ, as if an example had one position.
    Means run over the positions t with δ_t ≠ 0 in some direction: the others, such as padding, are
    in no gradient.

    Args:
        objective: R at θ̂.
        layers: The layers; changed.
        traces: What `objective.traced` gives for the directions of the outputs.
        sharing: How positions of one example are combined.
    """
    n = len(objective.train)
    for part, uses, passes in traces:
        weights = objective.weights[part] / n
        counted: dict[Layer, Tensor] = {}
        last: tuple[Tensor | None, ...] = ()
        for deltas in passes:
            for layer, delta in by_layer(layers, uses, deltas, _backward):
                rows = delta if sharing == "expand" else delta.sum(1, keepdim=True)
                _add_moment(layer.left, rows, weights)
                if delta.shape[1] > 1:
                    found = delta.any(-1)
                    counted[layer] = found | counted[layer] if layer in counted else found
            last = deltas
        if last:
            for layer, a in by_layer(layers, uses, last, lambda use, _, own: own.seen(use)):
                layer.one_position = layer.one_position and a.shape[1] == 1
                _add_inputs(layer.right, a, counted.get(layer), weights, sharing)


def add_second_moments(
    objective: ModuleObjective,
    layers: list[Layer],
    others: Others,
    traces: Iterable[Trace],
    kind: torch.dtype,
) -> None:
    """Replace Λ of every layer by E (Q_Gᵀ g Q_A)², and sum the moments of the other parameters.

    Args:
        objective: R at θ̂.
        layers: The layers, in their eigenbasis; changed.
        others: The other parameters; changed.
        traces: What `objective.traced` gives for the directions of the outputs.
        kind: The precision of the products at many positions. bfloat16 adds some 1e-6 of the mean
            eigenvalue times the largest of one factor, nothing beside a damping of that size.
    """
    n = len(objective.train)
    for layer in layers:
        layer.values.zero_()
    for part, uses, passes in traces:
        weights = objective.weights[part] / n
        inputs: dict[Layer, Tensor] = {}
        squares: dict[Layer, Tensor] = {}
        for deltas in passes:
            others.add(uses, deltas, weights)
            if not inputs:
                seen = by_layer(layers, uses, deltas, lambda use, _, own: own.seen(use))
                inputs = {layer: _rotated(a, layer.right, layer, kind) for layer, a in seen}
            for layer, delta in by_layer(layers, uses, deltas, _backward):
                rotated = _rotated(delta, layer.left, layer, kind)
                if layer.one_position:  # the square of a product is the product of squares
                    square = rotated[:, 0].square_()
                    squares[layer] = squares[layer].add_(square) if layer in squares else square
                else:
                    _add_squared_products(layer.values, rotated, inputs[layer], weights)
        for layer, square in squares.items():
            left, right = square * weights.unsqueeze(1), inputs[layer][:, 0].square()
            layer.values.addmm_(_above_rounding(left).T, _above_rounding(right))


def by_layer(
    layers: list[Layer],
    uses: list[ModuleCall],
    deltas: tuple[Tensor | None, ...],
    rows: Callable[[ModuleCall, Tensor, Layer], Tensor],
) -> Iterator[tuple[Layer, Tensor]]:
    """Yield the rows [b, t, ·] of each layer, the positions of all its calls one after the other.

    Args:
        layers: The layers.
        uses: The calls of their modules.
        deltas: The output gradients of each call; `None` where the outputs do not depend on it.
        rows: From a call, its δ and its layer to the rows of that call.
    """
    found: dict[nn.Module, list[Tensor]] = {layer.module: [] for layer in layers}
    owners = {layer.module: layer for layer in layers}
    for use, delta in zip(uses, deltas, strict=True):
        if use.module in owners and delta is not None:
            found[use.module].append(rows(use, delta, owners[use.module]))
    for layer in layers:
        if several := found[layer.module]:
            yield layer, several[0] if len(several) == 1 else torch.cat(several, 1)


def _backward(use: ModuleCall, delta: Tensor, layer: Layer) -> Tensor:
    """Return δ of one use, [b, t, out]."""
    return layer.rule.output_gradients(delta)


def _rotated(rows: Tensor, basis: Tensor, layer: Layer, kind: torch.dtype) -> Tensor:
    """Return rows [b, t, d] in a basis, at many positions in a precision of one's choice."""
    if layer.one_position:
        return rows.to(basis.dtype) @ basis
    return rows.to(kind) @ basis.to(kind)


def _above_rounding(squares: Tensor) -> Tensor:
    """Return squares, those of rounding errors as zeros: their products are a processor's slowest.

    What is less than ε² of the largest is the square of its rounding, far below that of a sum.
    """
    floor = torch.finfo(squares.dtype).eps ** 2 * float(squares.max())
    return functional.threshold(squares, floor, 0.0, inplace=True)


def _seeds(b: int, size: int, weights: Tensor) -> Iterator[Tensor]:
    """Yield columns of diag(√w), [b, ·], so many that a tile holds their gradients."""
    roots = torch.diag(weights.sqrt())
    yield from (roots[:, part] for part in tiles(b, size, _TILE))


def _add_inputs(
    total: Tensor, a: Tensor, counted: Tensor | None, weights: Tensor, sharing: Sharing
) -> None:
    """Add what `add_factors` says to A, for ā [b, t, d] and the positions that count, [b, t]."""
    if counted is None:
        _add_moment(total, a, weights)
        return
    share = counted / counted.sum(1, keepdim=True).clamp_min(1)
    if sharing == "reduce":
        mean = share.to(a.dtype).unsqueeze(1) @ a
        _add_moment(total, mean, weights)
        return
    rows = a.flatten(0, 1).to(total.dtype)
    scale = (share * weights.unsqueeze(1)).to(total.dtype).reshape(-1, 1)
    total.addmm_((rows * scale).T, rows)


def _add_moment(total: Tensor, rows: Tensor, weights: Tensor) -> None:
    """Add Σ_bt w_b r_bt r_btᵀ for rows [b, t, d]; those of a pass in bfloat16 are widened."""
    rows = rows.to(total.dtype)
    weighted = (rows * weights.reshape(-1, 1, 1)).flatten(0, 1)
    total.addmm_(weighted.T, rows.flatten(0, 1))


def _add_squared_products(total: Tensor, left: Tensor, right: Tensor, weights: Tensor) -> None:
    """Add Σ_b w_b (Σ_t left_t right_tᵀ)², [out, in]."""
    left = left * weights.sqrt().reshape(-1, 1, 1).to(left.dtype)
    for part in tiles(len(left), total.numel(), _TILE):
        products = torch.bmm(left[part].mT, right[part]).square_()
        total += products.sum(0, dtype=total.dtype)
