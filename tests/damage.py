"""What happens to files: flipped bits, cuts and additions, one at a time, undone afterwards."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from whence.errors import CorruptFile


def assert_noticed(
    path: Path,
    read: Callable[[], object],
    flips: int | Iterable[int] | None = None,
    cuts: Iterable[int] | None = None,
) -> None:
    """Damage a file; each time, reading it raises `CorruptFile` with the name of the file.

    Args:
        path: The file; it is whole again in the end.
        read: Reads it as a user does.
        flips: Which bits to flip one at a time, or how many random ones; all by default.
        cuts: The lengths to cut it to; all by default.
    """
    whole = path.read_bytes()
    if flips is None or isinstance(flips, int):
        every = range(8 * len(whole))
        flips = every if flips is None else random.Random(0).sample(every, flips)
    believed = []
    for damage in _damages(path, whole, flips, range(len(whole)) if cuts is None else cuts):
        try:
            read()
        except CorruptFile as error:
            named = path.name in str(error)
        else:
            named = False
        if not named:
            believed.append(damage)
    assert path.read_bytes() == whole
    assert believed == []


def _damages(path: Path, whole: bytes, flips: Iterable[int], cuts: Iterable[int]) -> Iterator[str]:
    """Yield the name of each damage while the file has it."""
    # In place: a file system may put a file on the disk each time that it is written anew.
    with path.open("r+b", buffering=0) as file:

        def put(at: int, content: bytes) -> None:
            file.seek(at)
            file.write(content)

        for bit in flips:
            at = bit // 8
            put(at, bytes([whole[at] ^ 1 << bit % 8]))
            yield f"bit {bit}"
            put(at, whole[at : at + 1])
        for more in (b"\0", whole):
            put(len(whole), more)
            yield f"{len(more)} bytes more"
            file.truncate(len(whole))
        for length in sorted(cuts, reverse=True):
            file.truncate(length)
            yield f"cut to {length} bytes"
        put(0, whole)
