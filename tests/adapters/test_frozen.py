"""A frozen network under a fitted top layer: the linear answers, and pixels by differences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import whence
from whence.errors import InvalidInput, NotDeterministic
from whence.linear.objective import LinearObjective

_TIGHT = {"tol": 1e-12, "max_iter": 10_000}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return layers.double().requires_grad_(False)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(60, 1, 8, 8, generator=generator, dtype=torch.float64)
    labels = (images[:, 0, :4].mean((1, 2)) > images[:, 0, 4:].mean((1, 2))).long()
    return images, labels


@pytest.fixture(scope="module")
def objective(network: nn.Module, data: tuple[Tensor, Tensor]) -> LinearObjective:
    images, labels = data
    top = make_pipeline(StandardScaler(), LogisticRegression(C=10, **_TIGHT))
    return whence.from_frozen(network, top.fit(network(images), labels), images, labels)


def test_parameters_are_the_top_layer_alone(
    objective: LinearObjective, network: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    images, labels = data
    features = network(images).numpy()
    top = make_pipeline(StandardScaler(), LogisticRegression(C=10, **_TIGHT)).fit(features, labels)
    plain = whence.from_sklearn(top, features, labels)
    query = images[:3], labels[:3]
    expected = whence.influence(plain, (features[:3], labels[:3].numpy())).values
    np.testing.assert_allclose(whence.influence(objective, query).values, expected, rtol=1e-9)
    one = whence.influence(objective, (images[0], labels[0])).values
    np.testing.assert_allclose(one, expected[:1], rtol=1e-9)


def test_perturbation_reaches_the_pixels(
    objective: LinearObjective, data: tuple[Tensor, Tensor]
) -> None:
    images, labels = data
    query, index, step = (images[50:51], labels[50:51]), 7, 1e-4
    gradient = whence.perturbation(objective, [index], query)[0]
    assert gradient.shape == (1, 8, 8)
    for at in ((0, 2, 3), (0, 7, 7)):
        moved = []
        for sign in (1, -1):
            image = images[index].clone()
            image[at] += sign * step
            moved.append(
                whence.edit(objective, index, image, labels[index], query, order="refined")[0]
            )
        assert (moved[0] - moved[1]) / (2 * step) == pytest.approx(gradient[at], rel=1e-4)


def test_what_is_encoded_is_not_read_again(network: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    """An attack asks for the same queries thousands of times, and moves few images."""
    images, labels = data
    top = LogisticRegression(C=10, **_TIGHT).fit(network(images), labels)
    objective = whence.from_frozen(network, top, images, labels)
    queries = objective.examples((images[:30], labels[:30]))
    read: list[int] = []

    def count(module: nn.Module, given: tuple[Tensor]) -> None:
        read.append(len(given[0]))

    hook = network.register_forward_pre_hook(count)
    whence.perturbation(objective, [3], queries)
    whence.influence(objective, queries)
    hook.remove()
    assert sum(read) == 1


def test_page_shows_the_images(
    objective: LinearObjective, data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    images, labels = data
    explanation = whence.explain(objective, (images[5], labels[5]), k=2)
    explanation.report(tmp_path / "why.html", verify=2)
    assert "data:image/png" in (tmp_path / "why.html").read_text()


def test_bad_input(network: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    images, labels = data
    top = LogisticRegression(**_TIGHT).fit(network(images), labels)
    with pytest.raises(InvalidInput, match="Scale the pixels"):
        whence.from_frozen(network, top, (images * 255).byte(), labels)
    random = nn.Sequential(nn.Dropout(), *network)
    with pytest.raises(NotDeterministic, match=r"\.eval\(\)"):
        whence.from_frozen(random, top, images, labels)
    broken = images.clone()
    broken[3, 0, 0, 0] = torch.nan
    with pytest.raises(InvalidInput, match="finite inputs"):
        whence.from_frozen(network, top, broken, labels)
    objective = whence.from_frozen(network, top, images, labels)
    with pytest.raises(InvalidInput, match="pair"):
        whence.influence(objective, images)
    assert replace(objective).train.inputs is objective.train.inputs
