"""The files of a bank: one manifest, and one file for each member.

```
directory/
├── manifest.json                      what the bank is of: fingerprint, n, fraction, seed
└── members/00012-3.npz                outcomes of subset 12 trained with seed 3
```

Each file is written whole or not at all: to a temporary name, flushed, renamed. A member carries
the digest of its bank, and its archive the checksum of its numbers, so neither a stray nor a
damaged file is believed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias, final

import numpy as np

from whence.errors import CorruptFile, InvalidInput
from whence.evaluation.arrays import Bool, Float

_FORMAT = 1
_TEMPORARY = ".tmp"

# All that numpy and zipfile raise on an archive with a byte cut off or changed.
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile)

Member: TypeAlias = tuple[int, int]  # subset, seed of the training


@final
@dataclass(frozen=True, kw_only=True)
class Identity:
    """What must agree for two runs to fill one bank; how many members it has may grow."""

    fingerprint: str
    n: int
    fraction: float
    seed: int

    def digest(self) -> str:
        """Return a hash that ties a member to its bank."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def mask(self, subset: int) -> Bool:
        """Return which examples a subset keeps, [n]; subset j is the same in a bank of any size."""
        # Raw bits and a stable sort, since numpy keeps those the same from version to version.
        bits = np.random.PCG64(np.random.SeedSequence([self.seed, subset])).random_raw(self.n)
        kept = np.zeros(self.n, dtype=np.bool_)
        kept[np.argsort(bits, kind="stable")[: round(self.fraction * self.n)]] = True
        return kept


def enter(root: Path, identity: Identity, subsets: int, seeds: tuple[int, ...]) -> None:
    """Make the bank's directory, or make sure that it is this bank's."""
    path = root / "manifest.json"
    known_subsets, known_seeds = 0, tuple[int, ...]()
    if path.exists():
        found, known_subsets, known_seeds = read_manifest(path)
        refuse_other(root, found, asdict(identity))
    (root / "members").mkdir(parents=True, exist_ok=True)
    # Named in full, because the directory may hold other people's temporary files.
    for pattern in (f"manifest.json.*{_TEMPORARY}", f"members/*.npz.*{_TEMPORARY}"):
        for leftover in root.glob(pattern):
            leftover.unlink(missing_ok=True)
    size = max(subsets, known_subsets), tuple(dict.fromkeys([*known_seeds, *seeds]))
    if size != (known_subsets, known_seeds):
        manifest = {"format": _FORMAT, **asdict(identity), "subsets": size[0], "seeds": size[1]}
        _write(path, json.dumps(manifest, indent=2).encode())


def refuse_other(root: Path, found: Identity, expected: dict[str, object]) -> None:
    """Raise if a bank on disk is not the one expected."""
    differing = [key for key, value in expected.items() if getattr(found, key) != value]
    if differing:
        wanted = ", ".join(f"{key} {expected[key]!r}" for key in differing)
        there = ", ".join(f"{key} {getattr(found, key)!r}" for key in differing)
        raise InvalidInput(
            f"Expected the bank in {root} to have {wanted}. Got {there}: it was made from other "
            "data or settings; choose another directory."
        )


def read_manifest(path: Path) -> tuple[Identity, int, tuple[int, ...]]:
    """Return whose bank it is, with the number of subsets and the seeds asked for so far."""
    try:
        manifest = json.loads(path.read_bytes())
        version = manifest["format"]
        if version == _FORMAT:
            identity = Identity(
                fingerprint=str(manifest["fingerprint"]),
                n=int(manifest["n"]),
                fraction=float(manifest["fraction"]),
                seed=int(manifest["seed"]),
            )
            return identity, int(manifest["subsets"]), tuple(int(i) for i in manifest["seeds"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(
            f"Expected a manifest of a bank in {path}. Got a file that is cut short or is "
            "something else; delete the directory, or choose another."
        ) from error
    raise InvalidInput(f"Expected a bank of format {_FORMAT} in {path}. Got format {version!r}.")


def _path(root: Path, member: Member) -> Path:
    """Return where a member lies."""
    subset, seed = member
    return root / "members" / f"{subset:05d}-{seed}.npz"


def read_members(
    root: Path, identity: Identity, members: list[Member]
) -> tuple[dict[Member, Float], list[str]]:
    """Return the outcomes of the members on disk, and the names of those that cannot be read."""
    done: dict[Member, Float] = {}
    damaged: list[str] = []
    for member in members:
        path = _path(root, member)
        if not path.exists():
            continue
        content = io.BytesIO(path.read_bytes())
        try:
            # Opening the archive checks its table, reading an array its checksum.
            with np.load(content, allow_pickle=False) as archive:
                outcomes, bank = archive["outcomes"], str(archive["bank"])
        except _UNREADABLE:
            damaged.append(path.name)
            continue
        if bank == identity.digest() and outcomes.ndim == 1:
            done[member] = outcomes
        else:
            damaged.append(path.name)
    return done, damaged


def write_member(root: Path, identity: Identity, member: Member, outcomes: Float) -> None:
    """Put the outcomes [q] of a member on disk, whole or not at all."""
    content = io.BytesIO()
    np.savez(content, outcomes=outcomes, bank=np.array(identity.digest()))
    _write(_path(root, member), content.getvalue())


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
