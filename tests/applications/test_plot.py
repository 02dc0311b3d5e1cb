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
from whence.applications.explanation import Explanation
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
    """Bars are changes of the probability, in points; those of raising examples are green."""
    ax = whence.plot.effects(explanation)
    widths = [patch.get_width() for patch in ax.patches]  # type: ignore[attr-defined]
    value = np.exp(-explanation.value)
    effects = {str(e.id): e.effect for e in (*explanation.raising, *explanation.lowering)}
    names = [label.get_text() for label in ax.get_yticklabels()]
    expected = [100 * (np.exp(-explanation.value - effects[name]) - value) for name in names]
    assert widths == pytest.approx(expected)
    assert widths == sorted(widths, reverse=True)
    assert ax.get_xlabel() == "change of P(0) without it (points)"
    green = {str(e.id) for e in explanation.raising}
    colors = {
        name: mpl.colors.to_hex(patch.get_facecolor())
        for name, patch in zip(names, ax.patches, strict=True)
    }
    assert {name for name, color in colors.items() if color == "#1b7f64"} == green


def test_predicted_against_actual(explanation: Explanation) -> None:
    verification = explanation.verify(8)
    _, given = plt.subplots()
    ax = whence.plot.predicted_against_actual(verification, ax=given)
    assert ax is given
    points = ax.get_lines()[0]
    np.testing.assert_allclose(points.get_xdata(), verification.predicted[0])
    np.testing.assert_allclose(points.get_ydata(), verification.actual[0])


def test_input_attribution_adds_channels() -> None:
    image, derivative = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    derivative[0, 1] = [1.0, 2.0, -0.5]
    ax = whence.plot.input_attribution(image, derivative)
    np.testing.assert_allclose(np.asarray(ax.images[1].get_array()), [[0, 2.5], [0, 0]])
    with pytest.raises(InvalidInput, match="same shape"):
        whence.plot.input_attribution(image, derivative[:1])
