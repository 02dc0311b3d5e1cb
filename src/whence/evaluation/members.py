"""The files of an ensemble: one manifest, and one file for each member.

```
directory/
├── manifest.json                      what the ensemble is of: fingerprint, n, fraction, seed
└── members/00012-3.npz                outcomes of subset 12 trained with seed 3
```

A member carries the digest of its ensemble and its place in it; see `whence.storage` for the files.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias, final

import numpy as np

from whence.checked import Bool, Float
from whence.errors import CorruptFile, InvalidInput
from whence.storage import (
    digest,
    make_folder,
    read_arrays,
    read_manifest,
    write_arrays,
    write_manifest,
)

_KIND = "retraining ensemble"

Member: TypeAlias = tuple[int, int]  # subset, seed of the training
Size: TypeAlias = tuple[int, tuple[int, ...]]  # number of subsets, seeds


@final
@dataclass(frozen=True, kw_only=True)
class Identity:
    """What must agree for two runs to fill one ensemble; how many members it has may grow."""

    fingerprint: str
    n: int
    fraction: float
    seed: int

    def owner(self, member: Member) -> str:
        """Return what ties a file to its ensemble and to its place in it."""
        subset, seed = member
        ensemble = digest(json.dumps(asdict(self), sort_keys=True))
        return f"subset {subset}, seed {seed} of the {_KIND} {ensemble}"

    def mask(self, subset: int) -> Bool:
        """Return which examples subset j keeps, [n]: the same in ensembles of any size."""
        # Raw bits and a stable sort, since numpy keeps those the same from version to version.
        bits = np.random.PCG64(np.random.SeedSequence([self.seed, subset])).random_raw(self.n)
        kept = np.zeros(self.n, dtype=np.bool_)
        kept[np.argsort(bits, kind="stable")[: round(self.fraction * self.n)]] = True
        return kept


def known(root: Path, identity: Identity) -> Size:
    """Return the subsets and seeds that a directory was asked for, none if it is new.

    A directory of another ensemble is refused.
    """
    path = root / "manifest.json"
    if not path.exists():
        return 0, ()
    found, size = read_identity(path)
    refuse_other(root, found, asdict(identity))
    return size


def enter(root: Path, identity: Identity, subsets: int, seeds: tuple[int, ...]) -> None:
    """Make a claimed directory this ensemble's, or make sure that it is; note what is asked for."""
    make_folder(root / "members")
    there = known(root, identity)
    size = max(subsets, there[0]), tuple(dict.fromkeys([*there[1], *seeds]))
    if size != there:
        content = {**asdict(identity), "subsets": size[0], "seeds": size[1]}
        write_manifest(root / "manifest.json", _KIND, content)


def refuse_other(root: Path, found: Identity, expected: dict[str, object]) -> None:
    """Raise if an ensemble on disk is not the one expected."""
    differing = [key for key, value in expected.items() if getattr(found, key) != value]
    if differing:
        wanted = ", ".join(f"{key} {expected[key]!r}" for key in differing)
        there = ", ".join(f"{key} {getattr(found, key)!r}" for key in differing)
        raise InvalidInput(
            f"Expected the ensemble in {root} to have {wanted}. Got {there}: it was made from "
            "other data or settings; choose another directory."
        )


def read_identity(path: Path) -> tuple[Identity, Size]:
    """Return whose ensemble it is, with the subsets and the seeds asked for so far."""
    manifest = read_manifest(path, _KIND)
    try:
        identity = Identity(
            fingerprint=str(manifest["fingerprint"]),
            n=int(manifest["n"]),
            fraction=float(manifest["fraction"]),
            seed=int(manifest["seed"]),
        )
        return identity, (int(manifest["subsets"]), tuple(int(i) for i in manifest["seeds"]))
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(
            f"Expected the manifest of a {_KIND} in {path}. Got other entries. "
            "Choose another directory."
        ) from error


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
        try:
            done[member] = read_arrays(path, identity.owner(member))["outcomes"]
        except FileNotFoundError:
            continue
        except CorruptFile:
            damaged.append(path.name)
    return done, damaged


def write_member(root: Path, identity: Identity, member: Member, outcomes: Float) -> None:
    """Put the outcomes [q] of a member on disk, whole or not at all."""
    write_arrays(_path(root, member), identity.owner(member), outcomes=outcomes)
