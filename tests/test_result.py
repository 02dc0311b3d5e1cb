"""What users get back prints in a line and shows as a card: no array, no markup from text."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import scale

import whence
from whence.evaluation import lds
from whence.result import Result


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """One of each kind, of a model whose training examples have hostile names."""
    X, y = load_breast_cancer(return_X_y=True)
    X = scale(X)[:, :5]
    model = LogisticRegression(tol=1e-8).fit(X[:120], y[:120])
    objective = whence.from_sklearn(model, X[:120], y[:120])
    names = np.array([f"<b>{i}</b>" for i in range(120)], dtype=object)
    objective = replace(objective, train=replace(objective.train, ids=names))
    query = X[130:131], y[130:131]
    explanation = whence.explain(objective, query, k=2)
    scores = whence.influence(objective, query)
    masks = torch.from_numpy(np.random.default_rng(0).random((6, 120)) < 0.5)
    outcomes = torch.randn(1, 6, 1, generator=torch.Generator().manual_seed(0))
    recipe = whence.Recipe(learning_rate=0.1, batch_size=20, epochs=2)
    x = torch.from_numpy(X[:40]).float()
    data = x, torch.from_numpy(y[:40])
    torch.manual_seed(0)
    run = whence.train(torch.nn.Linear(5, 2), whence.CrossEntropy(), data, recipe)
    return {
        "scores": scores,
        "ranking": scores.top(3),
        "explanation": explanation,
        "verification": explanation.verify(3),
        "flip set": whence.flip_set(objective, query),
        "label errors": whence.find_label_errors(objective),
        "comparison": whence.compare_influence(objective, objective, query),
        "LDS": lds(scores.values, masks, outcomes),
        "run": run,
        "removal curve": whence.removal_curve(objective, (X[130:140], y[130:140])),
        "stability": whence.stability([objective, objective], query, k=3),
        "spectrum": whence.spectrum(objective),
        "diagnosis": whence.diagnose(objective),
        "label flips": whence.attacks.flip_labels(objective, query, most=2),
    }


_KINDS = (
    "scores",
    "ranking",
    "explanation",
    "verification",
    "flip set",
    "label errors",
    "comparison",
    "LDS",
    "run",
    "removal curve",
    "stability",
    "spectrum",
    "diagnosis",
    "label flips",
)


@pytest.mark.parametrize("kind", _KINDS)
def test_prints_a_line_without_an_array(results: dict[str, Result], kind: str) -> None:
    line = repr(results[kind])
    assert len(line.splitlines()) == 1
    assert len(line) < 250
    assert not re.search(r"array|tensor\(|\[", line)
    assert not str(results[kind]).startswith("<")


@pytest.mark.parametrize("kind", _KINDS)
def test_shows_a_short_card_with_every_text_escaped(results: dict[str, Result], kind: str) -> None:
    card = results[kind]._repr_html_()
    assert "<b>" not in card
    assert "<strong>" in card
    assert card.count("<tr") <= 22
    assert card.count("<div") == card.count("</div>")
