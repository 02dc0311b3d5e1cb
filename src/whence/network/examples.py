"""A user's data as a module takes them: tensors in any nesting, with ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from whence.errors import InvalidInput
from whence.network.forms import Reader as Reader
from whence.network.forms import form_of
from whence.network.numbers import numbers
from whence.objective.arrays import first_not_finite
from whence.objective.trained import Examples
from whence.progress import progress
from whence.tiles import tiles


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ModuleExamples(Examples):
    """Examples as a module takes them.

    Args:
        inputs: A tensor [b, ...], or tensors in any nesting of tuples, lists and dicts.
        targets: Targets, [b] or [b, ...].
        ids: The user's names, [b].
    """

    inputs: Any
    targets: Tensor
    ids: NDArray[Any]

    def subset(self, indices: NDArray[np.intp]) -> ModuleExamples:
        """Return the examples at these positions."""
        where = torch.as_tensor(indices, device=self.targets.device)
        return ModuleExamples(
            inputs=tree_map(lambda part: part[where], self.inputs),
            targets=self.targets[where],
            ids=self.ids[indices],
        )

    def batches(self, size: int) -> Iterator[tuple[slice, Any, Tensor]]:
        """Yield slices of at most `size` examples with their inputs and targets."""
        parts = list(tiles(len(self), budget=size))
        for part in progress(parts, desc="examples", unit="batch"):
            yield part, tree_map(lambda tensor, s=part: tensor[s], self.inputs), self.targets[part]


@final
@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Reads a user's data for one module; training data and queries alike.

    Args:
        dtype: Of floating-point inputs and targets.
        device: Where tensors go.
        rows: Turns a list of dicts into inputs and targets, for modules with a form of their own;
            dicts of equal shapes are stacked if `None`.
    """

    dtype: torch.dtype
    device: torch.device
    rows: Reader | None = None

    def __call__(self, data: Any, train: ModuleExamples | None = None) -> ModuleExamples:
        """Return data as examples.

        Args:
            data: (x, y), a map-style data set of pairs or dicts, a dict of columns, or one example
                in any of these forms where `train` tells the shape of one.
            train: The training examples, which queries must be like; `None` for themselves.

        Returns:
            The examples.

        Raises:
            InvalidInput: If the data have another form, or hold what is no finite number.
            NotDeterministic: If a data set answers differently when asked twice.
        """
        inputs, targets = form_of(data).read(self.rows)
        target = self._tensor(targets, "target")
        target = target.long() if target.dtype == torch.bool else target
        inputs = tree_map(lambda part: self._tensor(part, "input"), inputs)
        if train is not None and target.ndim == train.targets.ndim - 1:
            inputs, target = tree_map(lambda part: part.unsqueeze(0), inputs), target.unsqueeze(0)
        lengths = {len(part) if part.ndim else 0 for part in (*tree_leaves(inputs), target)}
        if lengths == {0} or not lengths:
            raise InvalidInput("Expected at least one example. Got none.")
        if len(lengths) > 1:
            raise InvalidInput(
                f"Expected as many targets as inputs. Got lengths {sorted(lengths)}. "
                "Pass (x, y) with one row per example in both."
            )
        for part in tree_leaves(inputs):
            bad = first_not_finite(part) if part.is_floating_point() else None
            if bad is not None:
                raise InvalidInput(
                    f"Expected finite inputs. Got NaN or infinity in example {bad[0]}. "
                    "Impute or drop such rows."
                )
        found = ModuleExamples(inputs=inputs, targets=target, ids=np.arange(len(target)))
        if train is not None:
            _check_alike(found, train)
        return found

    def _tensor(self, values: Any, what: str) -> Tensor:
        """Return numbers as a tensor on the device, in the dtype where floating-point."""
        tensor = numbers(what, values).to(self.device)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


def _check_alike(queries: ModuleExamples, train: ModuleExamples) -> None:
    """Raise if queries are nested, shaped or typed otherwise than the training examples."""
    (got, form), (expected, own) = tree_flatten(queries.inputs), tree_flatten(train.inputs)
    if form != own:
        raise InvalidInput(
            f"Expected queries (x, y) with x as in the training data, {_nesting(train.inputs)}. "
            f"Got {_nesting(queries.inputs)}."
        )
    for mine, theirs in zip((*got, queries.targets), (*expected, train.targets), strict=True):
        same = mine.is_floating_point() == theirs.is_floating_point()
        if mine.ndim != theirs.ndim or not same:
            raise InvalidInput(
                f"Expected queries (x, y) like the training data: {theirs.dtype} of shape "
                f"[q, {', '.join(map(str, theirs.shape[1:]))}]. Got {mine.dtype} of shape "
                f"{list(mine.shape)}."
            )


@singledispatch
def named_input(inputs: Any, name: str) -> Tensor | None:
    """Return the input of a name; `None` where inputs have no names, or not this one.

    Args:
        inputs: Of a module, in any nesting.
        name: Such as "input_ids".
    """
    return None


@named_input.register(Mapping)
def _by_name(inputs: Mapping[str, Tensor], name: str) -> Tensor | None:
    return inputs.get(name)


@singledispatch
def _nesting(inputs: Any) -> str:
    """Return how inputs are nested, in words."""
    return "a tensor"


@_nesting.register(tuple)
@_nesting.register(list)
def _of_several(inputs: Sequence[Any]) -> str:
    return f"a {type(inputs).__name__} of {len(inputs)}"


@_nesting.register(Mapping)
def _of_names(inputs: Mapping[str, Any]) -> str:
    return f"a dict with {', '.join(map(repr, inputs))}"
