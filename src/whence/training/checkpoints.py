"""Where the states of a training are stored: in memory, or in a directory that survives a crash.

```
directory/
├── manifest.json            what the run is of: a digest of each thing that decides it
└── states/00000120.npz      the state before step 120, and the losses since the state before it
```
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from whence.errors import CorruptFile, InvalidInput
from whence.storage import (
    claim,
    digest,
    make_folder,
    read_arrays,
    read_manifest,
    write_arrays,
    write_manifest,
)

_KIND = "training"


class Checkpoints(ABC):
    """States [s, p] by step, each with the losses of the steps since the checkpoint before."""

    @abstractmethod
    def write(self, step: int, state: Tensor, losses: Tensor) -> None:
        """Store the state before a step."""

    @abstractmethod
    def read(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the state before a step, and the losses stored with it."""

    @abstractmethod
    def has(self, step: int) -> bool:
        """Return whether the state before a step is stored."""

    @abstractmethod
    def writing(self, steps: Iterable[int]) -> AbstractContextManager[None]:
        """Refuse other writers while those states of the given steps that are missing are made."""


@final
@dataclass(frozen=True, eq=False)
class InMemory(Checkpoints):
    """States in memory, freed with the run."""

    _states: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def write(self, step: int, state: Tensor, losses: Tensor) -> None:
        """Store the state before a step."""
        self._states[step] = state, losses

    def read(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the state before a step, and its losses."""
        return self._states[step]

    def has(self, step: int) -> bool:
        """Return whether the state before a step is stored."""
        return step in self._states

    def writing(self, steps: Iterable[int]) -> AbstractContextManager[None]:
        """Return an empty context: states in memory need no lock."""
        return nullcontext()


@final
@dataclass(frozen=True, eq=False)
class OnDisk(Checkpoints):
    """States in a directory, made by `open_directory`.

    Args:
        root: The directory.
        owner: The digest of the run's identity.
        device: Where states are read to.
    """

    root: Path
    owner: str
    device: torch.device

    def write(self, step: int, state: Tensor, losses: Tensor) -> None:
        """Write the state before a step to disk atomically."""
        write_arrays(
            self._path(step),
            self._owner(step),
            state=state.cpu().numpy(),
            losses=losses.cpu().numpy(),
        )

    def read(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the state before a step, and its losses."""
        path = self._path(step)
        try:
            arrays = read_arrays(path, self._owner(step))
        except FileNotFoundError as error:
            raise CorruptFile(
                f"Expected a state in {path}. Got no file. Run whence.train with the same "
                "arguments and directory to compute it anew."
            ) from error
        state, losses = (torch.from_numpy(arrays[name]) for name in ("state", "losses"))
        return state.to(self.device), losses.to(self.device)

    def has(self, step: int) -> bool:
        """Return whether a file for the state before a step is there."""
        return self._path(step).exists()

    def writing(self, steps: Iterable[int]) -> AbstractContextManager[None]:
        """Refuse other processes, unless all states are there, which many may read."""
        return nullcontext() if all(map(self.has, steps)) else claim(self.root)

    def _owner(self, step: int) -> str:
        """Return the identity stored in a file: its run and its step."""
        return f"step {step} of the {_KIND} {self.owner}"

    def _path(self, step: int) -> Path:
        """Return the path of the state before a step."""
        return self.root / "states" / f"{step:08d}.npz"


def open_directory(root: Path, identity: dict[str, str], device: torch.device) -> OnDisk:
    """Make a run's directory, or make sure that it is this run's.

    Args:
        root: The directory.
        identity: What decides the run, by name.
        device: Where states are read to.

    Returns:
        The states in it.

    Raises:
        InvalidInput: If the directory holds a run that differs; the message says in what.
        CorruptFile: If its manifest cannot be read.
    """
    path = root / "manifest.json"
    if not path.exists():
        with claim(root):
            if not path.exists():
                _refuse_files(root)
                write_manifest(path, _KIND, identity)
    _refuse_other(path, identity)
    make_folder(root / "states")
    return OnDisk(root, digest(json.dumps(identity, sort_keys=True)), device)


def _refuse_files(root: Path) -> None:
    """Raise if a directory without a manifest holds anything."""
    if any(root.iterdir()):
        raise InvalidInput(
            f"Expected {root} to be empty or to hold a run. Got other files. "
            "Choose another directory."
        )


def _refuse_other(path: Path, identity: dict[str, str]) -> None:
    """Raise if the run on disk is another run."""
    found = read_manifest(path, _KIND)
    differing = [name for name in identity if found.get(name) != identity[name]]
    if differing:
        raise InvalidInput(
            f"Expected the run in {path.parent} to have the {', '.join(differing)} of this one. "
            f"Got another {', '.join(differing)}. Choose another directory."
        )
