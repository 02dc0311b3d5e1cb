"""Whatever form a user's data have, they are read as the same tensors, or refused in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import whence
from whence.errors import InvalidInput, NotDeterministic
from whence.network.examples import Encoder, ModuleExamples

_X = torch.arange(12, dtype=torch.float32).reshape(4, 3)
_Y = torch.tensor([0, 1, 1, 0])


def encoder() -> Encoder:
    return Encoder(dtype=torch.float32, device=torch.device("cpu"))


class Rows:
    """A map-style data set of dicts of plain lists, as the datasets library gives them."""

    column_names = ("x", "label")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"x": _X[i].tolist(), "label": int(_Y[i])}


class Splits(dict[str, Any]):
    pass


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(zip(_X, _Y, strict=True))


@pytest.mark.parametrize(
    "data",
    [
        (_X, _Y),
        [_X, _Y],
        (_X.numpy().astype(np.float64), _Y.tolist()),
        (_X.tolist(), _Y.numpy()),
        TensorDataset(_X, _Y),
        list(zip(_X, _Y, strict=True)),
        [(row.numpy(), int(label)) for row, label in zip(_X, _Y, strict=True)],
        Rows(),
        [Rows()[i] for i in range(4)],
        {"x": _X.tolist(), "label": _Y.tolist()},
        {"x": _X, "label": _Y.bool()},
    ],
)
def test_all_forms_are_the_same_examples(data: Any) -> None:
    found = encoder()(data)
    torch.testing.assert_close(found.inputs, _X)
    torch.testing.assert_close(found.targets, _Y)
    assert found.ids.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ((_X[1], _Y[1]), (_X[1:2], _Y[1:2])),
        ((_X[1].tolist(), 1), [(_X[1], 1)]),
        (Rows()[1], [Rows()[1]]),
        ({"x": _X[1], "label": _Y[1]}, {"x": _X[1:2], "label": _Y[1:2]}),
    ],
)
def test_one_query_is_a_batch_of_one(one: Any, many: Any) -> None:
    train = encoder()((_X, _Y))
    for query in (one, many):
        found = encoder()(query, train)
        torch.testing.assert_close(found.inputs, _X[1:2])
        torch.testing.assert_close(found.targets, _Y[1:2])


def test_two_pairs_are_two_examples() -> None:
    found = encoder()([(_X[0], _Y[0]), (_X[1], _Y[1])])
    torch.testing.assert_close(found.inputs, _X[:2])


def test_nested_inputs_keep_their_nesting() -> None:
    inputs = {"a": _X, "b": (_Y, [_X, _X.double()])}
    found = encoder()((inputs, _Y))
    assert found.inputs["b"][1][1].dtype == torch.float32
    some = found.subset(np.array([2, 0]))
    torch.testing.assert_close(some.inputs["b"][1][0], _X[[2, 0]])
    one = encoder()(({"a": _X[2], "b": (_Y[2], [_X[2], _X[2]])}, _Y[2]), found)
    assert one.inputs["b"][0].shape == (1,)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DataLoader(TensorDataset(_X, _Y)), "loader.dataset"),
        (Stream(), r"list\(dataset\)"),
        (Splits(train=Rows(), test=Rows()), r"splits 'train', 'test'.*dataset\['train'\]"),
        ((row for row in _X), "map-style data set of such pairs. Got generator"),
        ("abc", "Got str"),
        ((_X, ["a", "b", "c", "d"]), r"numbers as targets.*'a'.*numpy.unique"),
        ([(row, "a") for row in _X], "numbers as targets"),
        ([(np.ones(i + 1), 0) for i in range(3)], "of one shape"),
        ([{"x": [1.0], "text": "words", "label": 0}], "numbers as 'text' column"),
        ([{"x": [1.0]}], "target under one of labels"),
        (([[1.0, 2.0], [3.0]], [0, 1]), "inhomogeneous shape"),
        ((_X, None), "object such as None"),
        ((_X, _Y[:3]), "as many targets"),
        ((_X[:0], _Y[:0]), "at least one example"),
        ([], "at least one example"),
        ({}, "empty dict"),
        ((_X.index_fill(0, torch.tensor(2), torch.nan), _Y), "example 2"),
    ],
)
def test_other_data_are_refused_in_words(data: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        encoder()(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (((_X, _X), _Y), r"a tensor. Got a tuple of 2"),
        (({"a": _X}, _Y), r"Got a dict with 'a'"),
        ((_Y, _Y), r"float32 of shape \[q, 3\]. Got torch.int64"),
        ((_X, _X), r"int64 of shape \[q, \]. Got torch.float32 of shape \[4, 3\]"),
    ],
)
def test_queries_are_like_the_training_data(data: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        encoder()(data, encoder()((_X, _Y)))


def test_a_query_that_the_model_cannot_take() -> None:
    objective = whence.from_torch(nn.Linear(3, 2), whence.CrossEntropy(), (_X, _Y))
    with pytest.raises(InvalidInput, match=r"\[q, 3\]. Got \[4, 2\], of which the model says"):
        objective.examples((_X[:, :2], _Y))
    pooled = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.AdaptiveAvgPool1d(2), nn.Flatten())
    longer = whence.from_torch(
        nn.Sequential(pooled, nn.Linear(2, 2)), whence.CrossEntropy(), (_X, _Y)
    ).examples((torch.ones(2, 7), _Y[:2]))
    assert isinstance(longer, ModuleExamples)


def test_a_data_set_that_changes_is_refused() -> None:
    class Noisy(Rows):
        def __getitem__(self, i: int) -> dict[str, Any]:
            return {"x": torch.randn(3), "label": i % 2}

    with pytest.raises(NotDeterministic, match="augmentation"):
        encoder()(Noisy())


def dicts() -> tuple[nn.Module, Any]:
    class Two(nn.Module):
        """Takes its inputs by name."""

        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(3, 2), nn.Embedding(2, 2)

        def forward(self, numbers: Tensor, word: Tensor) -> Tensor:
            return self.left(numbers) + self.right(word)

    rows = [{"numbers": _X[i] / 10, "word": int(_Y[i]), "labels": int(_Y[i - 1])} for i in range(4)]
    return Two(), rows


def test_what_is_trained_on_dicts_is_explained_by_dicts() -> None:
    torch.manual_seed(0)
    model, rows = dicts()
    recipe = whence.Recipe(learning_rate=0.1, batch_size=2, epochs=40, dtype=torch.float64)
    run = whence.train(model, whence.CrossEntropy(), rows, recipe)
    objective = whence.from_torch(run.model, whence.CrossEntropy(), rows)
    torch.testing.assert_close(objective.params, run.objective().params)
    outputs = objective.outputs(objective.train)
    torch.testing.assert_close(run.outputs(run.examples(rows)), outputs)
    actual = whence.leave_one_out(run, [0, 1, 2, 3], rows[1])
    assert actual.shape == (1, 4)
    predicted = whence.metagradient(run, rows[1]).values
    assert np.corrcoef(actual[0], predicted[0])[0, 1] > 0.9
    assert len(whence.explain(run, rows[1], k=2).helpful) <= 2
