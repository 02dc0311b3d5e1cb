"""Changed cells against scikit-learn fitted on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import whence
from whence.applications import cell_changes
from whence.errors import InvalidInput, UnsupportedModel
from whence.objective.objective import objective_of


def shops() -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """A table of a number, a whole number and a category."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "price": rng.normal(10, 2, 90),
            "rooms": rng.integers(1, 6, 90),
            "area": pd.Categorical(rng.choice(["north", "south", "west"], 90)),
        }
    )
    sure = frame.price - 10 + frame.rooms - 3 + 2 * (frame.area == "north")
    return frame, np.where(sure + rng.normal(0, 2, 90) > 0, "sold", "kept")


PIPELINE = make_pipeline(
    make_column_transformer((StandardScaler(), ["price", "rooms"]), (OneHotEncoder(), ["area"])),
    LogisticRegression(tol=1e-10, C=1.0, class_weight="balanced"),
)


def test_numbers_whole_numbers_and_categories() -> None:
    x, y = shops()
    sure = np.abs(clone(PIPELINE).fit(x[1:], y[1:]).decision_function(x))
    order = np.roll(np.argsort(sure), -25)  # a query that no single cell turns comes first
    x, y = x.iloc[order].reset_index(drop=True), y[order]
    fitted = clone(PIPELINE).fit(x[1:], y[1:])
    query = x[:1], fitted.predict(x[:1])
    trained = whence.from_sklearn(fitted, x[1:], y[1:])
    found = whence.attacks.change_cells(trained, query, most=12)
    changed = x[1:].reset_index(drop=True)
    for place, (_, each) in enumerate(found.to_frame().iterrows(), 1):
        at = found.positions[place - 1]
        assert changed.loc[at, each["column"]] == each["before"] != each["after"]
        changed.loc[at, each["column"]] = each["after"]
        assert changed.dtypes.equals(x.dtypes)
        refit = clone(PIPELINE).fit(changed, y[1:])
        loss = log_loss(query[1], refit.predict_proba(query[0]), labels=refit.classes_)
        assert found.losses[place] == pytest.approx(loss, rel=1e-5)
    assert (np.diff(found.losses) > 0).all()
    assert found.flipped.tolist() == [refit.predict(query[0])[0] != query[1][0]]
    assert found.flipped.all()
    assert changed.price.between(x.price[1:].min(), x.price[1:].max()).all()
    assert 1 < len(found.columns) < 12
    assert f"{len(found.columns)} changed cells" in str(found)


def test_only_what_bounds_and_indices_allow() -> None:
    x, y = shops()
    trained = whence.from_sklearn(clone(PIPELINE).fit(x[1:], y[1:]), x[1:], y[1:])
    found = whence.attacks.change_cells(
        trained,
        (x[:1], y[:1]),
        bounds={"rooms": (1.5, 4.2), "area": ["north"]},
        indices=[3, 4, 50],
        most=5,
    )
    assert set(found.positions) <= {3, 4, 50}
    assert len(set(zip(found.positions, found.columns, strict=True))) == len(found.columns) > 1
    for name, value in zip(found.columns, found.after, strict=True):
        assert value in {"rooms": (2, 4), "area": ("north",)}[name]


def test_the_changes_that_are_fitted_have_the_largest_derivatives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, weights = (x[:, :3] - x[:, :3].mean(0)) / x[:, :3].std(0), np.linspace(0.5, 1.5, 40)
    weights[7] = 0
    model = LogisticRegression(tol=1e-10).fit(x[2:42], y[2:42], sample_weight=weights)
    objective = objective_of(whence.from_sklearn(model, x[2:42], y[2:42], sample_weight=weights))
    queries = objective.examples((x[:2], y[:2]))
    monkeypatch.setattr(cell_changes, "_ROWS", 12)
    pulls = whence.influence(objective, queries).values.mean(0)
    among = np.setdiff1d(np.arange(40), [3])
    strong = among[np.argsort(-np.abs(pulls[among]), kind="stable")[:12]]
    rises = {}
    for row in strong.tolist():
        for column, value in ((0, -2.0), (0, 2.0), (2, 1.0)):
            new = x[2 + row].copy()
            new[column] = value
            change = whence.edit(objective, row, new, y[2 + row], queries, order="first")
            rises[row, column, value] = change.mean()
    done = max(rises, key=lambda key: rises[key])
    made = cell_changes._Change(rise=0.0, row=done[0], column=done[1], value=done[2])
    found = cell_changes._best(objective, queries, {0: (-2.0, 2.0), 2: (1.0,)}, among, [made])
    left = {key: rise for key, rise in rises.items() if key[:2] != done[:2] and rise > 0}
    expected = sorted(left, key=lambda key: -left[key])[:3]
    assert [(each.row, each.column, each.value) for each in found] == expected
    np.testing.assert_allclose([each.rise for each in found], [left[key] for key in expected])


