r"""Products of queries with stored rows in bfloat16, and how far they may be from the exact ones.

bfloat16 keeps 8 bits, u = 2⁻⁸, and multiplies twice as fast as float32 where the processor can.
With û the rounded query of norm one, r̂ the rounded row, and float32 sums of at most 2¹⁴ columns,
γ = 2¹⁴ · 2⁻²⁴ (Higham 2002, section 3.1),

|⟨q, r⟩ − fl⟨û, r̂⟩| ≤ ‖q − û‖ ‖r‖ + ‖û‖ ‖r − r̂‖ + γ ‖û‖ ‖r̂‖
                    ≤ (δ + (1 + δ)(u + (1 + u) γ)) ‖r‖,   δ = ‖q − û‖ as measured,

and u |fl⟨û, r̂⟩| more where the sum is rounded again. Numbers under 2⁻¹²⁶ may be flushed to zero,
in squares also: √d 2⁻⁶³ beside ‖r‖ bounds what they add. The terms of second order, the
rounding of ‖r‖, of the factors and of sums over parts are under 2⁻⁶ of the others, which are
taken so much larger. Processors that are not fast at bfloat16 multiply in float32, perhaps rounded
as the user allows; the same bound holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.network.precision import fast_bf16

_U = 2.0**-8
_WIDTH = 2**14
_GAMMA = _WIDTH * 2.0**-24
_FLUSHED = 2.0**-63
_MORE = 1 + 2.0**-6


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
    blocks: Iterable[tuple[int, Screened]], numbers: int
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
        if count >= numbers:
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


@final
@dataclass(frozen=True, eq=False)
class Screen:
    """Queries, ready to be multiplied with rows.

    Args:
        parts: The columns of each product, and which factor belongs to it.
        units: û of each, [columns, q].
        norms: ‖q‖ of each, [parts, q].
        of_queries: A.
        together: Whether a row has one score, the largest over the queries.
    """

    parts: tuple[tuple[slice, int], ...]
    units: tuple[Tensor, ...]
    norms: Tensor
    of_queries: NDArray[np.float64]
    together: bool

    def screened(self, rows: Tensor, factors: Tensor) -> Screened:
        """Return the scores of rows.

        Args:
            rows: [t, d], float32.
            factors: f, [t, parts of the index].
        """
        low = rows.to(self.units[0].dtype)
        scores, of_scores, of_rows = [], [], []
        for (columns, of), unit, norm in zip(self.parts, self.units, self.norms, strict=True):
            factor = factors[:, of]
            product = (unit @ low[:, columns].T).float()
            product.mul_(norm.unsqueeze(1)).mul_(factor.float())
            largest = torch.maximum(product.amax(1), product.amin(1).neg_())
            size = torch.linalg.vector_norm(rows[:, columns], dim=1).double()
            size += math.sqrt(columns.stop - columns.start) * _FLUSHED
            scores.append(product)
            of_scores.append(largest)
            of_rows.append(size * factor.abs())
        every = reduce(torch.add, scores)
        own = _U * _MORE * torch.stack(of_scores).double().sum(0)
        return Screened(
            every.amax(0, keepdim=True) if self.together else every,
            self.of_queries,
            torch.stack(of_rows).cpu().numpy(),
            (own.amax(0, keepdim=True) if self.together else own).cpu().numpy(),
        )


def screen_of(queries: Tensor, parts: Sequence[slice], *, together: bool) -> Screen:
    """Return a screen.

    Args:
        queries: [q, d], float32, on the device that is to multiply.
        parts: The columns that have a factor each.
        together: Whether a row has one score, the largest over the queries.
    """
    device = queries.device
    dtype = torch.bfloat16 if fast_bf16(device) else torch.float32
    cut = tuple(
        (slice(start, min(part.stop, start + _WIDTH)), of)
        for of, part in enumerate(parts)
        for start in range(part.start, part.stop, _WIDTH)
    )
    units, norms, slack = [], [], []
    for columns, _ in cut:
        asked = queries[:, columns].cpu().double()
        norm = asked.norm(dim=1)
        exact = asked / torch.where(norm > 0, norm, 1.0).unsqueeze(1)
        unit = exact.bfloat16()
        rounding = (exact - unit.double()).norm(dim=1)
        units.append(unit.to(device, dtype))
        norms.append(norm)
        slack.append(_MORE * norm * (rounding + _U + _GAMMA))
    of_queries = torch.stack(slack, 1).numpy()
    return Screen(
        parts=cut,
        units=tuple(units),
        norms=torch.stack(norms).to(device, torch.float32),
        of_queries=of_queries.max(0, keepdims=True) if together else of_queries,
        together=together,
    )
