"""A call with the wrong arguments says what the function takes, and what makes it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.ensemble import BaggingRegressor, ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from whence.checked.signatures import converted
from whence.errors import InvalidInput

X, Y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
MODEL = LogisticRegression(tol=1e-8).fit(X, Y)


def test_a_call_names_the_function_and_what_it_takes() -> None:
    objective = whence.from_sklearn(MODEL, X, Y)
    with pytest.raises(TypeError, match=r"too many .*\. Call explain\(trained, query, \*, k, "):
        whence.explain(objective, X[:1], Y[:1])  # type: ignore[call-arg, misc]
    with pytest.raises(TypeError, match=r"'y'\. Call from_sklearn\(estimator, X, y, \*, sample"):
        whence.from_sklearn(MODEL, X)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"Call EKFAC\(\*, "):
        whence.EKFAC(1)  # type: ignore[misc, call-arg]


def test_what_makes_the_expected_object_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"LogisticRegression.*\. whence\.from_sklearn\("):
        whence.explain(MODEL, X[:1])  # type: ignore[arg-type]
    objective = whence.from_sklearn(MODEL, X, Y)
    with pytest.raises(InvalidInput, match=r"Got 'ekfac'\. Pass an object, such as whence\.EKFAC"):
        whence.influence(objective, (X, Y), solver="ekfac")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"Got 'trak'\. Pass an object, such as whence\.TracIn"):
        whence.explain(objective, X[:1], method="trak")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"Got 'mse'\. Pass an object, such as whence\.Cross"):
        whence.from_torch(torch.nn.Linear(1, 2), "mse", (X, Y))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="Fit it several times, and pass all of them"):
        whence.stability(objective, (X, Y))
    with pytest.raises(InvalidInput, match="Expected labels among 0, 1, .* Got 7"):
        whence.explain(objective, (X[:1], [7]))


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(2),
        make_pipeline(StandardScaler(), ExtraTreesClassifier(2)),
        BaggingRegressor(n_estimators=2),
        KNeighborsClassifier(1),
        make_pipeline(StandardScaler(), KNeighborsClassifier(1)),
    ],
    ids=str,
)
def test_other_rows_than_those_of_the_fit_are_refused_by_their_number(model: BaseEstimator) -> None:
    model.fit(X, Y)
    assert len(whence.from_sklearn(model, X, Y).train) == 4
    with pytest.raises(InvalidInput, match=r"Expected the 4 rows that .* was fitted on\. Got 3\."):
        whence.from_sklearn(model, X[1:], Y[1:])


@pytest.mark.parametrize("kind", [np.bool_, np.uint8])
def test_a_mask_of_rows_is_told_how_to_become_positions(kind: type) -> None:
    objective, mask = whence.from_sklearn(MODEL, X, Y), (X[:, 0] > 1).astype(kind)
    with pytest.raises(InvalidInput, match=r"Got a mask, .*\. Pass numpy\.flatnonzero\(mask\)"):
        whence.group_effect(objective, mask, (X, Y))
    assert whence.group_effect(objective, np.flatnonzero(X[:, 0] > 2), (X, Y)).shape == (4,)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_is_what_generators_take(seed: int) -> None:
    assert whence.Projected(seed=2**64 - 1).seed == 2**64 - 1
    with pytest.raises(InvalidInput, match=f"seed from 0 to {2**64 - 1}. Got {seed}."):
        whence.Projected(seed=seed)


def test_a_whole_number_too_long_to_write_is_refused() -> None:
    """Python itself writes no more than 4,300 digits."""
    with pytest.raises(InvalidInput, match="Expected size below 2.*Got an int"):
        whence.Projected(size=10**5000)
    with pytest.raises(InvalidInput, match=f"Expected seed from 0 to {2**64 - 1}. Got an int"):
        whence.Projected(seed=10**5000)


def test_what_a_protocol_describes_is_passed_on() -> None:
    class Named(Protocol):
        name: str

    assert converted("model", MODEL, Named) is MODEL
