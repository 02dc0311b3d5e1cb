"""Records refuse what they cannot show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.pages.pages import HELPFUL, batch
from whence.errors import InvalidInput
from whence.pages import Item, Light, Scatter


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


def test_acting_has_the_shape_of_what_acts() -> None:
    with pytest.raises(InvalidInput, match="Expected acting in one of the shapes"):
        replace(HELPFUL, acting=np.zeros(2))
    with pytest.raises(InvalidInput, match=r"\(2, 2\).*Got shape \(4,\)"):
        Item(title="t", label="l", image=np.zeros((2, 2), np.uint8), acting=np.zeros(4))


def test_a_light_has_one_of_three_levels() -> None:
    with pytest.raises(InvalidInput, match="Got 'green'"):
        Light(level="green", title="t", words="w")  # type: ignore[arg-type]


def test_a_scatter_has_as_many_of_each() -> None:
    with pytest.raises(InvalidInput, match="Expected as many predicted changes"):
        Scatter(predicted=np.zeros(2), actual=np.zeros(3), names=(1, 2), r=1.0, slope=1.0)


def test_a_batch_refers_to_its_own_examples() -> None:
    page = batch(1)
    with pytest.raises(InvalidInput, match="Got 20 for Query 0"):
        replace(page, rows=(replace(page.rows[0], helpful=((20, 0.1),)),))
