"""The page about many predictions: what it holds is what retraining gives."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from whence.errors import InvalidInput


def data_of(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert found is not None
    read: dict[str, Any] = json.loads(found[1])
    return read


@pytest.fixture(scope="module")
def digits() -> tuple[LogisticRegression, Any, Any, Any]:
    x, y = load_digits(return_X_y=True)
    model = LogisticRegression(tol=1e-8, max_iter=10_000).fit(x[:150] / 16, y[:150])
    return model, x / 16, y, whence.from_sklearn(model, x[:150] / 16, y[:150])


def test_effects_are_those_of_refits_with_the_users_library(
    digits: tuple[LogisticRegression, Any, Any, Any], tmp_path: Path
) -> None:
    """Of digits the first order is several times too small: what is shown is refined."""
    model, x, y, objective = digits
    data = data_of(whence.report(objective, (x[150:158], y[150:158]), tmp_path / "many.html", k=1))
    for q, row in enumerate(data["rows"]):
        query, label = x[150 + q : 151 + q], y[150 + q]
        before = 100 * model.predict_proba(query)[0, label]
        assert row[3][0] == pytest.approx(before, rel=1e-4)
        for example, size, text in (*row[4], *row[5]):
            position = int(data["items"][example]["title"].removeprefix("Training example "))
            keep = np.arange(150) != position
            refit = clone(model).fit(x[:150][keep], y[:150][keep])
            change = 100 * refit.predict_proba(query)[0, label] - before
            assert size == pytest.approx(change, rel=0.1, abs=1e-4)
            assert text.endswith(" points")
        assert all(size < 0 for _, size, _ in row[4])
        assert all(size > 0 for _, size, _ in row[5])


def test_the_page_does_not_depend_on_how_many_scores_are_held(
    digits: tuple[LogisticRegression, Any, Any, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, x, y, objective = digits
    asked, module = (x[150:153], y[150:153]), sys.modules["whence.applications.report"]
    monkeypatch.setattr(module, "_affordable", lambda *_: False)  # the first order, as it is
    pages = []
    for held in (2**22, 300):
        monkeypatch.setattr(module, "_SCORES", held)
        pages.append(data_of(whence.report(objective, asked, tmp_path / "many.html", k=3)))
    assert pages[0] == pages[1]
    found = whence.influence(objective, asked, measure="probability")
    for row, scores in zip(pages[0]["rows"], found.values, strict=True):
        names = [f"Training example {at}" for at in np.argsort(scores, kind="stable")]
        shown = [[pages[0]["items"][at]["title"] for at, *_ in side] for side in row[4:6]]
        assert shown == [names[:3], names[:-4:-1]]


@pytest.mark.parametrize(
    ("limits", "enough"),
    [
        ({"_OPERATIONS": 10 * 7 * 150 * 15, "_AGAIN": 7, "_SMALL": 0}, True),
        ({"_OPERATIONS": 10 * 7 * 150 * 15 - 1}, False),
        ({"_AGAIN": 6, "_SMALL": 0}, False),
        ({"_AGAIN": 3, "_SMALL": 150 * 15}, True),
        ({"_AGAIN": 2, "_SMALL": 150 * 15}, False),
        ({"_AGAIN": 6, "_SMALL": 150 * 15 - 1}, False),
    ],
)
def test_what_is_refined_follows_its_size(
    limits: dict[str, int], enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    module = sys.modules["whence.applications.report"]
    for name, limit in limits.items():
        monkeypatch.setattr(module, name, limit)
    assert module._affordable(whence.from_sklearn(model, x, y), 7) == enough


def test_sizes_that_are_not_known_are_bars_without_numbers(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    data = torch.tensor(x[::2], dtype=torch.float32), torch.tensor(y[::2])
    recipe = whence.Recipe(learning_rate=0.3, batch_size=25, epochs=10)
    run = whence.train(model, whence.CrossEntropy(), data, recipe)
    queries = torch.tensor(x[1:9:2], dtype=torch.float32), torch.tensor(y[1:9:2])
    page = whence.report(run, queries, tmp_path / "many.html", k=2, method=whence.TracIn())
    rows = data_of(page)["rows"]
    assert {text for row in rows for _, _, text in (*row[4], *row[5])} == {""}
    assert "not known well enough to be shown" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("most", "sized"), [(20, True), (8, True), (1, False)])
def test_a_pipeline_has_sizes_unless_they_take_too_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, most: int, sized: bool
) -> None:
    """At 20 all candidates are refined, at 8 those that are shown, at 1 none."""
    module = sys.modules["whence.applications.report"]
    monkeypatch.setattr(module, "_AGAIN", most)
    x, y = load_iris(return_X_y=True, as_frame=True)
    x, y = x[y < 2], y[y < 2]
    model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10)).fit(x[::2], y[::2])
    trained = whence.from_sklearn(model, x[::2], y[::2])
    query = x[1:80:26], y[1:80:26]
    page = whence.report(trained, query, tmp_path / "many.html", k=2)
    data = data_of(page)
    effects = [effect for row in data["rows"] for effect in (*row[4], *row[5])]
    assert (all if sized else any)(text for _, _, text in effects) == sized
    assert ("for a smaller k, to see sizes" in page.read_text(encoding="utf-8")) != sized
    if sized:
        example, size, _ = data["rows"][0][4][0]
        name = int(data["items"][example]["title"].removeprefix("Training example "))
        refit = clone(model).fit(x[::2].drop(name), y[::2].drop(name))
        before, after = (m.predict_proba(query[0][:1])[0, 0] for m in (model, refit))
        assert size == pytest.approx(100 * (after - before), rel=0.01)


def test_every_column_is_there_to_search_and_open(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(80, 13)), columns=[f"c{j}" for j in range(13)])
    y = (X.c12 > 0).astype(int)
    objective = whence.from_sklearn(LogisticRegression(tol=1e-8).fit(X, y), X, y)
    data = data_of(whence.report(objective, (X[:3], y[:3]), tmp_path / "many.html", k=1))
    assert data["names"] == list(X.columns)
    assert {len(item["cells"]) for item in data["items"]} == {13}


def test_queries_that_the_model_was_fitted_on_are_named(tmp_path: Path) -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=1000).fit(X[::2], y[::2])
    trained = whence.from_sklearn(model, X[::2], y[::2])
    for row, said in ((70, True), (71, False)):  # 70 is a mistake that carries itself
        page = whence.report(trained, (X.loc[[row]], y.loc[[row]]), tmp_path / "page.html")
        words = f"1 query is among the training examples behind it: {row}."
        assert (words in page.read_text("utf-8")) == said


def test_queries_without_labels_have_no_label(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    objective = whence.from_sklearn(LogisticRegression(max_iter=1000).fit(x, y).fit(x, y), x, y)
    page = whence.report(objective.refit(), x[:3], tmp_path / "many.html", k=1)
    data = data_of(page)
    assert [column["name"] for column in data["columns"]] == [
        "Query",
        "Model says",
        "P(answer)",
        "Push to the answer",
        "Push away from the answer",
    ]
    assert data["differ"] is None


def test_examples_behind_many_queries_come_first(
    digits: tuple[LogisticRegression, Any, Any, Any], tmp_path: Path
) -> None:
    _, x, y, objective = digits
    page = whence.report(objective, (x[150:190], y[150:190]), tmp_path / "many.html", k=3)
    data = data_of(page)
    counts: dict[int, int] = {}
    for row in data["rows"]:
        for example, _, _ in (*row[4], *row[5]):
            counts[example] = counts.get(example, 0) + 1
    most = max(counts, key=lambda example: (counts[example], -example))
    text = page.read_text(encoding="utf-8").split('id="carriers"')[1].split("</section>")[0]
    groups = text.split("<table>")[1:]  # those that carry answers, those that oppose
    first = [
        re.findall(r'<th scope="row" dir="auto"><a [^>]*>([^<]*)</a>', one)[0] for one in groups
    ]
    assert data["items"][most]["title"] in first


def test_a_hostile_column_is_shown_not_run(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    frame = pd.DataFrame(x, columns=["a", "b", "<script>alert(1)</script>", "d"])
    model = LogisticRegression(tol=1e-8, max_iter=1000).fit(frame, y)
    objective = whence.from_sklearn(model, frame, y)
    page = whence.report(objective, (frame[:3], y[:3]), tmp_path / "many.html")
    assert "<script>alert(1)" not in page.read_text(encoding="utf-8")


def test_a_regression_shows_predictions(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    model = Ridge().fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    page = whence.report(objective, (x[:3], y[:3]), tmp_path / "many.html", k=1)
    data = data_of(page)
    assert data["columns"][2]["name"] == "Prediction"
    values = [row[2][0] for row in data["rows"]]
    np.testing.assert_allclose(values, model.predict(x[:3]), rtol=1e-4)
    assert "nats" not in page.read_text(encoding="utf-8").split("<main")[1].split("</main>")[0]


def test_refusals(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    objective = whence.from_sklearn(Ridge().fit(x, y), x, y)
    with pytest.raises(InvalidInput, match="Got 0"):
        whence.report(objective, (x[:3], y[:3]), tmp_path / "many.html", k=0)
    with pytest.raises(InvalidInput, match="without method="):
        whence.report(
            objective, (x, y), tmp_path / "many.html", method=whence.Influence(), damping=1.0
        )
    assert not list(tmp_path.iterdir())


def test_classes_without_names_are_right_where_they_are(tmp_path: Path) -> None:
    """A network's classes are numbers: what it says and the label are written alike."""
    x, y = load_iris(return_X_y=True)
    rows, labels = torch.from_numpy(x[::3]), torch.from_numpy(y[::3])
    fitted = LogisticRegression(C=0.01, tol=1e-8, fit_intercept=False).fit(x[::3], y[::3])
    module = torch.nn.Linear(4, 3, bias=False, dtype=torch.float64)
    module.weight.data = torch.from_numpy(fitted.coef_)
    objective = whence.from_torch(module, whence.CrossEntropy(), (rows, labels), l2=2.0)
    data = data_of(whence.report(objective, (rows, labels), tmp_path / "many.html"))
    right = fitted.predict(x[::3]) == y[::3]
    assert 0 < right.sum() < len(right)
    assert [row[1] == row[2] for row in data["rows"]] == right.tolist()
