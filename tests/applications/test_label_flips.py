"""Turned labels against scikit-learn fitted on them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from whence.errors import InvalidInput, UnsupportedModel


@pytest.mark.parametrize("weight", [None, "balanced"])
def test_a_table(weight: str | None) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    names = np.array(["benign", "malignant"])[y]
    model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, class_weight=weight))
    train, query = slice(100, 220), (x[:1, :6], names[:1])
    fitted = clone(model).fit(x[train, :6], names[train])
    trained = whence.from_sklearn(fitted, x[train, :6], names[train])
    found = whence.attacks.flip_labels(trained, query, most=4)
    labels = names[train].copy()
    for place, (at, label) in enumerate(zip(found.positions, found.labels, strict=True), 1):
        assert labels[at] != label
        labels[at] = label
        refit = clone(model).fit(x[train, :6], labels)
        loss = log_loss(query[1], refit.predict_proba(query[0]), labels=refit.classes_)
        assert found.losses[place] == pytest.approx(loss, rel=1e-5)
    assert (np.diff(found.losses) > 0).all()
    assert found.flipped.tolist() == [refit.predict(query[0])[0] != fitted.predict(query[0])[0]]
    frame = found.to_frame()
    assert frame["row"].tolist() == found.positions.tolist()
    assert frame["label"].tolist() == list(found.labels)
    assert f"{len(labels[labels != names[train]])} turned training labels" in str(found)


def test_texts() -> None:
    rng = np.random.default_rng(0)
    words = [["good", "fine", "warm", "bright"], ["bad", "poor", "cold", "dull"]]
    y = np.arange(40) % 2
    texts = [
        " ".join([*rng.choice(words[label], 4), *rng.choice(words[1 - label], 2)]) for label in y
    ]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(tol=1e-10)).fit(texts[1:], y[1:])
    trained = whence.from_sklearn(model, texts[1:], y[1:])
    found = whence.attacks.flip_labels(trained, (texts[:1], y[:1]), most=15)
    turned = y[1:].copy()
    turned[found.positions] = found.labels
    refit = clone(model).fit(texts[1:], turned)
    assert found.flipped.tolist() == [refit.predict(texts[:1])[0] != model.predict(texts[:1])[0]]
    assert found.flipped.all()
    turned[found.positions[-1]] = y[1 + found.positions[-1]]
    one_less = clone(model).fit(texts[1:], turned)  # it stops at the turn that flips
    assert one_less.predict(texts[:1])[0] == model.predict(texts[:1])[0]


def test_a_row_that_does_not_count_is_not_turned() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, query = x[:, :3], (x[:1, :3], y[:1])
    weights = np.ones(60)
    turned = []
    for _ in range(2):
        model = LogisticRegression(tol=1e-10, max_iter=10_000)
        model.fit(x[1:61], y[1:61], sample_weight=weights)
        trained = whence.from_sklearn(model, x[1:61], y[1:61], sample_weight=weights)
        turned.append(int(whence.attacks.flip_labels(trained, query, most=1).positions[0]))
        weights[turned[-1]] = 0
    assert turned[0] != turned[1]


def test_what_cannot_be_attacked() -> None:
    x, y = load_iris(return_X_y=True)
    trained = whence.from_sklearn(LogisticRegression(max_iter=1000).fit(x, y), x, y)
    with pytest.raises(UnsupportedModel, match="two classes"):
        whence.attacks.flip_labels(trained, (x[:1], y[:1]))
    with pytest.raises(InvalidInput, match="most"):
        whence.attacks.flip_labels(trained, (x[:1], y[:1]), most=0)
