"""Sets whose removal flips a prediction, held against scikit-learn's own refits."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.svm import SVC

import whence
from whence.applications import flip_set as module
from whence.applications import retrainings
from whence.applications import shown as showing
from whence.applications.retrainings import fewest, is_cheap, keeping_classes
from whence.errors import InvalidInput


@pytest.mark.parametrize("classes", [2, 5])
def test_scikit_learn_flips_too(classes: int) -> None:
    x, y = load_digits(return_X_y=True)
    keep = y < classes if classes > 2 else (y == 3) | (y == 8)
    x, y = x[keep] / 16, y[keep]
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x[100:400], y[100:400])
    odds = model.predict_log_proba(x[:100])
    certainty = np.diff(np.sort(odds, 1)[:, -2:], axis=1)[:, 0]
    at = int(certainty.argmin())
    objective = whence.from_sklearn(model, x[100:400], y[100:400])
    found = whence.flip_set(objective, (x[at], y[at]))
    assert found.found
    assert found.lead_before > 0 > found.lead_after
    rest = np.setdiff1d(np.arange(found.n), found.positions)
    again = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000)
    again.fit(x[100:400][rest], y[100:400][rest])
    assert model.predict(x[at : at + 1])[0] == model.classes_[found.before]
    was, rest_says = (fit.predict_proba(x[at : at + 1])[0, found.before] for fit in (model, again))
    name = model.classes_[found.before]
    assert f"P({name}) falls from {100 * was:.1f} % to {100 * rest_says:.1f} %" in str(found)
    assert again.predict(x[at : at + 1])[0] == model.classes_[found.after]
    assert "becomes “" in str(found)
    assert found.to_frame()["position"].tolist() == found.positions.tolist()
    unlabeled = whence.flip_set(objective, x[at : at + 1])
    assert unlabeled.positions.tolist() == found.positions.tolist()
    if len(found.positions) > 1:
        without_last = np.setdiff1d(np.arange(found.n), found.positions[:-1])
        nearly = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000)
        nearly.fit(x[100:400][without_last], y[100:400][without_last])
        assert nearly.predict(x[at : at + 1])[0] == model.classes_[found.before]


def test_a_support_vector_machine_is_ranked_again_until_it_flips() -> None:
    x, y = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = scale(x)[order], (y[order] > 0).astype(int)
    model = SVC(kernel="linear", tol=1e-8).fit(x[:130], y[:130])
    at = 130 + int(np.abs(model.decision_function(x[130:])).argmin())
    objective = whence.from_sklearn(model, x[:130], y[:130])
    found = whence.flip_set(objective, (x[at], y[at]))
    assert found.found
    rest = np.setdiff1d(np.arange(130), found.positions)
    again = clone(model).fit(x[rest], y[rest])
    assert again.predict(x[[at]]) != model.predict(x[[at]])


@pytest.mark.parametrize("classes", [2, 3])
def test_a_page_shows_the_lead_after_each_eighth_of_the_set(classes: int, tmp_path: Path) -> None:
    x, y = load_wine(return_X_y=True)
    rows = (y < classes).nonzero()[0]
    x, y = scale(x)[rows][:, :4], y[rows]
    model = LogisticRegression(tol=1e-10).fit(x[1::2], y[1::2])
    sure = np.sort(model.predict_proba(x[::2]), 1)
    query = x[::2][[np.argsort(sure[:, -1] - sure[:, -2])[6]]]
    found = whence.flip_set(whence.from_sklearn(model, x[1::2], y[1::2]), (query, y[:1]))
    assert found.found

    def lead(fitted: LogisticRegression) -> float:
        f = 100 * fitted.predict_proba(query)[0]
        return float(f[found.before] - f[found.after])

    page = found.report(tmp_path / "page.html").read_text("utf-8").replace("−", "-")
    curve = re.search(r'class="scatter curve".*?</svg>', page, re.DOTALL)
    assert curve is not None
    points = re.findall(r"<title>(\d+): ([-\d.]+)", curve[0])
    m = len(found.positions)
    assert [int(at) for at, _ in points] == sorted({round(m * k / 8) for k in range(9)})
    for at, shown in points:
        rest = np.setdiff1d(np.arange(found.n), found.positions[: int(at)])
        assert float(shown) == pytest.approx(
            lead(clone(model).fit(x[1::2][rest], y[1::2][rest])), abs=0.06
        )
    odds = model.decision_function(query)[0]
    odds = [-odds / 2, odds / 2] if classes == 2 else odds
    assert found.lead_before == pytest.approx(odds[found.before] - odds[found.after], rel=1e-5)


@pytest.mark.parametrize("known", [True, False])
def test_colors_and_labels_are_those_of_the_page_of_the_same_prediction(
    known: bool, tmp_path: Path
) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x = scale(x)
    model = LogisticRegression(tol=1e-10).fit(x[:400], y[:400])
    wrong = 400 + int((model.predict(x[400:]) != y[400:]).argmax())
    trained = whence.from_sklearn(model, x[:400], y[:400])
    query = (x[wrong], y[wrong]) if known else x[wrong]
    meters = []
    for found in (whence.explain(trained, query, k=2), whence.flip_set(trained, query)):
        page = found.report(tmp_path / "page.html").read_text("utf-8")
        assert ("(the label in the data)" in page) == known
        meters.append(re.findall(r'<rect class="(toward|against) p', page)[:2])
    assert meters[0] == meters[1]


def test_a_set_ranked_again_is_no_larger_than_by_the_first_order() -> None:
    x, y = load_wine(return_X_y=True)
    x = scale(x)
    model = LogisticRegression(tol=1e-8).fit(x[::2], y[::2])
    objective = whence.from_sklearn(model, x[::2], y[::2])
    p = np.sort(model.predict_proba(x[1::2]), 1)
    for at in (p[:, -1] - p[:, -2]).argsort()[:5]:
        query = x[1::2][at], y[1::2][at]
        found = whence.flip_set(objective, query)

        def margin(
            f: torch.Tensor, y: torch.Tensor, a: int = found.before, b: int = found.after
        ) -> torch.Tensor:
            del y
            return f[:, a] - f[:, b]

        first = whence.influence(objective, query, measure=margin).values[0].argsort()
        m = 1
        while (
            model.predict([query[0]])[0]
            == (
                clone(model).fit(np.delete(x[::2], first[:m], 0), np.delete(y[::2], first[:m]))
            ).predict([query[0]])[0]
        ):
            m += 1
        assert found.found
        assert len(found.positions) <= m


@pytest.mark.parametrize(
    ("low", "guess", "last", "true_from", "asked"),
    [
        (0, 8, 40, 20, [8, 10, 12, 15, 18, 22, 20, 19]),
        (0, 8, 40, 3, [8, 4, 2, 3]),
        (2, 3, 40, 3, [3]),
        (0, 1, 3, 3, [1, 2]),
        (0, 3, 3, 4, [3]),
        (5, 5, 5, 6, []),
    ],
)
def test_a_condition_is_asked_upward_then_by_halves(
    low: int, guess: int, last: int, true_from: int, asked: list[int]
) -> None:
    tried: dict[int, bool] = {}

    def holds(m: int) -> bool:
        return tried.setdefault(m, m >= true_from)

    assert fewest(low, guess, last, holds) == min(true_from, last)
    assert list(tried) == asked


def test_the_first_set_tried_is_as_large_as_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = load_wine(return_X_y=True)
    x, y = scale(x)[y < 2], y[y < 2]
    model = LogisticRegression(tol=1e-10).fit(x[::2], y[::2])
    objective = whence.from_sklearn(model, x[::2], y[::2])
    monkeypatch.setattr(module, "is_cheap", lambda _: False)
    asked = []

    def recorded(low: int, guess: int, last: int, holds: Callable[[int], bool]) -> int:
        asked.append((low, guess, last))
        return fewest(low, guess, last, holds)

    monkeypatch.setattr(module, "fewest", recorded)
    for at in np.argsort(np.abs(model.decision_function(x[1::2])))[[3, 8]]:
        query, said = x[1::2][[at]], int(model.predict(x[1::2][[at]])[0])
        found = whence.flip_set(objective, (query, [said]))
        scores = whence.influence(objective, (query, [said]), order="newton", measure="margin")
        falls = np.sort(scores.values[0][scores.values[0] < 0])
        lead = abs(model.decision_function(query)[0])
        predicted = int(np.argmax(lead + np.cumsum(falls) <= 0)) + 1
        assert 1 < predicted < len(falls)
        low, guess, last = asked.pop()
        assert (low, guess) == (0, predicted)
        assert predicted <= last <= min(len(falls), len(x[::2]) // 2)
        assert found.found
        assert not asked


def test_what_is_cheap_to_refit_follows_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = load_iris(return_X_y=True)
    plain = whence.from_sklearn(LogisticRegression(max_iter=1000).fit(x, y), x, y)
    piped = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    scaled = whence.from_sklearn(piped, x, y)
    machine = whence.from_sklearn(SVC(kernel="sigmoid").fit(x, y), x, y)
    monkeypatch.setattr(retrainings, "_NUMBERS", 150 * len(scaled.params))
    assert [is_cheap(each) for each in (plain, scaled, machine)] == [True, True, False]
    monkeypatch.setattr(retrainings, "_NUMBERS", 150 * len(scaled.params) - 1)
    assert not is_cheap(scaled)
    for rows, refits in ((150, False), (149, True)):
        monkeypatch.setattr(showing, "REFITTED", rows)
        assert showing.refits_preprocessing(scaled) == refits
        assert not showing.refits_preprocessing(machine)


def test_a_class_keeps_an_example() -> None:
    x, y = load_iris(return_X_y=True)
    rows = [0, 1, 60, 61, 62, 120]
    model = LogisticRegression().fit(x[rows], y[rows])
    trained = whence.from_sklearn(model, x[rows], y[rows])
    assert keeping_classes(trained, np.array([2, 0, 3, 1])) == 3  # the second of two of class 0
    assert keeping_classes(trained, np.array([5, 0])) == 0
    assert keeping_classes(trained, np.array([2, 0, 3])) == 3
    ridge = whence.from_sklearn(Ridge().fit(x, y), x, y)
    assert keeping_classes(ridge, np.arange(len(y))) == len(y)


def test_its_lead_is_over_every_other_class() -> None:
    # It flips to the third class, while the class is still ahead of what was the runner-up.
    random = np.random.default_rng(87)
    y = np.arange(90) % 3
    angle = 2 * np.pi * y / 3
    x = np.stack([np.cos(angle), np.sin(angle)], 1) + random.normal(size=(90, 2))
    model = LogisticRegression(tol=1e-10).fit(x, y)
    queries = 0.4 * random.normal(size=(300, 2))
    outputs = np.sort(model.decision_function(queries), 1)
    nearly = outputs[:, 1] - outputs[:, 0] + np.abs(outputs[:, 2] - outputs[:, 1] - 0.15)
    query = queries[[nearly.argmin()]]
    found = whence.flip_set(whence.from_sklearn(model, x, y), query)
    before = model.decision_function(query)[0]
    assert found.found
    assert found.after == before.argsort()[0]
    assert found.lead_before == pytest.approx(np.diff(np.sort(before))[-1], abs=1e-6)
    kept = np.setdiff1d(np.arange(90), found.positions)
    after = LogisticRegression(tol=1e-10).fit(x[kept], y[kept]).decision_function(query)[0]
    assert found.lead_after == pytest.approx(after[found.before] - after.max(), abs=1e-6)
    assert found.lead_after < 0


def test_none_within_the_limit_is_said() -> None:
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(tol=1e-10, max_iter=5000).fit(x, y)
    found = whence.flip_set(whence.from_sklearn(model, x, y), (x[0], y[0]), largest=2)
    assert not found.found
    assert len(found.positions) == 0
    assert found.lead_after > 0
    assert "no set found" in str(found)


def test_nothing_is_removed_where_a_class_would_be_gone() -> None:
    x, y = np.array([[0.0], [2.0], [3.0]]), np.array([0, 1, 1])
    model = KNeighborsClassifier(1).fit(x, y)
    found = whence.flip_set(whence.from_sklearn(model, x, y), (x[:1], y[:1]))
    assert (found.found, found.tried, len(found.positions)) == (False, 0, 0)
    assert found.before == found.after == model.predict(x[:1])[0]
    assert found.lead_after == found.lead_before


def test_refusals() -> None:
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(tol=1e-10, max_iter=5000).fit(x, y)
    with pytest.raises(InvalidInput, match="Got 2 queries"):
        whence.flip_set(whence.from_sklearn(model, x, y), (x[:2], y[:2]))
    ridge = whence.from_sklearn(Ridge().fit(x, y), x, y)
    with pytest.raises(InvalidInput, match="one of several labels"):
        whence.flip_set(ridge, (x[0], y[0]))
