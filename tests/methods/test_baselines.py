"""Words in common and hidden states, against the formulas written out."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from torch import nn

import whence
from whence.errors import InvalidInput, UnsupportedModel

TEXTS = [[2, 3, 4, 3], [5, 6], [2, 7, 8, 9, 2, 2], [3, 5, 9], [10]]
QUERIES = [[3, 5, 5], [2, 9, 11]]


@pytest.fixture(scope="module")
def language_model() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=12, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    texts = [{"input_ids": text} for text in TEXTS]
    return whence.from_transformers(GPT2LMHeadModel(config).eval(), texts)


def asked() -> list[dict[str, list[int]]]:
    return [{"input_ids": text} for text in QUERIES]


def test_bm25_is_its_formula(language_model: Any) -> None:
    """Padding is no word, and a word that only queries have counts nothing."""
    method = whence.BM25(k1=1.2, b=0.6)
    found = method.fit(language_model).scores(asked(), indices=[3, 0, 1, 2, 4])
    mean = sum(map(len, TEXTS)) / len(TEXTS)
    for q, query in enumerate(QUERIES):
        for place, i in enumerate([3, 0, 1, 2, 4]):
            text, total = Counter(TEXTS[i]), 0.0
            for word in query:
                having = sum(word in other for other in TEXTS)
                idf = math.log(1 + (len(TEXTS) - having + 0.5) / (having + 0.5))
                held = 1.2 * (1 - 0.6 + 0.6 * len(TEXTS[i]) / mean)
                total += idf * text[word] * 2.2 / (text[word] + held)
            assert found.values[q, place] == pytest.approx(total)
    assert found.measure == "loss, as words in common"
    with pytest.raises(InvalidInput, match="k1 >= 0"):
        whence.BM25(b=2)


def test_tfidf_is_its_formula(language_model: Any) -> None:
    found = whence.TfIdfCosine().fit(language_model).scores(asked())

    def vector(text: list[int]) -> np.ndarray:
        counts = Counter(text)
        weights = [
            counts[word] * (math.log((1 + len(TEXTS)) / (1 + having)) + 1) if having else 0.0
            for word in range(12)
            for having in [sum(word in other for other in TEXTS)]
        ]
        return np.array(weights) / np.linalg.norm(weights)

    expected = [[vector(query) @ vector(text) for text in TEXTS] for query in QUERIES]
    np.testing.assert_allclose(found.values, expected, atol=1e-12)


def test_words_of_texts_and_of_nothing_else() -> None:
    """A pipeline of texts has words; a table has none."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = np.array(["a red fox ran", "the blue sea is calm", "a red sea", "blue fox"])
    labels = np.array([0, 1, 0, 1])
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(tol=1e-8)).fit(texts, labels)
    objective = whence.from_sklearn(model, texts, labels)
    scores = whence.BM25().fit(objective).scores((texts[2:3], labels[2:3]))
    assert scores.top(1).ids[0, 0] == 2
    X, y = load_diabetes(return_X_y=True)
    table = whence.from_sklearn(Ridge().fit(X, y), X, y)
    with pytest.raises(UnsupportedModel, match="neither texts nor token ids"):
        whence.BM25().fit(table)


@pytest.mark.parametrize("whiten", [False, True])
def test_hidden_states_are_what_the_last_layer_sees(whiten: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(60, 4), torch.arange(60) % 3
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    query = torch.randn(5, 4)
    states = [torch.tanh(model[0](part)).detach().double().numpy() for part in (x, query)]
    if whiten:
        mean, covariance = states[0].mean(0), np.cov(states[0].T)
        root = np.linalg.inv(np.linalg.cholesky(covariance))
        states = [(part - mean) @ root.T for part in states]
    rows, queries = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in states)
    method = whence.HiddenCosine(whiten=whiten)
    found = method.fit(objective).scores((query, y[:5]))
    np.testing.assert_allclose(found.values, queries @ rows.T, atol=2e-5)
    if whiten:
        with pytest.raises(UnsupportedModel, match="features of one example each"):
            whence.Index.build(objective, tmp_path, method=method)
        return
    whence.Index.build(objective, tmp_path, method=method)
    hits = whence.Index.open(tmp_path, objective).query((query, y[:5]), k=3)
    assert hits.helpful.ids.tolist() == found.top(3).ids.tolist()
    np.testing.assert_allclose(hits.helpful.values, found.top(3).values, atol=1e-3)


def test_hidden_states_of_a_language_model_are_means_over_its_tokens(language_model: Any) -> None:
    """Whatever the padding: each text alone, through the model's own last hidden state."""
    found = whence.HiddenCosine().fit(language_model).scores(asked())
    model = language_model.module.filled(language_model.params).model
    states = []
    for text in (*QUERIES, *TEXTS):
        out = model(input_ids=torch.tensor([text]), output_hidden_states=True)
        states.append(out.hidden_states[-1][0].mean(0).detach())
    rows = nn.functional.normalize(torch.stack(states), dim=1)
    np.testing.assert_allclose(found.values, (rows[:2] @ rows[2:].T).numpy(), atol=1e-5)


def test_hidden_states_of_a_linear_model_are_its_features() -> None:
    X, y = load_diabetes(return_X_y=True)
    objective = whence.from_sklearn(Ridge().fit(X, y), X, y)
    found = whence.HiddenCosine().fit(objective).scores((X[:2], y[:2]))
    assert found.top(1).ids.tolist() == [[0], [1]]
