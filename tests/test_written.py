"""Options print as they are written: no address in memory, which differs in every process."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import whence
from whence.objective.derived_losses import CallableLoss
from whence.objective.measures import CallableMeasure

_NEEDED: dict[str, Any] = {  # fields without a default, of classes that users make
    "batch_size": 2,
    "blocks": (whence.linalg.Identity(2),),
    "depth": 5,
    "diagonal": torch.ones(2),
    "epochs": 1,
    "function": torch.nn.MSELoss(),
    "groups": ("a", "b"),
    "learning_rate": 0.1,
    "matrix": torch.eye(2),
    "power": 1.0,
    "rank": 2,
    "retrain": print,
    "scale": 1.0,
    "size": 2,
}


def mine(*given: Any) -> Any:
    return given[0].sum()


def public() -> list[Any]:
    """The public data classes that users make, those of public modules too."""
    found = [getattr(whence, name) for name in whence.__all__ if name != "__version__"]
    modules = [each for each in found if inspect.ismodule(each)]
    found += [getattr(module, name) for module in modules for name in dir(module)]
    kinds = {each for each in found if inspect.isclass(each) and dataclasses.is_dataclass(each)}
    leaves = [kind for kind in kinds if not inspect.isabstract(kind)]
    made = [kind for kind in leaves if needed(kind) <= set(_NEEDED)]  # the others are results
    return sorted(made, key=lambda kind: kind.__qualname__)


def needed(kind: Any) -> set[str]:
    """The names of the fields that must be given, and of `depth`, whose default says that too."""
    return {
        each.name
        for each in dataclasses.fields(kind)
        if each.init and each.default is each.default_factory is dataclasses.MISSING
    } | ({"depth"} & {each.name for each in dataclasses.fields(kind)})


@pytest.mark.parametrize("kind", public(), ids=lambda kind: kind.__qualname__)
def test_no_public_data_class_shows_an_address(kind: Any) -> None:
    assert " at 0x" not in repr(kind(**{name: _NEEDED[name] for name in needed(kind)}))


def test_the_methods_and_the_solvers_are_among_them() -> None:
    names = {kind.__qualname__ for kind in public()}
    assert {"Unrolled", "Projected", "EKFAC", "CG", "LiSSA", "Recipe", "OfSet"} <= names


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (whence.Unrolled(), "Unrolled(segments=3, curvature=ekfac)"),
        (whence.Unrolled(segments=2, curvature=mine), "Unrolled(segments=2, curvature=mine)"),
        (whence.measures.OfSet(mine), "OfSet(function=mine, smooth=True)"),
        (
            whence.measures.WorstGroup(np.arange(400) % 2),
            "WorstGroup(groups=an array of int64 of shape [400], of='loss')",
        ),
        (
            whence.measures.CohensD(["a", "b"]),
            "CohensD(groups=['a', 'b'], between=None, positive=None)",
        ),
        (CallableLoss(mine), "CallableLoss(function=mine)"),
        (CallableMeasure(torch.nn.MSELoss()), "CallableMeasure(function=MSELoss())"),
        (whence.evaluation.Together(mine, 4), "Together(retrain=mine, size=4)"),
    ],
)
def test_a_function_is_shown_by_its_name(options: Any, text: str) -> None:
    assert repr(options) == text


@pytest.mark.parametrize(
    "make",
    [
        lambda: whence.Projected(output=mine),
        lambda: whence.Recipe(learning_rate=0.1, batch_size=2, epochs=1, schedule=mine),
    ],
)
def test_a_function_among_other_options_is_shown_by_its_name(make: Callable[[], Any]) -> None:
    assert "=mine," in repr(make())
    assert " at 0x" not in repr(make())