def test_an_array_of_three_classes() -> None:
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(tol=1e-10, max_iter=1000).fit(x[1:], y[1:])
    trained = whence.from_sklearn(model, x[1:], y[1:])
    found = whence.attacks.change_cells(trained, (x[:1], y[:1]), bounds={2: (0.5, 9.0)}, most=2)
    assert set(found.after) <= {0.5, 9.0}
    changed = x[1:].copy()
    changed[found.positions, 2] = found.after
    refit = clone(model).fit(changed, y[1:])
    loss = log_loss(y[:1], refit.predict_proba(x[:1]), labels=refit.classes_)
    assert found.losses[-1] == pytest.approx(loss, rel=1e-4)


def test_what_cannot_be_changed() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[:200], y[:200])
    trained = whence.from_sklearn(model, x[:200], y[:200])
    with pytest.raises(InvalidInput, match="such as 0"):
        whence.attacks.change_cells(trained, (x[:1], y[:1]), bounds={"radius": (0, 1)})
    with pytest.raises(InvalidInput, match=r"\(low, high\)"):
        whence.attacks.change_cells(trained, (x[:1], y[:1]), bounds={0: (1, 0)})
    with pytest.raises(InvalidInput, match="most"):
        whence.attacks.change_cells(trained, (x[:1], y[:1]), most=0)
    frame, sold = shops()
    table = whence.from_sklearn(clone(PIPELINE).fit(frame, sold), frame, sold)
    with pytest.raises(InvalidInput, match="values that column 'area' has"):
        whence.attacks.change_cells(table, (frame[:1], sold[:1]), bounds={"area": ["east"]})
    with pytest.raises(InvalidInput, match="holds whole numbers"):
        whence.attacks.change_cells(table, (frame[:1], sold[:1]), bounds={"rooms": [1.5]})
    objective = whence.from_frozen(
        torch.nn.Identity(),
        LogisticRegression().fit(x[:50, :3], y[:50]),
        torch.tensor(x[:50, :3]),
        y[:50],
    )
    with pytest.raises(UnsupportedModel, match="of a frame"):
        whence.attacks.change_cells(objective, (x[:1, :3], y[:1]))


def test_a_column_without_a_value_has_none_to_take() -> None:
    x, y = shops()
    x["garden"] = np.nan
    encode = make_column_transformer(
        (SimpleImputer(keep_empty_features=True), ["price", "rooms", "garden"]),
        (OneHotEncoder(), ["area"]),
    )
    model = make_pipeline(encode, StandardScaler(), LogisticRegression(tol=1e-10))
    trained = whence.from_sklearn(model.fit(x[1:], y[1:]), x[1:], y[1:])
    found = whence.attacks.change_cells(trained, (x[:1], y[:1]), most=2)
    assert len(found.columns)
    assert "garden" not in found.columns
    bounds = {"garden": (0.2, 0.7)}
    found = whence.attacks.change_cells(trained, (x[:1], y[:1]), bounds=bounds, most=1)
    assert set(found.after) <= {0.2, 0.7}


def test_infinite_cells_are_no_bounds_and_one_value_is_a_list_of_one() -> None:
    x, y = shops()
    x["beside"] = np.r_[np.inf, -np.inf, np.linspace(0.5, 2.0, 88)]
    trained = whence.from_sklearn(clone(PIPELINE).fit(x[1:], y[1:]), x[1:], y[1:])
    query = x[:1].assign(beside=1.0), y[:1]
    assert len(whence.attacks.change_cells(trained, query, most=2).columns)
    found = whence.attacks.change_cells(trained, query, bounds={"area": "west"}, most=2)
    assert set(found.after) == {"west"}
