r"""How rows of float32 numbers are stored, and what of them comes back.

| name | a row of d numbers in M blocks takes | error of a number |
|---|---|---|
| float32 | 4 d bytes | none |
| float16 | 2 d + 4 | 2⁻¹¹ of it, or 2⁻²⁵ of the largest of the row |
| int8 | d + 4 M | 1/254 of the largest of the block |
| rank-c | 2 c Σ (r + r′) + 2 · the rest + 4 | what the c largest singular values leave |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import final

import torch
from torch import Tensor

from whence.errors import InvalidInput
from whence.methods.features import Block, places

_STEPS = 4  # of the iteration that finds singular vectors: beyond them the error no longer falls
_INT8 = 127.0


class Encoding(ABC):
    """A way to store rows; frozen."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in the manifest."""

    @abstractmethod
    def encode(self, rows: Tensor, blocks: Sequence[Block]) -> dict[str, Tensor]:
        """Return rows [b, d] as tensors of b rows each."""

    @abstractmethod
    def decode(
        self, tensors: Mapping[str, Tensor], part: slice, blocks: Sequence[Block], out: Tensor
    ) -> None:
        """Write rows of a shard into `out` [t, d], but for `scales`."""

    @property
    def shift(self) -> int:
        """The power of two by which `round` divides."""
        return 0

    @property
    def flushed(self) -> float:
        """Beside ‖row‖ for each √d: more than numbers can add that are flushed to zero."""
        return 2.0**-63  # those under 2⁻¹²⁶

    def round(self, tensors: Mapping[str, Tensor], blocks: Sequence[Block], out: Tensor) -> Tensor:
        """Return rows over 2^shift, but for `scales`, in bfloat16, [t, d].

        They are in `out`, or in the place of the rows that are stored.
        """
        self.decode(tensors, slice(0, len(out)), blocks, out)
        return out

    def scales(self, tensors: Mapping[str, Tensor], part: slice) -> Tensor | None:
        """Return what each decoded row is still to be multiplied by, [t], or `None`."""
        return None

    def codes(self, tensors: Mapping[str, Tensor], part: slice) -> tuple[Tensor, Tensor] | None:
        """Return int8 rows [t, d] and the scales of blocks [t, M], where they are stored so."""
        return None

    @final
    def rows(self, tensors: Mapping[str, Tensor], part: slice, blocks: Sequence[Block]) -> Tensor:
        """Return rows of a shard as they are stored, [t, d]."""
        some = next(iter(tensors.values()))[part]
        found = torch.empty(len(some), sum(block.size for block in blocks))
        self.decode(tensors, part, blocks, found)
        scales = self.scales(tensors, part)
        return found if scales is None else found * scales.unsqueeze(1)


@final
@dataclass(frozen=True)
class Float32(Encoding):
    """Rows as they are."""

    @property
    def name(self) -> str:
        """The name."""
        return "float32"

    def encode(self, rows: Tensor, blocks: Sequence[Block]) -> dict[str, Tensor]:
        """Return the rows."""
        return {"rows": rows}

    def decode(
        self, tensors: Mapping[str, Tensor], part: slice, blocks: Sequence[Block], out: Tensor
    ) -> None:
        """Copy the rows."""
        out.copy_(tensors["rows"][part])


@final
@dataclass(frozen=True)
class Float16(Encoding):
    """Rows over their largest number, in half precision: small gradients would vanish in it."""

    @property
    def name(self) -> str:
        """The name."""
        return "float16"

    def encode(self, rows: Tensor, blocks: Sequence[Block]) -> dict[str, Tensor]:
        """Return numbers up to 1, and what they are multiplied by."""
        scales = _largest(rows)
        return {"rows": (rows / _divisor(scales)).half(), "scales": scales.squeeze(1)}

    def decode(
        self, tensors: Mapping[str, Tensor], part: slice, blocks: Sequence[Block], out: Tensor
    ) -> None:
        """Convert the numbers."""
        out.copy_(tensors["rows"][part])

    @property
    def shift(self) -> int:
        """112: exponents are kept, of which 15 means one in float16 and 127 in bfloat16."""
        return 112

    @property
    def flushed(self) -> float:
        """What is under 2⁻¹⁴ has no exponent; beside 2⁻⁸ ‖row‖, which it adds to."""
        return 2.0 ** (8 - 14)

    def round(self, tensors: Mapping[str, Tensor], blocks: Sequence[Block], out: Tensor) -> Tensor:
        """Round the last three bits of each number away, in its place: it is in a cache."""
        bits = tensors["rows"].view(torch.int16)
        bits.add_(4).bitwise_right_shift_(3).bitwise_and_(~0x7000)  # the sign is the first again
        return bits.view(torch.bfloat16)

    def scales(self, tensors: Mapping[str, Tensor], part: slice) -> Tensor:
        """Return the largest number of each row."""
        return tensors["scales"][part]


