r"""Random projections of gradients: of the two factors of each layer's gradients, or whole.

Layers multiply, so their gradients Σ_t δ_t a_tᵀ can be projected before the product:
(P_out δ_t)(P_in a_t)ᵀ; no gradient of an example is then ever formed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.methods.features import Block
from whence.network.gradients import Contribution
from whence.network.objective import ModuleObjective
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.trained import Examples
from whence.tiles import tiles

_GRADIENTS = 64  # of them at once
_BUDGET = 2**27  # numbers of a dense projection in memory at once: 512 MB of float32


@final
@dataclass(frozen=True, eq=False)
class Whole:
    """A dense projection: random signs over √d, drawn column by column, in blocks that fit.

    Args:
        objective: R at θ̂.
        size: d; gradients of at most d numbers are left as they are.
        seed: Of the signs.
    """

    objective: Objective
    size: int
    seed: int

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The one block of all columns."""
        return (Block("", (min(self.size, len(self.objective.params)),)),)

    def __call__(self, examples: Examples, measure: Measure) -> Tensor:
        """Return the projected gradients, [b, d]."""
        blocks = _columns(self.objective.params, self.size, self.seed)
        return torch.cat([self.objective.gradient_dot(examples, measure, V) for V in blocks], 1)

    def of_columns(self, V: Tensor) -> Tensor:
        """Return projected vectors [p, q] of parameters, [q, d]."""
        blocks = _columns(self.objective.params, self.size, self.seed)
        return torch.cat([V.T @ block for block in blocks], 1)

    def back(self, rows: Tensor) -> Tensor:
        """Return Pᵀ of rows [q, d], as vectors of parameters, [p, q]."""
        params, done = self.objective.params, 0
        found = params.new_zeros(len(params), len(rows))
        for block in _columns(params, self.size, self.seed):
            found += block @ rows[:, done : done + block.shape[1]].T
            done += block.shape[1]
        return found


