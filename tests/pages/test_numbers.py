"""Numbers on pages are, to the digits shown, those of refits of a clone of the user's model.

The page about many predictions: tests/applications/test_report.py.
"""

from __future__ import annotations

import json
import math
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from whence.evaluation import retraining_ensemble

_ROWS = 120


@pytest.fixture(scope="module")
def tumors() -> tuple[Any, pd.DataFrame, pd.Series[Any]]:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X = X.iloc[:, [0, 1, 4, 8, 9]].assign(large=(X["mean area"] > 600).astype(int))
    y = y.map({0: "malignant", 1: "benign"})
    model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, solver="newton-cholesky"))
    return model.fit(X[:_ROWS], y[:_ROWS]), X, y


def refit(tumors: tuple[Any, pd.DataFrame, pd.Series[Any]], gone: list[int]) -> Any:
    model, X, y = tumors
    keep = ~np.isin(np.arange(_ROWS), gone)
    return clone(model).fit(X[:_ROWS][keep], y[:_ROWS][keep])


def data_of(page: Path) -> Any:
    found = re.search(r'id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def words_of(page: Path) -> str:
    """Return what a page says, without its scripts and styles."""
    text = re.sub(r"(?s)<(script|style).*?</\1>", "", page.read_text("utf-8"))
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", text)))


def points_of(page: Path) -> list[tuple[int, str]]:
    """Return the points of the curve on a page: how many are removed, and the number shown."""
    found = re.findall(r"<title>(\d+): ([−\d.]+(?: %)?)</title>", page.read_text("utf-8"))
    return [(int(count), text.replace("−", "-")) for count, text in found]


def share(model: Any, query: pd.DataFrame, name: str) -> float:
    return 100 * float(model.predict_proba(query)[0, list(model.classes_).index(name)])


def loss(model: Any, query: pd.DataFrame, label: str) -> float:
    return -math.log(share(model, query, label) / 100)


def near(shown: str, expected: float) -> bool:
    """Return whether a number is another to its last digit, or to the one before by rounding."""
    digits, _, power = shown.replace("−", "-").partition("e")
    unit = 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
    return abs(float(digits) * 10.0 ** int(power or 0) - expected) <= 1.01 * unit


def test_one_prediction(tumors: tuple[Any, pd.DataFrame, pd.Series[Any]], tmp_path: Path) -> None:
    model, X, y = tumors
    trained = whence.from_sklearn(model, X[:_ROWS], y[:_ROWS])
    query, label = X[135:136], str(y[135])
    page = whence.explain(trained, (query, y[135:136]), k=3).report(tmp_path / "why.html", verify=6)
    head, own, *rows = data_of(page)
    at, again = head.index(f"without it, P({label}) is"), head.index("retrained")
    assert near(own[at].removesuffix(" %"), share(model, query, label))
    assert len(rows) == 6
    for row in rows:
        without = share(refit(tumors, [int(row[1])]), query, label)
        assert near(row[at].removesuffix(" %"), without)
        assert near(row[again].removesuffix(" %"), without)
    ranking = whence.flip_set(trained, (query, y[135:136])).positions.tolist()
    points = points_of(page)
    assert len(points) > 3
    for count, text in points:
        assert near(text.removesuffix(" %"), share(refit(tumors, ranking[:count]), query, label))


def test_a_flip_set(tumors: tuple[Any, pd.DataFrame, pd.Series[Any]], tmp_path: Path) -> None:
    model, X, y = tumors
    trained = whence.from_sklearn(model, X[:_ROWS], y[:_ROWS])
    query = X[135:136]
    found = whence.flip_set(trained, (query, y[135:136]))
    page = found.report(tmp_path / "flip.html")
    shown = re.findall(r"“(\w+)” (\d+) %", words_of(page))
    assert len(shown) == 4
    for fitted, shares in (
        (model, shown[:2]),
        (refit(tumors, found.positions.tolist()), shown[2:]),
    ):
        for name, text in shares:
            assert near(text, share(fitted, query, name))
    assert f"{len(found.positions)} of {_ROWS}" in page.read_text("utf-8")
    points = points_of(page)
    assert [count for count, _ in points] == list(range(len(found.positions) + 1))
    for count, text in points:
        fitted = refit(tumors, found.positions[:count].tolist())
        lead = share(fitted, query, shown[0][0]) - share(fitted, query, shown[1][0])
        assert near(text.removesuffix(" %"), lead)
    assert [name for name, _ in shown[:2]] == [name for name, _ in shown[2:]]


def test_groups(tumors: tuple[Any, pd.DataFrame, pd.Series[Any]], tmp_path: Path) -> None:
    model, X, y = tumors
    trained = whence.from_sklearn(model, X[:_ROWS], y[:_ROWS])
    queries, labels = X[_ROWS:160], y[_ROWS:160]
    found = whence.domain_mismatch(trained, (queries, labels), columns="large")
    data = data_of(found.report(tmp_path / "groups.html"))
    names = [column["name"] for column in data["columns"]]
    before = log_loss(labels, model.predict_proba(queries))
    assert len(data["rows"]) == 2
    for row in data["rows"]:
        level = int(data["items"][row[0]]["title"].removeprefix("large = "))
        gone = np.flatnonzero(X["large"][:_ROWS] == level).tolist()
        saved = before - log_loss(labels, refit(tumors, gone).predict_proba(queries))
        assert row[names.index("Loss saved without it")] == pytest.approx(saved, rel=1e-4)
    assert "The model is right on" in words_of(tmp_path / "groups.html")


def test_label_errors(tumors: tuple[Any, pd.DataFrame, pd.Series[Any]], tmp_path: Path) -> None:
    """What is ranked by is called an estimate; all else is that of fits at the penalty named."""
    model, X, y = tumors
    trained = whence.from_sklearn(model, X[:_ROWS], y[:_ROWS])
    errors = whence.find_label_errors(trained)
    page = errors.report(tmp_path / "labels.html", rows=12)
    data, said = data_of(page), words_of(page)
    names = [column["name"] for column in data["columns"]]
    assert names == ["Training example", "Label", "Suggested", "Estimated held-out loss", "Loss"]
    assert f"at {errors.penalty:g} times the fitted penalty" in said
    asked = clone(model).set_params(logisticregression__C=1 / errors.penalty)
    fitted = clone(asked).fit(X[:_ROWS], y[:_ROWS])
    for at, label, suggested, _, own in data["rows"]:
        place = int(data["items"][at]["title"].rpartition(" ")[2])
        row = X[place : place + 1]
        assert label == y[place]
        assert own == pytest.approx(loss(fitted, row, label), abs=1e-3)
        assert suggested == refit((asked, X, y), [place]).predict(row)[0]
    right = [refit(tumors, [at]).predict(X[at : at + 1])[0] == y[at] for at in range(_ROWS)]
    assert f"The model is right on {100 * np.mean(right):.0f} of 100 examples" in said
    count, error = re.findall(r"About (\d+) of 120 labels .*? give or take (\d+)", said)[0]
    assert errors.wrong is not None
    assert (int(count), int(error)) == (round(errors.wrong.count), round(errors.wrong.error))


def test_a_comparison(tumors: tuple[Any, pd.DataFrame, pd.Series[Any]], tmp_path: Path) -> None:
    model, X, y = tumors
    other = clone(model).set_params(logisticregression__C=0.05).fit(X[:_ROWS], y[:_ROWS])
    both = [whence.from_sklearn(each, X[:_ROWS], y[:_ROWS]) for each in (model, other)]
    query, label = X[135:136], str(y[135])
    found = whence.compare_influence(*both, (query, y[135:136]))
    page = found.report(tmp_path / "comparison.html")
    lines = [row for row in data_of(page) if row[0].isdigit()]
    assert len(lines) == 24
    shares = re.findall(r"“(\w+)” (\d+) %", words_of(page))
    for part, shown, own in (
        (shares[:2], lines[:12], model),
        (shares[2:], lines[12:], other),
    ):
        assert all(near(text, share(own, query, name)) for name, text in part)
        for name, _, without, *_ in shown:
            again = refit((own, X, y), [int(name)])
            assert near(without.removesuffix(" %"), share(again, query, label))
    order = spearmanr(found.a.values[0], found.b.values[0]).statistic
    assert f"{order:.2f} is how alike" in words_of(page)
    for name in ("first", "second"):
        assert f"The {name} model: The model is right on" in words_of(page)


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_a_diagnosis(tumors: tuple[Any, pd.DataFrame, pd.Series[Any]], tmp_path: Path) -> None:
    """Of a fit that stopped early, whose gradient is not 0; by the formulas of the loss."""
    _, X, y = tumors
    rows = StandardScaler().fit_transform(X[:_ROWS])
    model = LogisticRegression(tol=1e-2).fit(rows, y[:_ROWS])
    said = words_of(
        whence.diagnose(whence.from_sklearn(model, rows, y[:_ROWS])).report(tmp_path / "is_it.html")
    )
    ones = np.c_[rows, np.ones(_ROWS)]
    theta = np.r_[model.coef_[0], model.intercept_]
    p = model.predict_proba(rows)[:, 1]
    penalty = np.r_[np.ones(rows.shape[1]), 0] / _ROWS
    each = (p - (y[:_ROWS] == model.classes_[1]).to_numpy())[:, None] * ones / _ROWS
    gradient = each.sum(0) + penalty * theta
    hessian = (ones.T * (p * (1 - p))) @ ones / _ROWS + np.diag(penalty)
    low, *_, high = np.linalg.eigvalsh(hessian)
    typical = math.sqrt((each * np.linalg.solve(hessian, each.T).T).sum(1).mean())
    rest = math.sqrt(gradient @ np.linalg.solve(hessian, gradient)) / typical
    number = r"([\d.]+(?:e[-+]\d+)?)"
    shown = re.findall(f"eigenvalues from {number} to {number}", said)[0]
    assert near(shown[0], low)
    assert near(shown[1], high)
    assert near(re.findall(f"gradient norm {number}", said)[0], float(np.linalg.norm(gradient)))
    assert near(re.findall(f"as much as removing {number} typical", said)[0], rest)


def test_an_evaluation(tumors: tuple[Any, pd.DataFrame, pd.Series[Any]], tmp_path: Path) -> None:
    model, X, y = tumors
    trained = whence.from_sklearn(model, X[:_ROWS], y[:_ROWS])
    queries, labels = X[_ROWS : _ROWS + 5], y[_ROWS : _ROWS + 5]

    def losses(weights: torch.Tensor, seed: int) -> torch.Tensor:
        without = refit(tumors, np.flatnonzero(weights.numpy() == 0).tolist())
        pairs = zip(range(_ROWS, _ROWS + 5), labels, strict=True)
        return torch.tensor([loss(without, X[at : at + 1], label) for at, label in pairs])

    score = whence.evaluate(trained, (queries, labels), subsets=12)
    page = whence.report_evaluation(score, tmp_path / "score.html", names=list(queries.index))
    own = retraining_ensemble(
        losses, _ROWS, subsets=12, seeds=1, fingerprint="", directory=tmp_path / "own"
    )
    predicted = whence.influence(trained, (queries, labels)).values @ (~own.masks).numpy().T
    actual = own.outcomes[0].numpy()
    expected = {
        str(queries.index[q]): spearmanr(predicted[q], actual[:, q]).statistic for q in range(5)
    }
    _, *rows = data_of(page)
    assert {name for name, _ in rows} == set(expected)
    assert all(near(number, expected[name]) for name, number in rows)
    mean = re.findall(r"([\d.]+) is the mean rank correlation", words_of(page))[0]
    assert near(mean, float(np.mean(list(expected.values()))))


def test_an_attack(tmp_path: Path) -> None:
    """The losses and what is said are those of the top layer fitted on the changed inputs."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 5), torch.nn.Softplus())
    network = network.double().requires_grad_(False)
    images = torch.rand(50, 1, 6, 6, dtype=torch.float64) * 2 - 1
    y = (images[:, 0, :3].mean((1, 2)) > images[:, 0, 3:].mean((1, 2))).long()
    top = LogisticRegression(C=100, tol=1e-10, max_iter=5000).fit(network(images[:40]), y[:40])
    trained = whence.from_frozen(network, top, images[:40], y[:40])
    asked = (images[40:43], y[40:43])
    found = whence.attacks.attack(trained, asked, n_images=2, budget=0.1, steps=3)
    said = words_of(found.report(tmp_path / "attack.html"))
    changed = images[:40].clone()
    changed[torch.from_numpy(found.positions)] = found.inputs
    again = clone(top).fit(network(changed), y[:40])
    features = network(asked[0])
    number = r"([\d.]+)"
    for text, fitted in zip(
        re.findall(f"mean loss {number} → {number}", said)[0], (top, again), strict=True
    ):
        assert near(text, log_loss(asked[1], fitted.predict_proba(features), labels=[0, 1]))
    largest = float((changed - images[:40]).abs().max())
    assert near(re.findall(f"by more than {number};", said)[0].rstrip("."), largest)
    before, now = top.predict(features), again.predict(features)
    for at, (old, new) in enumerate(zip(before, now, strict=True)):
        then = "and still" if old == new else f"then {new}"
        assert f"Query {at} The model says {old} at first, {then}" in said
    assert f"{int((before != now).sum())} of 3 queries flip after training from nothing" in said


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_a_language_model(tmp_path: Path) -> None:
    """The answer is the library's; no size of an effect is shown, and the page says so."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=12, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    texts = [{"input_ids": torch.randint(1, 20, (8,)).tolist()} for _ in range(6)]
    trained = whence.from_transformers(model, texts, params=lambda name, p: "mlp" in name)
    page = whence.explain(trained, texts[2:3], k=2).report(tmp_path / "why.html")
    ids = torch.tensor([texts[2]["input_ids"]])
    mean = float(model(input_ids=ids, labels=ids).loss.detach())
    said = words_of(page)
    found = re.findall(r"each of the (\d+) tokens with probability (\d+) % \(loss ([\d.]+)\)", said)
    count, probability, nats = found[0]
    assert count == "7"
    assert near(probability, 100 * math.exp(-mean))
    assert near(nats, mean)
    head, own, *rows = data_of(page)
    assert head[-2:] == ["rank", "retrained"]
    assert own[-2:] == ["", ""]
    assert {row[-2] for row in rows} <= {"1", "2"}
    assert "The sizes of single effects are not known well enough to be shown" in said
    assert "The parts add up to the first-order effect; each text is scaled to its own" in said
