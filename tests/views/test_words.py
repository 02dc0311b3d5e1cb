"""Texts are shown as they are, whatever the user kept them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import whence
from whence.views.words import telling_words, text_of

_WORDS = ("plain", "bitter", "sweet", "stale")
_TEXTS = [f"the {word} soup of day {day} was <{word}>" for word in _WORDS for day in range(4)]
_LABELS = np.array([word in ("plain", "sweet") for word in _WORDS for _ in range(4)])


@pytest.mark.parametrize("kept", [list, np.array, pd.Series], ids=["list", "array", "series"])
def test_a_pipeline_on_texts_shows_them_on_every_page(kept: Any, tmp_path: Path) -> None:
    texts = kept(_TEXTS)
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(tol=1e-8)).fit(texts, _LABELS)
    trained = whence.from_sklearn(model, texts, _LABELS)
    assert text_of(trained.train, 7) == _TEXTS[7]
    query = kept(["the sweet soup of tomorrow"])
    explanation = whence.explain(trained, (query, [True]), k=2)
    page = explanation.report(tmp_path / "why.html", verify=2).read_text()
    assert "The training texts behind it" in page
    for effect in explanation.raising:
        assert f"day {effect.position % 4} was &lt;" in page
    assert '<mark class="same">tomorrow</mark>' in page  # no training text has it
    many = whence.report(trained, (query, [True]), tmp_path / "many.html").read_text()
    assert "the sweet soup of tomorrow" in many
    labels = whence.find_label_errors(trained).report(tmp_path / "labels.html").read_text()
    assert "the stale soup of day 3 was" in labels


def test_common_words_tell_nothing() -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(_TEXTS, _LABELS)
    trained = whence.from_sklearn(model, _TEXTS, _LABELS)
    query = trained.examples((["the soup of day 77 was peculiar"], [True]))
    assert telling_words(trained.train, query) == {"peculiar"}


def test_rows_are_no_texts() -> None:
    X = np.eye(6)
    trained = whence.from_sklearn(
        LogisticRegression().fit(X, np.arange(6) % 2), X, np.arange(6) % 2
    )
    assert text_of(trained.train, 0) is None
    assert not telling_words(trained.train, trained.train.subset(np.array([0])))
