"""Queries with their labels, or with the model's predictions as labels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from whence.errors import InvalidInput
from whence.network.forms import TARGET_NAMES
from whence.objective.trained import Data, Examples, Trained
from whence.rows import is_sparse, typed_row
from whence.views.answer import class_of

Inputs: TypeAlias = pd.DataFrame | pd.Series | np.ndarray[Any, Any] | Tensor


def encoded(trained: Trained, data: Data | Inputs) -> tuple[Examples, bool]:
    """Return queries as the model takes them, and whether their labels are known.

    Args:
        trained: The model.
        data: (X, y), or X alone: the rows of a table, a tensor of inputs, or tokenized texts
            without "labels". Without y the label of a query is the class that the model predicts.

    Returns:
        The queries, and False where their labels are predictions.

    Raises:
        InvalidInput: If they cannot be used, or are unlabeled queries of a regression with several
            outputs.
    """
    return _encoded(data, trained)


@singledispatch
def _encoded(data: Any, trained: Trained) -> tuple[Examples, bool]:
    """Return examples of data with labels; sparse rows, of many classes, are rows alone."""
    return _rows_alone(data, trained) if is_sparse(data) else (trained.examples(data), True)


@_encoded.register(tuple)
def _pair(data: tuple[Any, ...], trained: Trained) -> tuple[Examples, bool]:
    if len(data) == 2 and data[1] is None:
        return _predicted(trained, typed_row(trained.train.inputs, data[0])), False
    if len(data) == 2:
        return trained.examples((typed_row(trained.train.inputs, data[0]), data[1])), True
    return trained.examples(data), True


@_encoded.register(Mapping)
def _columns(data: Mapping[str, Any], trained: Trained) -> tuple[Examples, bool]:
    if _answered(data, trained):
        return trained.examples(data), True
    name = next(each for each in trained.train.inputs if each in data)
    one = _axes(data[name]) < trained.train.inputs[name].ndim
    return _labeled(trained, {**data, "labels": 0 if one else [0] * len(data[name])}), False


@_encoded.register(list)
def _items(data: list[Any], trained: Trained) -> tuple[Examples, bool]:
    if any(_answered(row, trained) for row in data):
        return trained.examples(data), True
    return _labeled(trained, [{**row, "labels": 0} for row in data]), False


@singledispatch
def _answered(row: Any, trained: Trained) -> bool:
    """Return whether an example of a classifier has a label, or can have none."""
    return True


@_answered.register(Mapping)
def _named(row: Mapping[str, Any], trained: Trained) -> bool:
    inputs, targets = trained.train.inputs, trained.train.targets
    classified = trained.loss.classifies and targets.numel() == len(targets)
    read = hasattr(inputs, "keys") and any(name in row for name in inputs)
    return bool({*TARGET_NAMES} & {*row}) or not classified or not read


def _axes(values: Any) -> int:
    """Return how many axes values have; two where they are rows of different lengths."""
    try:
        return int(np.ndim(values))
    except ValueError:
        return 2


def _labeled(trained: Trained, data: Any) -> Examples:
    """Return examples with some label, labeled by the class that the model predicts."""
    examples = trained.examples(data)
    said = [class_of(row) for row in trained.outputs(examples)]
    return examples.relabeled(torch.tensor(said).to(examples.targets).reshape_as(examples.targets))


@_encoded.register(pd.DataFrame)
@_encoded.register(pd.Series)
@_encoded.register(np.ndarray)
@_encoded.register(Tensor)
def _rows_alone(data: Inputs, trained: Trained) -> tuple[Examples, bool]:
    return _predicted(trained, typed_row(trained.train.inputs, data)), False


def _predicted(trained: Trained, inputs: Any) -> Examples:
    """Return inputs as queries, labeled by the class that the model predicts."""
    known = trained.train.inputs
    single = inputs.ndim < getattr(known, "ndim", 2)
    b = 1 if single else inputs.shape[0]

    def with_labels(labels: list[Any]) -> Examples:
        return trained.examples((inputs, labels[0] if single else np.asarray(labels)))

    if trained.classes:
        outputs = trained.outputs(with_labels([trained.classes[0]] * b))
        return with_labels([trained.classes[class_of(row)] for row in outputs])
    some = trained.train.targets[:1].cpu()
    examples = with_labels([some[0].numpy()] * b)
    outputs = trained.outputs(examples)
    if trained.loss.classifies and outputs.ndim == 2 and some.numel() == 1:
        labels = np.array([class_of(row) for row in outputs], dtype=some.numpy().dtype)
        return with_labels(list(labels.reshape(b, *some.shape[1:])))
    if not trained.loss.regresses or outputs.shape[1:] != (1,):
        raise InvalidInput(
            "Expected (X, y) of a model whose answer is neither a class nor one number. Got X "
            "alone. Pass the target too, or a measure as a function of (outputs, targets)."
        )
    return examples
