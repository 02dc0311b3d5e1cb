"""Records refuse what they cannot show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.pages.pages import ROW, batch
from whence.errors import InvalidInput
from whence.pages import Curve, Effect, Item, Scatter, Status


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((2, 2)),
        np.zeros(4, np.uint8),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((0, 2), np.uint8),
    ],
)
def test_an_image_is_uint8_gray_or_color(image: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="Expected an image of shape"):
        Item(title="t", label="l", image=image)


def test_an_attribution_has_the_shape_of_what_is_shown() -> None:
    with pytest.raises(InvalidInput, match="Expected an input attribution in one of the shapes"):
        replace(ROW.item, attribution=np.zeros(3))
    with pytest.raises(InvalidInput, match=r"\(2, 2\).*Got shape \(4,\)"):
        Item(title="t", image=np.zeros((2, 2), np.uint8), attribution=np.zeros(4))


def test_a_status_has_one_of_four_levels() -> None:
    with pytest.raises(InvalidInput, match="Got 'green'"):
        Status(level="green", title="t")  # type: ignore[arg-type]


def test_a_scatter_has_as_many_of_each() -> None:
    with pytest.raises(InvalidInput, match="Expected as many predicted changes"):
        Scatter(predicted=np.zeros(2), actual=np.zeros(3), names=(1, 2), r=1.0, slope=1.0)


def test_a_curve_has_a_point() -> None:
    with pytest.raises(InvalidInput, match="Got none"):
        Curve(points=(), across="steps", up="loss")


def test_a_batch_refers_to_its_own_examples() -> None:
    page = batch(1)
    outside = (Effect(example=20, size=0.1, text=""),)
    with pytest.raises(InvalidInput, match="Got 20 for Query 0"):
        replace(page, rows=(replace(page.rows[0], toward=outside),))
