"""Numbers read off a drawing by its own axes are the numbers that it was made from."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest

from whence.pages.figures import Curve, Scale, Scatter
from whence.pages.svg import curve_svg, scale_svg, scatter_svg

PREDICTED = np.array([-0.3, 0.1, 0.8])
ACTUAL = np.array([-0.1, 0.3, 0.5])


def pairs(path: str) -> list[tuple[float, float]]:
    """The points of a path of straight lines."""
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


def axis(drawn: ElementTree.Element, anchor: str, key: str, shift: float) -> Callable[[str], float]:
    """What a place means by two of the numbers at an axis, which lies `shift` from its numbers."""
    marks = [
        (float(mark.attrib[key]) - shift, float(str(mark.text).replace("−", "-")))
        for mark in drawn.iter("text")
        if mark.get("text-anchor") == anchor and re.fullmatch(r"−?[\d.]+", mark.text or "")
    ]
    (at, value), *_, (end, last) = marks
    return lambda place: value + (float(place) - at) / (end - at) * (last - value)


def test_pairs_are_where_the_axes_say() -> None:
    pairs_of = Scatter(
        predicted=PREDICTED, actual=ACTUAL, names=("a", "b", "c"), r=0.9, slope=float("nan")
    )
    drawn = ElementTree.fromstring(scatter_svg(pairs_of))
    x, y = axis(drawn, "middle", "x", 0), axis(drawn, "end", "y", 4)
    dots = drawn.findall("circle")
    found = [(x(dot.attrib["cx"]), y(dot.attrib["cy"])) for dot in dots]
    np.testing.assert_allclose(found, np.stack([PREDICTED, ACTUAL], 1), atol=2e-3)
    assert [dot[0].text for dot in dots] == [
        "a: predicted −0.3000, retrained −0.1000",
        "b: predicted +0.1000, retrained +0.3000",
        "c: predicted +0.8000, retrained +0.5000",
    ]
    assert x("300") > x("100")
    assert y("100") > y("300")
    (identity,) = drawn.iterfind(".//path[@class='identity']")
    for across, up in pairs(identity.attrib["d"]):
        assert x(str(across)) == pytest.approx(y(str(up)), abs=2e-3)
    (zero,) = drawn.iterfind(".//path[@class='zero']")
    (across, top), (left, up) = pairs(zero.attrib["d"])
    assert [x(str(across)), y(str(up))] == pytest.approx([0, 0], abs=2e-3)
    frame = drawn.find("path[@class='frame']")
    assert frame is not None
    assert frame.attrib["d"] == f"M{left} {top}V{top + 310}H{left + 310}"
    assert "V" + str(top + 310) + "M" in zero.attrib["d"]
    assert zero.attrib["d"].endswith(f"H{left + 310}")


def test_the_line_has_the_slope_and_the_means() -> None:
    slope, offset = np.polyfit(PREDICTED, ACTUAL, 1)
    scatter = Scatter(predicted=PREDICTED, actual=ACTUAL, names=(1, 2, 3), r=0.9, slope=slope)
    drawn = ElementTree.fromstring(scatter_svg(scatter))
    x, y = axis(drawn, "middle", "x", 0), axis(drawn, "end", "y", 4)
    (fit,) = drawn.iterfind(".//path[@class='fit']")
    for across, up in pairs(fit.attrib["d"]):
        assert y(str(up)) == pytest.approx(offset + slope * x(str(across)), abs=4e-3)


def test_a_curve_is_where_its_axes_say() -> None:
    points = ((0.0, 2.0), (3.0, 5.0), (10.0, -4.0))
    curve = Curve(points=points, across="rows", up="price", threshold=1.0, threshold_words="flips")
    drawn = ElementTree.fromstring(curve_svg(curve))
    x, y = axis(drawn, "middle", "x", 0), axis(drawn, "end", "y", 4)
    assert y("50") > y("100")
    dots = [(x(dot.attrib["cx"]), y(dot.attrib["cy"])) for dot in drawn.findall("circle")]
    np.testing.assert_allclose(dots, points, atol=0.06)
    line, level, frame = (
        drawn.find(f"path[@class='{name}']") for name in ("fit", "identity", "frame")
    )
    assert line is not None
    assert level is not None
    assert frame is not None
    drawn_to = [(x(str(across)), y(str(up))) for across, up in pairs(line.attrib["d"])]
    np.testing.assert_allclose(drawn_to, points, atol=0.06)
    assert y(str(pairs(level.attrib["d"])[0][1])) == pytest.approx(1.0, abs=0.06)
    left, right = re.fullmatch(r"M([\d.]+) [\d.]+H([\d.]+)", frame.attrib["d"]).groups()  # type: ignore[union-attr]
    assert [x(left), x(right)] == pytest.approx([0, 10], abs=0.02)


@pytest.mark.parametrize("actual", [None, 25.0])
def test_a_number_lies_between_the_least_and_the_largest(actual: float | None) -> None:
    texts = ("10", "30", "15", "" if actual is None else "25")
    scale = Scale(low=10.0, high=30.0, predicted=15.0, actual=actual, texts=texts)
    drawn = ElementTree.fromstring(scale_svg(scale))
    said = "From 10 to 30 in the training data: predicted 15"
    assert drawn.findtext("title") == said + ("" if actual is None else ", in the data 25")
    (track,), (dot,), lines = drawn.findall("rect"), drawn.findall("circle"), drawn.findall("line")
    start, width, at = (
        float(text.rstrip("%"))
        for text in (track.attrib["x"], track.attrib["width"], dot.attrib["cx"])
    )
    assert at == pytest.approx(start + width / 4)
    places = [float(line.attrib["x1"].rstrip("%")) for line in lines]
    assert places == ([] if actual is None else [pytest.approx(start + 0.75 * width)])
