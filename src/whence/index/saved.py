"""A Kronecker-factored curvature in a file of its own: computed once, read by later processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from whence.checked import checked
from whence.curvature.factors import multiplying_layers
from whence.curvature.kronecker import EKFAC, Approximation, KroneckerSolver
from whence.errors import InvalidInput
from whence.evaluation.identity import identity_of
from whence.index.curvature import operator_of, tensors_of
from whence.index.format import read_tensors, write_tensors
from whence.index.identity import described, model_digests
from whence.network.objective import ModuleObjective
from whence.storage import clear_leftovers, file_to_write

_PLACES, _MEAN, _SPREAD = "one position", "mean eigenvalue", "spread"
_OURS = (_PLACES, _MEAN, _SPREAD)  # what is stored beside the blocks


@final
@checked
@dataclass(frozen=True)
class SavedCurvature(KroneckerSolver):
    """Invert the curvature that lies in a file; it is computed and written the first time.

    For every method with `solver=`. Scores are the same but for rounding, under any damping, and no
    training gradient is computed again for the curvature.

    Args:
        path: The file, safetensors; its folder exists.
        solver: What makes it the first time, `EKFAC` or `KFAC`.

    Raises:
        InvalidInput: When it is used, if the file belongs to another model, other training data or
            another solver, or cannot be written there.
        CorruptFile: When it is used, if the file is cut short or changed in any bit.
        NotWritten: When it is used, if the operating system refuses.

    Cost:
        That of the solver once; then a read of 2 p numbers.

    Examples:
        >>> import tempfile, torch, whence
        >>> x, y = torch.randn(30, 4), torch.arange(30) % 3
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(),
        ...                             torch.nn.Linear(8, 3))
        >>> objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     solver = whence.SavedCurvature(f"{folder}/ekfac.safetensors")
        ...     method = whence.Projected(solver=solver)
        ...     method.fit(objective).scores((x[:2], y[:2])).values.shape
        (2, 30)
    """

    path: str | os.PathLike[str]
    solver: KroneckerSolver = field(default_factory=EKFAC)

    def error(self, dtype: torch.dtype) -> float:
        """Return the relative error that the solver allows."""
        return self.solver.error(dtype)

    def made(self, objective: ModuleObjective) -> Approximation:
        """Return the curvature of the file, or what the solver makes, written to it."""
        path = file_to_write(Path(self.path))
        own = {
            **model_digests(objective),
            "training data": identity_of(objective, None, "training data"),
            "solver": described(self.solver),
        }
        try:
            about, tensors = read_tensors(path)
        except FileNotFoundError:
            found = self.solver.made(objective)
            clear_leftovers(path.resolve().parent)
            write_tensors(path, {"kind": "curvature", **own}, _tensors(found))
            return found
        _check_same(path, about, own)
        return _approximation(objective, tensors)


def _check_same(path: Path, about: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise unless a file belongs to what it is now asked for."""
    names = {**own, **about}.keys() - {"kind"}
    other = next((name for name in sorted(names) if about.get(name) != own.get(name)), None)
    if about.get("kind") != "curvature" or other is not None:
        raise InvalidInput(
            f"Expected the curvature of this model, its training data and this solver in {path}. "
            f"Got one with another digest of its {other or 'kind'}. Give another path, or delete "
            "the file to have it computed again."
        )


def _tensors(found: Approximation) -> dict[str, Tensor]:
    """Return a curvature as tensors by name."""
    spread = {
        f"{_SPREAD}.{place}.{side}": values.cpu()
        for place, layer in enumerate(found.layers)
        for side, values in enumerate(layer.spread)
    }
    alone = torch.tensor([layer.one_position for layer in found.layers])
    mean = torch.tensor(found.mean_eigenvalue, dtype=torch.float64)
    return {**tensors_of(found.operator), **spread, _PLACES: alone, _MEAN: mean}


def _approximation(objective: ModuleObjective, tensors: Mapping[str, Tensor]) -> Approximation:
    """Return the curvature that `_tensors` made tensors."""
    like = objective.params
    held = {name: value for name, value in tensors.items() if name.split(".")[0] not in _OURS}
    operator = operator_of(held, like)
    layers = multiplying_layers(objective)
    alone = tensors[_PLACES].tolist()
    for place, (layer, block) in enumerate(zip(layers, operator.inner.blocks, strict=False)):
        left, right = (tensors[f"{_SPREAD}.{place}.{side}"].to(like.device) for side in range(2))
        layer.spread, layer.one_position = (left, right), alone[place]
        layer.left, layer.right = block.left, block.right  # type: ignore[attr-defined]
    return Approximation(operator, tuple(layers), float(tensors[_MEAN]))
