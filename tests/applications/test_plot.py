"""What is drawn is what was found."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import whence
from whence.applications.explain import Explanation
from whence.errors import InvalidInput

mpl.use("Agg")


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(tol=1e-8, max_iter=1000).fit(x[1:], y[1:])
    return whence.explain(whence.from_sklearn(model, x[1:], y[1:]), (x[:1], y[:1]), k=3)


def test_effects(explanation: Explanation) -> None:
    ax = whence.plot.effects(explanation)
    widths = [patch.get_width() for patch in ax.patches]  # type: ignore[attr-defined]
    expected = [e.effect for e in (*explanation.helpful, *explanation.harmful[::-1])]
    assert widths == pytest.approx(expected)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == str(explanation.helpful[0].id)
    assert ax.get_xlabel() == "change of the loss without it (nats)"


def test_predicted_against_actual(explanation: Explanation) -> None:
    verification = explanation.verify(8)
    _, given = plt.subplots()
    ax = whence.plot.predicted_against_actual(verification, ax=given)
    assert ax is given
    points = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(points[:, 0], verification.predicted)
    np.testing.assert_allclose(points[:, 1], verification.actual)


def test_acting_adds_channels() -> None:
    image, derivative = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    derivative[0, 1] = [1.0, 2.0, -0.5]
    ax = whence.plot.acting(image, derivative)
    np.testing.assert_allclose(np.asarray(ax.images[1].get_array()), [[0, 2.5], [0, 0]])
    with pytest.raises(InvalidInput, match="same shape"):
        whence.plot.acting(image, derivative[:1])
