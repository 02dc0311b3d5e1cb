r"""Products of queries with stored rows in low precision, and how far they may be off.

**In bfloat16**, which keeps 8 bits, u = 2⁻⁸, and multiplies twice as fast as float32 where the
processor can. With û the rounded query of norm one, r̂ the rounded row, and float32 sums of at most
2¹⁴ columns, γ = 2¹⁴ · 2⁻²⁴ (Higham 2002, section 3.1),

|⟨q, r⟩ − fl⟨û, r̂⟩| ≤ ‖q − û‖ ‖r‖ + ‖û‖ ‖r − r̂‖ + γ ‖û‖ ‖r̂‖
                    ≤ (δ + (1 + δ)(u + (1 + u) γ)) ‖r‖,   δ = ‖q − û‖ as measured,

and u |fl⟨û, r̂⟩| more where the sum is rounded again. Processors that are not fast at bfloat16
multiply in float32, perhaps rounded as the user allows; the same bound holds. Of rows in float16
the bits are rounded, exponents as they are: r̂ is 2¹¹² smaller, and û is multiplied by that. What
is under 2⁻¹⁴ of a row's largest number may be flushed to zero then: √d 2⁻¹⁴ at most beside u ‖r‖.

**In int8**, where rows are stored so and the processor is fast at it: û = Σ_j s_j v_j of whole
numbers v_j, one of them, or two where δ √d would let too many rows pass. The products with a block
m of a row are sums of whole numbers, exact in int32; they are multiplied by the scale of the block
and added up in float32, M + 6 roundings of 2⁻²⁴ at most, and Σ_m |c_m ⟨û_m, r_m⟩| ≤ ‖û‖ ‖r‖:

|⟨q, r⟩ − fl⟨û, r⟩| ≤ (δ + (1 + δ)(M + 6) 2⁻²⁴) ‖r‖.

Numbers under 2⁻¹²⁶ may be flushed to zero: √d 2⁻⁶³ beside ‖r‖ bounds what that adds. The terms of
second order, the rounding of factors, of sums over parts and of the exact score to float32 are
under 2⁻⁶ of the others in bfloat16, and under (M + 6) 2⁻²⁴ in int8, which are taken so much larger.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.errors import InvalidInput
from whence.index.reading import StoredRows, Tile
from whence.methods.features import places
from whence.network.precision import fast_bf16, fast_int8

_U = 2.0**-8
_WIDTH = 2**14
_GAMMA = _WIDTH * 2.0**-24
_MORE = 1 + 2.0**-6
_INT8 = 127.0
_PASSING = 0.5  # δ √d from which a query has a second term: about e⁴ times k rows would pass
_BLOCK_AT_LEAST = 128  # columns of a block on average, from which a product by itself pays
_LARGEST = 2.0**127


@final
@dataclass(frozen=True, eq=False)
class Screened:
    """Scores of consecutive rows, each within `slack` of the exact one.

    Args:
        scores: [q, t].
        of_queries: A [q, parts].
        of_rows: B [parts, t].
        of_scores: C [q]; the slack of a score is (A B + C)[query, row].
    """

    scores: Tensor
    of_queries: NDArray[np.float64]
    of_rows: NDArray[np.float64]
    of_scores: NDArray[np.float64]

    def slack(self, which: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the slack of some scores, by query and row."""
        found = np.einsum("mp,pm->m", self.of_queries[which], self.of_rows[:, rows])
        return np.asarray(found + self.of_scores[which])

    def most(self) -> NDArray[np.float64]:
        """Return the largest slack of each query, [q]."""
        return np.asarray(self.of_queries @ self.of_rows.max(1) + self.of_scores)


def gathered(
    blocks: Iterable[tuple[int, Screened]], numbers: Callable[[], int]
) -> Iterator[tuple[int, Screened]]:
    """Yield scores of consecutive rows many at a time: to compare few costs as much as many.

    Args:
        blocks: The position of the first row, and the scores, of one block after the other.
        numbers: From how many scores on they are yielded.
    """
    first, held, count = 0, list[Screened](), 0
    for at, block in blocks:
        first = first if held else at
        held.append(block)
        count += block.scores.numel()
        if count >= numbers():
            yield first, _joined(held)
            held, count = [], 0
    if held:
        yield first, _joined(held)


def _joined(blocks: Sequence[Screened]) -> Screened:
    """Return the scores of one block after the other."""
    if len(blocks) == 1:
        return blocks[0]
    return Screened(
        torch.cat([block.scores for block in blocks], 1),
        blocks[0].of_queries,
        np.concatenate([block.of_rows for block in blocks], 1),
        np.max([block.of_scores for block in blocks], axis=0),
    )


