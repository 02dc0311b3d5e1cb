r"""The backward pass through a training run: from ∂m/∂θ_T to d m/d wᵢ."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.errors import Diverged
from whence.progress import Bar
from whence.storage import digest, make_folder, read_arrays, write_arrays
from whence.training.optimizers import clip, clip_adjoint
from whence.training.run import Run


def weight_gradients(run: Run, cotangents: Tensor, bar: Bar | None = None) -> Tensor:
    """Return d m/d wᵢ for measures m with the given gradients at the end of the run.

    Args:
        run: The training.
        cotangents: ∂m/∂θ_T, a measure per row, [k, p].
        bar: Progress, counted in steps times measures.

    Returns:
        Derivatives, [k, n].

    Raises:
        Diverged: If the derivative does not stay finite.
    """
    zeros = torch.zeros_like(cotangents)
    of_state = torch.stack([cotangents, *[zeros] * (run.update.width - 1)])
    of_weights = cotangents.new_zeros(len(cotangents), len(run.weights))
    progress = _Progress.of(run, cotangents)
    segments = run.segments()
    done = 0
    if progress is not None:
        done, of_state, of_weights = progress.read(of_state, of_weights)
    if bar is not None:
        bar.update(len(cotangents) * sum(stop - start for start, stop in segments[::-1][:done]))
    for index, (start, stop) in enumerate(segments[::-1]):
        if index < done:
            continue
        states = run.states(start, stop)
        for step in range(stop - 1, start - 1, -1):
            before, after = states[step - start], states[step - start + 1]
            of_state, of_batch = _back(run, of_state, before, after, step)
            of_weights.index_add_(1, run.batches[step], of_batch)
            if bar is not None:
                bar.update(len(cotangents))
        if progress is not None:
            progress.write(index + 1, of_state, of_weights)
    if not bool(torch.isfinite(of_weights).all()):
        raise Diverged(
            "Expected a finite derivative through the training. Got infinity or NaN: small changes "
            "of the weights grow without bound over its steps. Train with a lower learning rate "
            "or, for Adam, with eps_root > 0; metasmoothness tells beforehand."
        )
    if progress is not None:
        with suppress(OSError):  # the answer is there; the next call finds the file, and removes it
            progress.path.unlink(missing_ok=True)
    return of_weights


def _back(
    run: Run, of_state: Tensor, before: Tensor, after: Tensor, step: int
) -> tuple[Tensor, Tensor]:
    """Return the cotangents of the state before a step [s, k, p] and of its weights [k, b]."""
    batch, max_norm = run.batches[step], run.recipe.clip_norm
    weights = run.weights[batch]
    raw: Tensor | None = None
    if run.update.reads_gradient or max_norm is not None:
        raw = run.program.gradient(before[0], batch, weights)[0]
    clipped = None if raw is None else clip(raw, max_norm)
    of_gradient, earlier = run.update.adjoint(
        of_state, before, after, clipped, run.rates[step], step
    )
    if raw is not None and max_norm is not None:
        of_gradient = clip_adjoint(of_gradient, raw, max_norm)
    of_params, of_weights = run.program.pullback(before[0], batch, weights, of_gradient)
    earlier[0] += of_params
    return earlier, of_weights


@final
@dataclass(frozen=True)
class _Progress:
    """Progress of a backward pass through the training, in a file that survives a crash.

    Args:
        path: The file; named after its owner. Two processes that start from the same
            cotangents write the same numbers to it.
        owner: The digest of those cotangents, of the run's end, and of its segments.
    """

    path: Path
    owner: str

    @classmethod
    def of(cls, run: Run, cotangents: Tensor) -> _Progress | None:
        """Return where a backward pass stores its progress; nowhere without a directory."""
        if run.directory is None:
            return None
        owner = digest(cotangents, run.params, run.losses, f"{run.steps} by {run.interval}")
        folder = run.directory / "reverse"
        make_folder(folder)
        return cls(folder / f"{owner[:16]}.npz", f"the pass back from {owner}")

    def read(self, of_state: Tensor, of_weights: Tensor) -> tuple[int, Tensor, Tensor]:
        """Return the number of segments done, and the cotangents then; as given without a file."""
        try:
            arrays = read_arrays(self.path, self.owner)
        except FileNotFoundError:
            return 0, of_state, of_weights
        state, weights = torch.from_numpy(arrays["state"]), torch.from_numpy(arrays["weights"])
        return int(arrays["done"]), state.to(of_state), weights.to(of_weights)

    def write(self, done: int, of_state: Tensor, of_weights: Tensor) -> None:
        """Write the progress to disk atomically."""
        write_arrays(
            self.path,
            self.owner,
            done=np.array(done),
            state=of_state.cpu().numpy(),
            weights=of_weights.cpu().numpy(),
        )
