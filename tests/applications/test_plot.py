"""What is drawn is what was found."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
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


def test_a_gray_image_is_drawn_as_it_is_and_a_colored_one_as_its_mean() -> None:
    gray = np.arange(12.0).reshape(3, 4)
    ax = whence.plot.input_attribution(gray, gray - 5)
    np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), gray)
    overlay = ax.images[1]
    np.testing.assert_allclose(np.asarray(overlay.get_array()), gray - 5)
    assert overlay.get_clim() == (-6, 6)
    np.testing.assert_allclose(overlay.get_alpha(), 0.85 * np.abs(gray - 5) / 6)
    colored = np.stack([gray, 2 * gray, gray], 2)
    ax = whence.plot.input_attribution(colored, np.zeros_like(colored))
    np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), 4 * gray / 3)
    assert ax.images[1].get_clim() == (-1, 1)
    with pytest.raises(InvalidInput, match="shape"):
        whence.plot.input_attribution(np.zeros(4), np.zeros(4))


@pytest.fixture
def diagnostics() -> pd.DataFrame:
    """Of a row that cannot be left out, the distance is not known."""
    return pd.DataFrame(
        {
            "leverage": [0.1, 0.5, 0.2, 0.4],
            "studentized_external": [-1.0, 3.0, 0.5, -2.5],
            "cooks_distance": [0.02, 0.4, np.nan, 0.8],
        },
        index=["a", "b", "c", "d"],
    )


def named(ax: Axes) -> dict[str, tuple[float, float]]:
    return {text.get_text(): text.xy for text in ax.texts}  # type: ignore[attr-defined]


def test_leverage_and_residuals(diagnostics: pd.DataFrame) -> None:
    ax = whence.plot.leverage_and_residuals(diagnostics, k=2)
    assert named(ax) == {"d": (0.4, -2.5), "b": (0.5, 3.0)}
    (points,) = ax.collections
    np.testing.assert_allclose(points.get_offsets(), diagnostics.iloc[:, :2])
    np.testing.assert_allclose(points.get_sizes(), [20, 210, 10, 410])  # type: ignore[attr-defined]
    lines = [
        (*np.unique(line.get_xdata()), *np.unique(line.get_ydata())) for line in ax.get_lines()
    ]
    at_mean = [(pytest.approx(times * 0.3), 0, 1) for times in (2, 3)]
    assert lines == [*at_mean, (0, 1, -2), (0, 1, 0), (0, 1, 2)]
    assert [line.get_linestyle() for line in ax.get_lines()] == [":", ":", ":", "-", ":"]


def test_by_row_names_the_largest_sizes(diagnostics: pd.DataFrame) -> None:
    ax = whence.plot.by_row(diagnostics, "studentized_external", k=2)
    assert named(ax) == {"b": (1, 3.0), "d": (3, -2.5)}
    (bars,) = ax.collections
    ends = [segment[1].tolist() for segment in bars.get_segments()]  # type: ignore[attr-defined]
    assert ends == [[0, -1.0], [1, 3.0], [2, 0.5], [3, -2.5]]
    assert ax.get_ylabel() == "studentized external"
    with pytest.raises(InvalidInput, match="Got 'dfbeta'"):
        whence.plot.by_row(diagnostics, "dfbeta")
