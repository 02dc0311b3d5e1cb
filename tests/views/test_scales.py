"""Numbers of any size are shown with the digits that tell them apart, and alike everywhere."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.linear_model import Ridge

import whence
from whence.methods.model_quality import ModelQuality
from whence.pages import Curve
from whence.pages.svg import curve_svg
from whence.pages.words import number
from whence.views.answer import prediction_decimals, target_decimals
from whence.views.statuses import quality_sentence


def _data(scale: float, offset: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sixty rows whose target has this scale."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(60, 3))
    return X, offset + scale * (X @ [3.0, -2.0, 1.0] + rng.normal(size=60) + 20)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-9, 1e-5, 1.0, 1e4, 1e9, 1e12, 1e25])
def test_every_line_has_the_number_of_a_refit(scale: float) -> None:
    """The printed numbers are the user's own refits, to the digits shown, at every scale."""
    X, y = _data(scale)
    model = Ridge(alpha=1e-9).fit(X[1:], y[1:])
    lines = str(whence.explain(whence.from_sklearn(model, X[1:], y[1:]), (X[:1], y[:1]), k=2))
    said = re.findall(r"predicts ([^;]+);|prediction is (\S+)\. Without", lines)
    first, second = ("".join(each) for each in said)
    assert first == second  # one number, written once
    found = re.findall(r"^  (\S+)  \((\S+)\)  without (\d+),", lines, flags=re.MULTILINE)
    assert len(found) == 4
    texts = [text for text, _, _ in found]
    assert len({first, *texts}) > 2
    now = float(model.predict(X[:1])[0])
    for text, change, name in found:
        keep = np.arange(1, 60) != int(name) + 1
        refit = float(clone(model).fit(X[1:][keep], y[1:][keep]).predict(X[:1])[0])
        assert float(text.replace(",", "")) == pytest.approx(refit, abs=0.6 * abs(refit - now))
        assert float(change.replace(",", "")) == pytest.approx(refit - now, rel=0.5)


def test_dates_as_seconds_are_written_out() -> None:
    """Large numbers that differ little keep the digits in which they differ."""
    X, y = _data(3600.0, offset=1.7e9)
    model = whence.from_sklearn(Ridge().fit(X, y.round()), X, y.round())
    assert target_decimals(model) == prediction_decimals(model) == 0
    assert "e+" not in str(whence.explain(model, X[:1], k=2))
    assert number(1_700_000_025.0, 0) == "1,700,000,025"


def test_the_unit_of_the_target_changes_no_digit_of_influence() -> None:
    """Decimals follow the spread of the targets by the power of ten between two units."""
    X, y = _data(1.0)
    plain = whence.from_sklearn(Ridge().fit(X, y), X, y)
    small = whence.from_sklearn(Ridge().fit(X, y * 1e-8), X, y * 1e-8)
    large = whence.from_sklearn(Ridge().fit(X, y * 1e12), X, y * 1e12)
    assert target_decimals(small) == target_decimals(plain) + 8
    assert target_decimals(large) == target_decimals(plain) - 12


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.0, 11, "0.000000"),
        (0.0, -10, "0"),
        (5.0, -10, "5"),
        (123_456.0, -3, "123,456"),
        (3.9214e13, -10, "3.921e+13"),
        (8.7e10, -10, "9e+10"),
        (2e9, -10, "2e+09"),
        (3.9214e-8, 11, "3.921e−08"),
        (7.5e-13, 11, "7.5e−13"),
        (1.0000000123, 10, "1.0000000123"),
        (1e20, 3, "1e+20"),
        (1_234_567_890.125, 2, "1,234,567,890.12"),
        (-0.0000001, 3, "−1e−07"),
    ],
)
def test_numbers(value: float, decimals: int, text: str) -> None:
    assert number(value, decimals) == text


@pytest.mark.parametrize("scale", [1e-30, 3e-9, 0.02, 1.0, 4e3, 2e8, 4e13])
def test_levels_of_a_curve_fit_beside_it_and_differ(scale: float) -> None:
    points = tuple((float(x), scale * (1 - x / 1000)) for x in range(0, 101, 20))
    svg = str(curve_svg(Curve(points=points, across="rows removed", up="the prediction")))
    levels = re.findall(r'text-anchor="end">([^<]+)</text>', svg)
    assert len(levels) >= 3
    assert len(set(levels)) == len(levels)
    assert max(map(len, levels)) <= 10
    numbers = [float(text.replace("−", "-").replace(",", "")) for text in levels]
    assert numbers == sorted(numbers)
    assert all(0.85 * scale < each < 1.05 * scale for each in numbers)


@pytest.mark.parametrize(("right", "shown"), [(10_000, "100"), (9_997, "99.9"), (9_948, "99.5")])
def test_a_model_that_errs_is_not_right_on_all(right: int, shown: str) -> None:
    quality = ModelQuality(n=10_000, how="rows", accuracy=right / 10_000, majority=0.5)
    assert quality_sentence(quality, ("no", "yes"), 0).startswith(
        f"The model is right on {shown} of 100 examples"
    )
