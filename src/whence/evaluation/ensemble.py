"""Retraining ensembles: a model trained on random subsets, several seeds each, on disk.

A run may be killed at any point and started again: it trains the members that are missing. See
`whence.evaluation.members` for the files.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from whence.checked import Float, checked, floats, written
from whence.errors import CorruptFile, InvalidInput
from whence.evaluation.members import (
    Identity,
    Member,
    enter,
    known,
    read_identity,
    read_members,
    refuse_other,
    write_member,
)
from whence.progress import progress
from whence.result import Card, Result
from whence.storage import claim
from whence.workers import Backend, map_shards

Retrain: TypeAlias = Callable[[Tensor, int], Tensor]


@final
@dataclass(frozen=True)
class Together:
    """A retraining of several members at once, for models that train faster as one stack.

    Attributes:
        retrain: Takes weights [k, n] and k seeds, returns outcomes [k, q].
        size: Most members in one call, at least 1; the last call may have fewer.
    """

    retrain: Callable[[Tensor, Sequence[int]], Tensor]
    size: int

    def __repr__(self) -> str:
        """Return the options, a function by its name."""
        return written(self)

    def outcomes(self, weights: Tensor, seeds: Sequence[int]) -> list[Tensor]:
        """Return the outcomes [q] of each of k members, from weights [k, n]."""
        stacked = self.retrain(weights, seeds)
        if stacked.ndim != 2 or len(stacked) != len(seeds):
            raise InvalidInput(
                f"retrain must return outcomes [k, q] for k = {len(seeds)} members. "
                f"Got {list(stacked.shape)}."
            )
        return list(stacked)


@final
@dataclass(frozen=True)
class _Alone:
    """A retraining of one member at a time.

    Attributes:
        retrain: Takes weights [n] and a seed, returns outcomes [q].
        size: Members in one call.
    """

    retrain: Retrain
    size: ClassVar[int] = 1

    def outcomes(self, weights: Tensor, seeds: Sequence[int]) -> list[Tensor]:
        """Return the outcomes [q] of one member, from weights [1, n]."""
        return [self.retrain(weights[0], seeds[0])]


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RetrainingEnsemble(Result):
    """The ground truth that `lds` compares with.

    Attributes:
        masks: Which examples subset j keeps, [m, n], boolean.
        outcomes: Measure of query q after training on subset j with seed i, [s, m, q], float64.
        seeds: The s seeds of the trainings.
        fingerprint: What the ensemble is of.
    """

    masks: Tensor
    outcomes: Tensor
    seeds: tuple[int, ...]
    fingerprint: str

    def card(self) -> Card:
        """Return how many trainings there are."""
        s, m, q = self.outcomes.shape
        return Card(
            title=f"{m:,} subsets of {self.masks.shape[1]:,} examples, {s} seeds, {q:,} queries"
        )


@checked
def retraining_ensemble(
    retrain: Retrain | Together,
    n: int,
    *,
    subsets: int,
    seeds: int | Sequence[int],
    fingerprint: str,
    directory: str | os.PathLike[str],
    fraction: float = 0.5,
    workers: int = 1,
    backend: Backend = "process",
    seed: int = 0,
) -> RetrainingEnsemble:
    """Train on random subsets, each with several seeds, and keep the outcomes on disk.

    Subset j keeps round(fraction · n) examples, drawn without replacement from (seed, j) alone.
    Members already in `directory` are read, not trained again: run the same call after a crash, or
    with more subsets or seeds, and it does what is left. One process at a time may fill a
    directory; a second one is refused. An ensemble that is complete may be read by many.

    Args:
        retrain: `retrain(weights, seed)` trains with each example's loss times its weight (float32
            [n]: 1 kept, 0 removed, still divided by n) and returns the measure of each query, [q].
            It must depend on nothing else. Or `Together`, to train several at once.
        n: Number of training examples.
        subsets: Number m of subsets.
        seeds: Number s of seeds (0 … s − 1), or the seeds themselves.
        fingerprint: What the outcomes depend on besides weights and seed: data, queries, measure,
            recipe. See `whence.evaluation.fingerprint`.
        directory: Where the ensemble lies; made if absent. Machines of a Ray cluster must share it.
        fraction: Fraction of the examples kept, in (0, 1); 0.99 removes 1 %.
        workers: Trainings at a time; see `map_shards`.
        backend: `"process"` or `"ray"`; see `map_shards`.
        seed: Seed of the subsets.

    Returns:
        All members asked for.

    Raises:
        InvalidInput: If an argument is out of range, the directory holds another ensemble,
            another process is filling it, or a training returns no finite [q]. Members finished
            before stay.
        CorruptFile: If the manifest cannot be read.
        NotWritten: If the disk is full or the directory read-only. Members finished before stay.

    Warns:
        UserWarning: If damaged members are found; they are trained again.

    Cost:
        m · s trainings, less those on disk; m · n bytes of masks.

    Examples:
        >>> import tempfile
        >>> def retrain(weights, seed):  # "training" here is a weighted sum
        ...     return weights.sum().reshape(1) + seed
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     ensemble = retraining_ensemble(
        ...         retrain, 10, subsets=3, seeds=2, fingerprint="demo", directory=directory
        ...     )
        >>> ensemble.outcomes[:, 0]
        tensor([[5.],
                [6.]], dtype=torch.float64)
    """
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(int(i) for i in seeds)
    _check(n, subsets, chosen, fraction)
    identity = Identity(fingerprint=fingerprint, n=n, fraction=float(fraction), seed=seed)
    root = Path(directory)
    there = known(root, identity)
    members = [(j, i) for j in range(subsets) for i in chosen]
    done, damaged = read_members(root, identity, members)
    if damaged:
        warnings.warn(
            f"{len(damaged)} members of {root} are cut short, changed or of another ensemble, "
            f"and are trained again: {damaged[:5]}.",
            stacklevel=2,
        )
    missing = [member for member in members if member not in done]
    training = _Training(
        retrain=retrain if isinstance(retrain, Together) else _Alone(retrain),
        identity=identity,
        directory=root,
    )
    size = training.retrain.size
    chunks = [missing[at : at + size] for at in range(0, len(missing), size)]
    writes = bool(missing) or subsets > there[0] or not set(chosen) <= set(there[1])
    with (
        claim(root) if writes else nullcontext(),
        progress(total=len(members), initial=len(done), desc="retraining") as bar,
    ):
        if writes:
            enter(root, identity, subsets, chosen)
        for chunk in map_shards(training, chunks, workers=workers, backend=backend):
            done.update(chunk)
            bar.update(len(chunk))
    return _assemble(root, identity, subsets, chosen, done)


@checked
def load_ensemble(
    directory: str | os.PathLike[str], *, fingerprint: str | None = None
) -> RetrainingEnsemble:
    """Read a complete ensemble from disk.

    Args:
        directory: Where `retraining_ensemble` wrote it.
        fingerprint: What it is expected to be of; anything by default.

    Returns:
        The ensemble, with all the subsets and seeds that were ever asked for.

    Raises:
        InvalidInput: If there is no ensemble, it is of something else, or it is not complete.
        CorruptFile: If the manifest or a member cannot be read; the message names it.
    """
    root = Path(directory)
    path = root / "manifest.json"
    if not path.is_file():
        raise InvalidInput(
            f"Expected an ensemble in {root}. Got no manifest.json; run retraining_ensemble."
        )
    identity, (subsets, seeds) = read_identity(path)
    if fingerprint is not None:
        refuse_other(root, identity, {"fingerprint": fingerprint})
    members = [(j, i) for j in range(subsets) for i in seeds]
    done, damaged = read_members(root, identity, members)
    if damaged:
        raise CorruptFile(
            f"{len(damaged)} members of {root} are cut short, changed or of another ensemble: "
            f"{damaged[:5]}. Run retraining_ensemble with the same arguments to train them again."
        )
    if len(done) < len(members):
        raise InvalidInput(
            f"Expected {len(members)} members in {root}. Got {len(done)}; "
            "run retraining_ensemble with the same arguments to finish it."
        )
    return _assemble(root, identity, subsets, seeds, done)


@final
@dataclass(frozen=True, kw_only=True)
class _Training:
    """What a worker does: train some members, and put each on disk before it says so."""

    retrain: _Alone | Together
    identity: Identity
    directory: Path

    def __call__(self, members: list[Member]) -> list[tuple[Member, Float]]:
        """Return the outcomes [q] of each member."""
        masks = np.stack([self.identity.mask(subset) for subset, _ in members])
        weights = torch.from_numpy(masks).to(torch.float32)
        outcomes = self.retrain.outcomes(weights, [seed for _, seed in members])
        trained = []
        for (subset, seed), outcome in zip(members, outcomes, strict=True):
            array = floats(f"The outcomes of subset {subset}, seed {seed}", outcome, "q")
            write_member(self.directory, self.identity, (subset, seed), array)
            trained.append(((subset, seed), array))
        return trained


def _check(n: int, subsets: int, seeds: Sequence[int], fraction: float) -> None:
    """Raise if the numbers describe no ensemble."""
    if n < 2 or subsets < 1 or not seeds:
        raise InvalidInput(
            "An ensemble needs n ≥ 2 examples, and at least one subset and one seed. "
            f"Got n = {n}, {subsets} subsets, {len(seeds)} seeds."
        )
    if len(set(seeds)) < len(seeds):
        raise InvalidInput(f"seeds must differ from each other. Got {list(seeds)}.")
    if not 0 < fraction < 1 or not 0 < round(fraction * n) < n:
        raise InvalidInput(
            "Expected a fraction between 0 and 1 that keeps an example and leaves one out. "
            f"Got {fraction} of n = {n}."
        )


def _assemble(
    root: Path,
    identity: Identity,
    subsets: int,
    seeds: tuple[int, ...],
    done: dict[Member, Float],
) -> RetrainingEnsemble:
    """Return the members as one record."""
    lengths = sorted({len(outcomes) for outcomes in done.values()})
    if len(lengths) > 1:
        raise InvalidInput(
            f"Expected the same number of queries from every training in {root}. Got {lengths}; "
            "put the queries into the fingerprint, and choose another directory."
        )
    outcomes = np.stack([[done[j, i] for j in range(subsets)] for i in seeds])
    return RetrainingEnsemble(
        masks=torch.from_numpy(np.stack([identity.mask(j) for j in range(subsets)])),
        outcomes=torch.from_numpy(outcomes),
        seeds=seeds,
        fingerprint=identity.fingerprint,
    )
