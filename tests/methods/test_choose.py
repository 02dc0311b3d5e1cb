"""Which method scores a model where the user names none, and where options name it."""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from sklearn.datasets import load_diabetes
from sklearn.ensemble import (
    AdaBoostRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
    VotingRegressor,
)
from sklearn.linear_model import PoissonRegressor, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.svm import SVR

import whence
from whence.errors import InvalidInput
from whence.methods.choose import chosen, default_label_method, default_of, reason_of

METHODS = [
    (name, each.name)
    for name in whence.__all__
    if inspect.isclass(kind := getattr(whence, name)) and issubclass(kind, whence.Method)
    for each in (fields(kind) if is_dataclass(kind) else ())
]


@pytest.mark.parametrize(("name", "option"), METHODS)
def test_every_option_of_every_method_is_checked(name: str, option: str) -> None:
    with pytest.raises(InvalidInput, match=rf"Expected .*{option}.* Got "):
        getattr(whence, name)(**{option: object()})


X, Y = load_diabetes(return_X_y=True)
X, Y = X[:60], Y[:60]


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (Ridge(), whence.Influence),
        (RandomForestRegressor(5, random_state=0), whence.ForestWeights),
        (KNeighborsRegressor(), whence.KNNShapley),
        (KNeighborsRegressor(weights="distance"), whence.LeaveOneOut),
        (HistGradientBoostingRegressor(max_iter=2), whence.Boosting),
        (VotingRegressor([("a", Ridge()), ("b", PoissonRegressor())]), whence.Composition),
        (SVR(kernel="sigmoid"), whence.LeaveOneOut),
        (AdaBoostRegressor(n_estimators=3, random_state=0), whence.Retrained),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_default_follows_the_model(model: Any, kind: type) -> None:
    trained = whence.from_sklearn(model.fit(X, Y), X, Y)
    assert isinstance(chosen(trained, None), kind)
    reason = default_of(trained)[1]
    said = f"Scored by {kind.__name__}, because {reason}."
    assert reason_of(trained) == ("" if kind is whence.Influence else said)
    labels = None if kind is whence.Influence else whence.DataOOB()
    assert default_label_method(trained) == labels


@pytest.mark.parametrize(
    "options",
    [{"solver": whence.CG()}, {"damping": 0.5}, {"curvature": "ggn"}],
    ids=["solver", "damping", "curvature"],
)
def test_each_option_of_influence_names_it(options: dict[str, Any]) -> None:
    forest = whence.from_sklearn(RandomForestRegressor(5, random_state=0).fit(X, Y), X, Y)
    found = chosen(forest, None, **options)
    assert found == whence.Influence(**options)
    with pytest.raises(InvalidInput, match="without method="):
        chosen(forest, whence.LeaveOneOut(), **options)