@final
@dataclass(frozen=True)
class Int8(Encoding):
    """Whole numbers from −127 to 127, with a scale per row and block."""

    @property
    def name(self) -> str:
        """The name."""
        return "int8"

    def encode(self, rows: Tensor, blocks: Sequence[Block]) -> dict[str, Tensor]:
        """Return whole numbers, and what they are multiplied by, [b, M]."""
        codes, scales = torch.empty(rows.shape, dtype=torch.int8), []
        for where in places([block.size for block in blocks]):
            largest = _largest(rows[:, where]) / _INT8
            codes[:, where] = (rows[:, where] / _divisor(largest)).round().to(torch.int8)
            scales.append(largest)
        return {"rows": codes, "scales": torch.cat(scales, 1)}

    def codes(self, tensors: Mapping[str, Tensor], part: slice) -> tuple[Tensor, Tensor]:
        """Return the whole numbers and their scales."""
        return tensors["rows"][part], tensors["scales"][part]

    def decode(
        self, tensors: Mapping[str, Tensor], part: slice, blocks: Sequence[Block], out: Tensor
    ) -> None:
        """Multiply the whole numbers by their scales, blocks of one size at once."""
        scales = tensors["scales"][part]
        out.copy_(tensors["rows"][part])  # and then multiplied: four times as fast as both at once
        for first, count, start, block in _runs(blocks):
            columns = out[:, start : start + count * block.size].view(-1, count, block.size)
            columns.mul_(scales[:, first : first + count].unsqueeze(2))


@final
@dataclass(frozen=True)
class Factors(Encoding):
    """Blocks that are matrices as U Vᵀ of a rank; the others in half precision.

    Args:
        rank: c, the number of columns of U and V.
    """

    rank: int

    @property
    def name(self) -> str:
        """The name."""
        return f"rank-{self.rank}"

    def encode(self, rows: Tensor, blocks: Sequence[Block]) -> dict[str, Tensor]:
        """Return U, V and the other blocks, of rows over their largest number."""
        scales = _largest(rows)
        rows = rows / _divisor(scales)
        left, right, rest = [], [], [rows[:, :0]]
        for first, count, start, block in _runs(blocks):
            del first
            part = rows[:, start : start + count * block.size]
            if not self._factors(block):
                rest.append(part)
                continue
            u, v = _leading(part.reshape(len(part), count, *block.shape), self.rank)
            left.append(u.flatten(1))
            right.append(v.flatten(1))
        if not left:
            raise InvalidInput(
                f"Expected features of layers that are larger than rank {self.rank}. Got none. "
                'Use projection="factored" on a torch module, a lower rank, or rows="int8".'
            )
        found = {
            "left": torch.cat(left, 1),
            "right": torch.cat(right, 1),
            "rest": torch.cat(rest, 1),
        }
        halves = {name: part.half() for name, part in found.items() if part.shape[1]}
        return {**halves, "scales": scales.squeeze(1)}

    def decode(
        self, tensors: Mapping[str, Tensor], part: slice, blocks: Sequence[Block], out: Tensor
    ) -> None:
        """Multiply the factors."""
        u, v, x = 0, 0, 0
        for _, count, start, block in _runs(blocks):
            target = out[:, start : start + count * block.size]
            if not self._factors(block):
                target.copy_(tensors["rest"][part, x : x + target.shape[1]])
                x += target.shape[1]
                continue
            r, s = (count * self.rank * side for side in block.shape)
            left = tensors["left"][part, u : u + r].float().reshape(-1, self.rank, block.shape[0])
            right = tensors["right"][part, v : v + s].float().reshape(-1, self.rank, block.shape[1])
            target.copy_(torch.bmm(left.mT, right).reshape(len(target), -1))
            u, v = u + r, v + s

    def scales(self, tensors: Mapping[str, Tensor], part: slice) -> Tensor:
        """Return the largest number of each row."""
        return tensors["scales"][part]

    def _factors(self, block: Block) -> bool:
        """Return whether a block takes less room as factors."""
        return len(block.shape) == 2 and self.rank * sum(block.shape) < block.size


def encoding_of(name: str) -> Encoding:
    """Return the encoding of a name.

    Args:
        name: "float32", "float16", "int8", or "rank-1", "rank-2", ….

    Raises:
        InvalidInput: If there is none.
    """
    for each in (Float32(), Float16(), Int8()):
        if each.name == name:
            return each
    kind, _, rank = str(name).partition("-")
    if kind == "rank" and rank.isdecimal() and int(rank) >= 1:
        return Factors(int(rank))
    raise InvalidInput(
        f"Expected rows 'float32', 'float16', 'int8', or 'rank-1', 'rank-2', .... Got {name!r}."
    )


def _runs(blocks: Sequence[Block]) -> Iterator[tuple[int, int, int, Block]]:
    """Yield runs of blocks of one shape: the first, how many, their first column, one of them."""
    first, start = 0, 0
    for _, alike in groupby(blocks, key=lambda block: block.shape):
        run = list(alike)
        yield first, len(run), start, run[0]
        first, start = first + len(run), start + len(run) * run[0].size


def _largest(rows: Tensor) -> Tensor:
    """Return the largest absolute number of each row, [b, 1]."""
    return rows.abs().amax(1, keepdim=True)


def _divisor(scales: Tensor) -> Tensor:
    """Return scales that can be divided by: rows of zeros stay zero."""
    return torch.where(scales > 0, scales, 1.0)


def _leading(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return U [..., c, r] and V [..., c, r′] with Uᵀ V the best approximation of that rank.

    A batch of small matrices: the iteration of a subspace needs products alone.
    """
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(matrices.shape[-1], rank, generator=generator).to(matrices)
    right = v.expand(*matrices.shape[:-2], *v.shape)
    for _ in range(_STEPS):
        left = _orthonormal(matrices @ right)
        right = matrices.mT @ left
    return left.mT, right.mT


def _orthonormal(columns: Tensor) -> Tensor:
    """Return an orthonormal basis of the columns [..., r, c], zeros where they are dependent."""
    found: list[Tensor] = []
    for column in columns.unbind(-1):
        for _ in range(2):  # twice is enough
            for other in found:
                column = column - (column * other).sum(-1, keepdim=True) * other
        size = column.norm(dim=-1, keepdim=True)
        found.append(column / _divisor(size))
    return torch.stack(found, -1)
