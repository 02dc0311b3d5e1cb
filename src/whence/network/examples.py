"""A user's data as a module takes them: tensors in any nesting, with ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map
from torch.utils.data import DataLoader, IterableDataset, default_collate

from whence.errors import InvalidInput, NotDeterministic
from whence.network.numbers import numbers
from whence.objective.arrays import first_not_finite
from whence.objective.trained import Examples
from whence.progress import progress
from whence.tiles import tiles

Reader = Callable[[list[Mapping[str, Any]]], tuple[Any, Any]]

_TARGETS = ("labels", "label", "target", "targets", "y")
_ONLY_INPUT = ("x", "inputs", "image", "pixel_values")  # names of an input that needs no name


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
        inputs, targets = self._read(data)
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

    def _read(self, data: Any) -> tuple[Any, Any]:
        """Return x and y of data in any form."""
        _refuse_streams(data)
        if isinstance(data, Mapping):
            return self._columns(data)
        items = isinstance(data, list) and (
            all(map(_is_pair, data)) or all(isinstance(item, Mapping) for item in data)
        )
        if isinstance(data, tuple | list) and len(data) == 2 and not items:
            return _nested(data[0]), data[1]
        items_known = hasattr(data, "__getitem__") and isinstance(data, Sized)
        if not items_known or isinstance(data, str) or getattr(data, "ndim", 1) == 0:
            raise InvalidInput(
                f"Expected (x, y) or a map-style data set of such pairs. Got {type(data).__name__}."
            )
        return self._collated(data)

    def _columns(self, data: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return x and y of a dict: one example, or columns of many."""
        if not data:
            raise InvalidInput("Expected at least one example. Got an empty dict.")
        if self.rows is None:
            return _pair(data)
        first: Any = next(iter(data.values()))
        one = np.ndim(first) == 0 or np.ndim(first[0]) == 0
        return self.rows([data] if one else _rows_of(data))

    def _collated(self, data: Any) -> tuple[Any, Any]:
        """Return x and y of a map-style data set whole, its first example asked twice."""
        if len(data) == 0:
            raise InvalidInput("Expected at least one example. Got an empty data set.")
        items = [data[i] for i in range(len(data))]
        dicts = all(isinstance(item, Mapping) for item in items)
        stack = self.rows if self.rows is not None and dicts else _stacked
        first, again = (tree_leaves(stack([item])) for item in (items[0], data[0]))
        if not all(map(_equal, first, again)):
            raise NotDeterministic(
                "Expected a data set that gives the same example when asked twice. Got two "
                "different ones for index 0. Remove random augmentation, or store its results."
            )
        return stack(items)

    def _tensor(self, values: Any, what: str) -> Tensor:
        """Return numbers as a tensor on the device, in the dtype where floating-point."""
        tensor = numbers(what, values).to(self.device)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


def _refuse_streams(data: Any) -> None:
    """Raise for iterable data, whose examples cannot be indexed."""
    if isinstance(data, DataLoader):
        raise InvalidInput(
            "Expected a data set, whose examples have positions. Got a DataLoader, which may "
            "shuffle. Pass loader.dataset."
        )
    if isinstance(data, IterableDataset) or type(data).__name__ == "IterableDataset":
        raise InvalidInput(
            "Expected a map-style data set, whose examples have positions. Got an IterableDataset. "
            "Pass list(dataset), if it fits in memory."
        )
    if isinstance(data, Mapping) and data and all(map(_is_dataset, data.values())):
        splits = ", ".join(repr(name) for name in data)
        raise InvalidInput(
            f"Expected one data set. Got {type(data).__name__} with the splits {splits}. Pass one "
            f"of them, such as dataset[{next(iter(data))!r}]."
        )


def _is_dataset(value: Any) -> bool:
    """Return whether a value is a data set of its own: of torch, or with named columns."""
    return isinstance(value, torch.utils.data.Dataset) or hasattr(value, "column_names")


def _is_pair(item: Any) -> bool:
    """Return whether an item of a list is (x, y)."""
    return isinstance(item, tuple) and len(item) == 2


def _target(item: Mapping[str, Any]) -> str | None:
    """Return the name of the target in a dict, or `None`."""
    return next((name for name in _TARGETS if name in item), None)


def _equal(one: Any, other: Any) -> bool:
    """Return whether two parts of an item are the same."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return bool(np.all(one == other))


def _nested(inputs: Any) -> Any:
    """Return inputs with lists of plain numbers as arrays; lists of tensors are a nesting."""
    if isinstance(inputs, Mapping):
        return {name: _nested(part) for name, part in inputs.items()}
    tensors = all(isinstance(leaf, Tensor | np.ndarray) for leaf in tree_leaves(inputs))
    return numbers("input", inputs) if isinstance(inputs, list) and not tensors else inputs


def _stacked(items: list[Any]) -> tuple[Any, Any]:
    """Return x and y of the items of a data set."""
    pairs = [_pair(item) for item in items]
    try:
        inputs, targets = default_collate(pairs)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InvalidInput(
            "Expected items of numbers, of one shape. Got items that cannot be stacked: "
            f"{error}. Pad or crop them, and leave out columns of text."
        ) from error
    return inputs, targets


def _rows_of(columns: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a dict of columns as a list of dicts."""
    n = len(next(iter(columns.values())))
    return [{name: values[i] for name, values in columns.items()} for i in range(n)]


def _pair(item: Any) -> tuple[Any, Any]:
    """Return an item of a data set as (x, y)."""
    if isinstance(item, Mapping):
        key = _target(item)
        if key is None:
            raise InvalidInput(
                f"Expected items with a target under one of {', '.join(_TARGETS)}. "
                f"Got keys {', '.join(map(str, item))}. Rename the column."
            )
        inputs = {name: _column(value, name) for name, value in item.items() if name != key}
        alone = len(inputs) == 1 and next(iter(inputs)) in _ONLY_INPUT
        return next(iter(inputs.values())) if alone else inputs, _column(item[key], key)
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise InvalidInput(f"Expected a data set of pairs (x, y). Got items of {type(item)}.")
    return item[0], item[1]


def _column(value: Any, name: str) -> Tensor:
    """Return the value of a key of a dict as a tensor."""
    return numbers(f"{name!r} column", value)


def _check_alike(queries: ModuleExamples, train: ModuleExamples) -> None:
    """Raise if queries are nested, shaped or typed otherwise than the training examples."""
    (got, form), (expected, own) = tree_flatten(queries.inputs), tree_flatten(train.inputs)
    if form != own:
        raise InvalidInput(
            f"Expected queries (x, y) with x as in the training data, {_form(train.inputs)}. "
            f"Got {_form(queries.inputs)}."
        )
    for mine, theirs in zip((*got, queries.targets), (*expected, train.targets), strict=True):
        same = mine.is_floating_point() == theirs.is_floating_point()
        if mine.ndim != theirs.ndim or not same:
            raise InvalidInput(
                f"Expected queries (x, y) like the training data: {theirs.dtype} of shape "
                f"[q, {', '.join(map(str, theirs.shape[1:]))}]. Got {mine.dtype} of shape "
                f"{list(mine.shape)}."
            )


def _form(inputs: Any) -> str:
    """Return how inputs are nested, in words."""
    if isinstance(inputs, Mapping):
        return f"a dict with {', '.join(map(repr, inputs))}"
    if isinstance(inputs, tuple | list):
        return f"a {type(inputs).__name__} of {len(inputs)}"
    return "a tensor"