@final
@dataclass(frozen=True, eq=False)
class Unprojected:
    """Gradients as they are, of models with few parameters.

    Args:
        objective: R at θ̂.
    """

    objective: Objective

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The one block of all parameters."""
        return (Block("", (len(self.objective.params),)),)

    def __call__(self, examples: Examples, measure: Measure) -> Tensor:
        """Return the gradients, [b, p]."""
        return torch.cat(
            [
                self.objective.gradient_columns(
                    examples.subset(np.arange(len(examples))[part]), measure
                ).T
                for part in tiles(len(examples), budget=_GRADIENTS)
            ]
        )

    def of_columns(self, V: Tensor) -> Tensor:
        """Return vectors [p, q] of parameters, [q, p]."""
        return V.T

    def back(self, rows: Tensor) -> Tensor:
        """Return rows [q, p] as vectors of parameters, [p, q]."""
        return rows.T


@final
@dataclass(frozen=True, eq=False)
class Factored:
    """A projection of each side of what multiplies, and one of all the rest together.

    Args:
        objective: R of a module.
        sides: By the place of a weight, its two projections [m, r] and [d, r′].
        rest: By the place of another parameter, its rows of the dense projection, [·, k].
    """

    objective: ModuleObjective
    sides: dict[int, tuple[Tensor, Tensor]]
    rest: dict[int, Tensor]

    @property
    def blocks(self) -> tuple[Block, ...]:
        """A block for all the rest, and a matrix for each weight."""
        names = {where.start: name for name, where in self.objective.slices.items()}
        first = [Block("the rest", (rows.shape[1],)) for rows in [*self.rest.values()][:1]]
        return (
            *first,
            *(
                Block(names[place], (left.shape[1], right.shape[1]))
                for place, (left, right) in sorted(self.sides.items())
            ),
        )

    def __call__(self, examples: Examples, measure: Measure) -> Tensor:
        """Return the projected gradients, [b, d]."""
        batches = self.objective.pieces(examples, measure)
        return torch.cat([self._batch(batch) for batch in batches])

    def of_columns(self, V: Tensor) -> Tensor:
        """Return projected vectors [p, q] of parameters, [q, d]."""
        rest = [V[place : place + len(rows)].T @ rows for place, rows in self.rest.items()]
        found = [torch.stack(rest).sum(0)] if rest else []
        for place, (left, right) in sorted(self.sides.items()):
            m, d = len(left), len(right)
            matrices = V[place : place + m * d].T.reshape(-1, m, d)
            found.append((left.T @ matrices @ right).flatten(1))
        return torch.cat(found, 1)

    def back(self, rows: Tensor) -> Tensor:
        """Return Pᵀ of rows [q, d], as vectors of parameters, [p, q]."""
        params = self.objective.params
        found = params.new_zeros(len(params), len(rows))
        k = next((each.shape[1] for each in self.rest.values()), 0)
        for place, each in self.rest.items():
            found[place : place + len(each)] = each @ rows[:, :k].T
        for place, (left, right) in sorted(self.sides.items()):
            r, s = left.shape[1], right.shape[1]
            matrices = left @ rows[:, k : k + r * s].reshape(-1, r, s) @ right.T
            found[place : place + len(left) * len(right)] = matrices.flatten(1).T
            k += r * s
        return found

    def _batch(self, pieces: list[tuple[slice, Contribution]]) -> Tensor:
        """Return the projected gradients of a micro-batch."""
        found: dict[int, Tensor] = {}
        for where, piece in pieces:
            # All the rest adds up in one place, before every weight's.
            if where.start in self.rest:
                place, part = -1, piece.dot(self.rest[where.start])
            else:
                weight = piece.two_sided()
                assert weight is not None  # as for the example that made the sides
                place, part = where.start, weight.between(*self.sides[where.start])
            found[place] = found[place] + part if place in found else part
        return torch.cat([found[place] for place in sorted(found)], 1)


@singledispatch
def layerwise(objective: Objective, size: int, seed: int) -> Whole | Factored:
    """Return the projection for the layers of a module, as its first example shows them.

    A model without layers has its whole gradient projected, to as many numbers.

    Args:
        objective: R at θ̂.
        size: Numbers per side, >= 1.
        seed: Of the projection.

    Returns:
        The projection.
    """
    return Whole(objective, size**2, seed)


@layerwise.register
def _(objective: ModuleObjective, size: int, seed: int) -> Whole | Factored:
    first = objective.train.subset(np.arange(1))
    like = objective.params
    sides: dict[int, tuple[Tensor, Tensor]] = {}
    others: dict[int, slice] = {}
    for where, piece in next(objective.pieces(first, objective.loss)):
        weight = piece.two_sided()
        if weight is None:
            others[where.start] = where
        elif where.start not in sides:
            # Each weight from a seed of its own, the same in whatever company.
            generator = torch.Generator().manual_seed(_mixed(seed, where.start))
            left, right = (_orthogonal(length, size, generator).to(like) for length in weight.sides)
            sides[where.start] = left, right
    count = sum(where.stop - where.start for where in others.values())
    if count == 0:
        return Factored(objective, sides, {})
    # No more dimensions than fit the budget as one block.
    whole = min(size**2, max(1, _BUDGET // count))
    rows = torch.cat(list(_columns(like[:count], whole, seed)), 1)
    rest = {}
    for where in others.values():
        length = where.stop - where.start
        rest[where.start], rows = rows[:length], rows[length:]
    return Factored(objective, sides, rest)


def _orthogonal(length: int, size: int, generator: torch.Generator) -> Tensor:
    """Return U [length, r], r = min(size, length), with E U Uᵀ = I: orthogonal columns, scaled."""
    r = min(size, length)
    normal = torch.randn(length, r, dtype=torch.float64, generator=generator)
    basis: Tensor = torch.linalg.qr(normal).Q
    return basis * math.sqrt(length / r)


def _columns(like: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    """Yield the columns of a dense projection of len(like) numbers to `size`, in blocks."""
    p = len(like)
    if p <= size:
        yield torch.eye(p, dtype=like.dtype, device=like.device)
        return
    generator = torch.Generator().manual_seed(seed)
    for part in tiles(size, p, _BUDGET):
        shape = part.stop - part.start, p
        signs = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8)
        yield signs.to(like).mul_(2).sub_(1).div_(size**0.5).T


def _mixed(*numbers: int) -> int:
    """Return one seed made of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