class Screen(ABC):
    """Queries, ready to be multiplied with rows.

    Attributes:
        stored: The rows.
        norms: ‖q‖ of each part, float64 [parts, q].
        of_queries: A, [q, parts].
        together: Whether a row has one score, the largest over the queries.
    """

    stored: StoredRows
    norms: Tensor
    of_queries: NDArray[np.float64]
    together: bool

    @abstractmethod
    def room(self, rows: int) -> tuple[Tensor, ...]:
        """Return memory in which so many rows are decoded; each thread has its own."""

    @abstractmethod
    def products(self, tile: Tile, room: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the scores of rows, float32 [q, t], and the C of each, [q]."""

    @final
    def screened(self, tile: Tile, room: tuple[Tensor, ...]) -> Screened:
        """Return the scores of rows.

        Args:
            tile: The rows.
            room: As `room` gave it.

        Raises:
            InvalidInput: If float32 may not hold a score.
        """
        largest = float(self.norms.amax(1).numpy() @ tile.sizes.max(1))
        if not largest < _LARGEST:
            raise InvalidInput(
                "Expected scores that float32 can hold. Got queries and rows whose norms have a "
                f"product of {largest:.1e}. Scale the loss down."
            )
        scores, own = self.products(tile, room)
        return Screened(
            scores.amax(0, keepdim=True) if self.together else scores,
            self.of_queries,
            tile.sizes,
            (own.amax(0, keepdim=True) if self.together else own).double().cpu().numpy(),
        )


@final
@dataclass(frozen=True, eq=False)
class Decoded(Screen):
    """Rows are decoded, and multiplied in bfloat16 or float32.

    Args:
        stored: See `Screen`.
        norms: See `Screen`.
        of_queries: See `Screen`.
        together: See `Screen`.
        products_of: The columns of each product, its part, û [q, columns], and ‖q‖ of the part.
    """

    stored: StoredRows
    norms: Tensor
    of_queries: NDArray[np.float64]
    together: bool
    products_of: tuple[tuple[slice, int, Tensor, Tensor], ...]

    def room(self, rows: int) -> tuple[Tensor, ...]:
        """Return room in the precision of the products."""
        return (self.products_of[0][2].new_empty(rows, self.stored.parts[-1].stop),)

    def products(self, tile: Tile, room: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the scores, and what rounding each of them may add."""
        (out,) = room
        low = out.dtype == torch.bfloat16
        rows = self.stored.rounded(tile, out) if low else self.stored.decoded(tile, out)
        factors, scores, own = tile.factors.float(), [], []
        for columns, part, unit, norm in self.products_of:
            product = (unit @ rows[:, columns].T).float()
            product.mul_(norm.unsqueeze(1)).mul_(factors[:, part])
            own.append(torch.maximum(product.amax(1), product.amin(1).neg_()))
            scores.append(product)
        return reduce(torch.add, scores), _U * _MORE * reduce(torch.add, own)


@final
@dataclass(frozen=True, eq=False)
class Codes(Screen):
    """Rows are multiplied as the int8 that they are.

    Args:
        stored: See `Screen`.
        norms: See `Screen`.
        of_queries: See `Screen`.
        together: See `Screen`.
        terms: Of each part.
    """

    stored: StoredRows
    norms: Tensor
    of_queries: NDArray[np.float64]
    together: bool
    terms: tuple[_Terms, ...]

    def room(self, rows: int) -> tuple[Tensor, ...]:
        """Return room for the products of a block with all terms, in int32 and in float32."""
        most = rows * max(len(terms.steps) for terms in self.terms)
        return torch.empty(most, dtype=torch.int32), torch.empty(most)

    def products(self, tile: Tile, room: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the scores; what rounding adds is in A."""
        found = self.stored.codes(tile)
        if found is None:
            raise AssertionError("rows are not stored as int8")
        codes, scales = found[0], found[1].T.contiguous()
        scores = [terms.products(codes, scales, room) for terms in self.terms]
        factors = tile.factors.float().unbind(1)
        every = reduce(torch.add, (x.mul_(f) for x, f in zip(scores, factors, strict=True)))
        return every, every.new_zeros(len(every))


@final
@dataclass(frozen=True, eq=False)
class _Terms:
    """Queries of a part as whole numbers: q ≈ Σ_j steps_j v_j.

    Args:
        blocks: The columns of each block, and which scale belongs to it.
        numbers: v, int8 [terms, size of the block] of each block: the first of all queries, and
            then the second of those that have one.
        steps: Of each of the terms, float32 [terms, 1].
        second: Which queries have a second.
    """

    blocks: tuple[tuple[slice, int], ...]
    numbers: tuple[Tensor, ...]
    steps: Tensor
    second: Tensor

    def products(self, codes: Tensor, scales: Tensor, room: tuple[Tensor, ...]) -> Tensor:
        """Return products with rows, float32 [q, t].

        Args:
            codes: The rows, int8 [t, d].
            scales: Of each block of each row, [M, t].
            room: For products in int32 and float32.
        """
        size = len(self.steps), len(codes)
        whole, product = (part[: math.prod(size)].view(size) for part in room)
        total = torch.zeros(size)
        for (columns, of), numbers in zip(self.blocks, self.numbers, strict=True):
            torch._int_mm(numbers, codes[:, columns].T, out=whole)
            total.addcmul_(product.copy_(whole), scales[of])
        total.mul_(self.steps)
        q = len(total) - len(self.second)
        return total[:q].index_add_(0, self.second, total[q:]) if len(self.second) else total


def screen_of(
    queries: Tensor, stored: StoredRows, device: torch.device, *, together: bool
) -> Screen:
    """Return the screen that is fastest.

    Args:
        queries: [q, d], float64.
        stored: The rows.
        device: What is to multiply.
        together: Whether a row has one score, the largest over the queries.
    """
    d, blocks = queries.shape[1], len(stored.manifest.blocks)
    whole = stored.manifest.encoding == "int8" and d >= _BLOCK_AT_LEAST * blocks
    if whole and fast_int8(device):
        return _codes(queries, stored, together)
    return _decoded(queries, stored, device, together)


def _decoded(queries: Tensor, stored: StoredRows, device: torch.device, together: bool) -> Decoded:
    """Return a screen of decoded rows."""
    dtype = torch.bfloat16 if fast_bf16(device) else torch.float32
    products, norms, slack = [], [], []
    shift = 2.0 ** (stored.shift if dtype == torch.bfloat16 else 0)
    for of, part in enumerate(stored.parts):
        errors = []
        for start in range(part.start, part.stop, _WIDTH):
            columns = slice(start, min(part.stop, start + _WIDTH))
            unit, norm = _unit(queries[:, columns])
            low = unit.bfloat16()
            rounding = (unit - low.double()).norm(dim=1)
            errors.append(norm * (rounding + _U + _GAMMA))
            shifted = (low * shift).to(device, dtype)
            products.append((columns, of, shifted, norm.to(device, torch.float32)))
        norms.append(queries[:, part].norm(dim=1))
        slack.append(_MORE * torch.stack(errors).norm(dim=0))
    return Decoded(
        stored=stored,
        norms=torch.stack(norms),
        of_queries=_of_queries(slack, together),
        together=together,
        products_of=tuple(products),
    )


def _codes(queries: Tensor, stored: StoredRows, together: bool) -> Codes:
    """Return a screen of int8."""
    number, norms, slack, terms = 0, [], [], []
    for part, columns in zip(stored.parts, stored.manifest.columns, strict=True):
        unit, norm = _unit(queries[:, part])
        size = norm.unsqueeze(1)
        step, first = _whole(unit)
        left = unit - step * first
        second = (left.norm(dim=1) * math.sqrt(unit.shape[1]) > _PASSING).nonzero().squeeze(1)
        finer, rest = _whole(left[second])
        left[second] -= finer * rest
        whole = torch.cat([first, rest]).to(torch.int8)
        within = places([block.size for block in columns])
        blocks = [slice(part.start + at.start, part.start + at.stop) for at in within]
        terms.append(
            _Terms(
                blocks=tuple((at, number + place) for place, at in enumerate(blocks)),
                numbers=tuple(whole[:, at].contiguous() for at in within),
                steps=torch.cat([step * size, finer * size[second]]).float(),
                second=second,
            )
        )
        number += len(columns)
        norms.append(norm)
        slack.append(norm * (left.norm(dim=1) * _MORE + (len(columns) + 6) * 2.0**-22))
    return Codes(
        stored=stored,
        norms=torch.stack(norms),
        of_queries=_of_queries(slack, together),
        together=together,
        terms=tuple(terms),
    )


def _unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows over their norms, and the norms."""
    norm = rows.norm(dim=1)
    return rows / torch.where(norm > 0, norm, 1.0).unsqueeze(1), norm


def _whole(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return steps [q, 1] and whole numbers up to 127 with rows ≈ steps · numbers."""
    steps = rows.abs().amax(1, keepdim=True) / _INT8
    return steps, (rows / torch.where(steps > 0, steps, 1.0)).round()


def _of_queries(slack: Sequence[Tensor], together: bool) -> NDArray[np.float64]:
    """Return A of the slack of each part."""
    found = torch.stack(list(slack), 1).numpy()
    return found.max(0, keepdims=True) if together else found
