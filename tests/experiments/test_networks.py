"""The frozen networks against known predictions, and their derivatives against differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn

from experiments import datasets, networks
from whence.errors import InvalidInput

Network = networks.SqueezeNet | networks.MobileNetV2 | networks.InceptionV3Trunk

FILES = {
    "squeezenet": "weights/squeezenet1_1.safetensors",
    "mobilenet": "weights/mobilenet_v2.safetensors",
    "inception": "weights/inception_v3_trunk.safetensors",
}
LOAD: dict[str, Callable[[], Network]] = {
    "squeezenet": networks.squeezenet1_1,
    "mobilenet": networks.mobilenet_v2,
    "inception": networks.inception_v3_trunk,
}
NEEDED = [*FILES.values(), "weights/imagenet_synset_words.txt", "dogfish/dogfish224.tar"]
ABSENT = [name for name in NEEDED if not datasets.at_hand(name)]
needs_weights = pytest.mark.skipif(bool(ABSENT), reason=f"not in WHENCE_DATA: {', '.join(ABSENT)}")


@pytest.fixture(scope="module")
def network(request: pytest.FixtureRequest) -> Network:
    """The network that the test names."""
    return LOAD[request.param]()


@pytest.fixture(scope="module")
def photos() -> npt.NDArray[np.uint8]:
    """20 dogs, then 20 fish, of the test half."""
    return datasets.dogfish(n_train=1, n_test=20).x_test


@needs_weights
@pytest.mark.parametrize(
    ("network", "file", "tensors", "params"),
    [
        ("squeezenet", FILES["squeezenet"], 52, 1_235_496),
        ("mobilenet", FILES["mobilenet"], 314, 3_504_872),
        ("inception", FILES["inception"], 405, 12_699_104),
    ],
    indirect=["network"],
)
def test_weights_are_those_of_the_file(
    network: Network, file: str, tensors: int, params: int
) -> None:
    stored, loaded = load(datasets.read(file)), network.state_dict()
    assert len(stored) == tensors
    # The trunk is stored without the step counts of batch normalization, which nothing reads.
    assert stored.keys() == {key for key in loaded if key in stored or "num_batches" not in key}
    assert all(torch.equal(loaded[key], stored[key].to(loaded[key])) for key in stored)
    assert sum(p.numel() for p in network.parameters()) == params
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert {p.dtype for p in network.parameters()} == {torch.float32}


@needs_weights
@pytest.mark.parametrize("network", ["mobilenet", "inception"], indirect=True)
def test_folded_batch_normalization_only_adds_its_bias(network: Network) -> None:
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    x = torch.randn(3, 1, 4, 4, generator=torch.manual_seed(0))
    for norm in norms:
        wide = x.expand(3, norm.num_features, 4, 4)
        torch.testing.assert_close(norm(wide), wide + norm.bias[:, None, None])
    assert len(norms) == (52 if isinstance(network, networks.MobileNetV2) else 81)


@needs_weights
@pytest.mark.parametrize(
    ("network", "top1", "top5", "logits"),
    # Counts among the first 20 dogs and the first 20 fish; mean logit of the right class. On the
    # whole test half (395 and 387) top-1 is 50.4 % and 77.5 %, for MobileNetV2 67.8 % and 91.0 %.
    [
        ("squeezenet", (12, 15), (16, 17), (24.6324, 21.4905)),
        ("mobilenet", (14, 18), (18, 20), (7.9127, 10.5484)),
    ],
    indirect=["network"],
)
def test_known_predictions(
    network: Network,
    top1: tuple[int, int],
    top5: tuple[int, int],
    logits: tuple[float, float],
    photos: npt.NDArray[np.uint8],
) -> None:
    names = networks.imagenet_classes()
    assert len(names) == 1_000
    springer = names.index("n02102040 English springer, English springer spaniel")
    tench = names.index("n01440764 tench, Tinca tinca")
    for half, right in enumerate((springer, tench)):
        out = network(networks.pixels(photos[20 * half : 20 * half + 20]))
        best = out.topk(5).indices
        assert out.shape == (20, 1_000)
        assert int((best[:, 0] == right).sum()) == top1[half]
        assert int((best == right).any(dim=1).sum()) == top5[half]
        assert out[:, right].mean().item() == pytest.approx(logits[half], abs=1e-3)


@needs_weights
@pytest.mark.parametrize("network", ["inception"], indirect=True)
def test_inception_trunk_against_a_naive_walk(
    network: networks.InceptionV3Trunk, photos: npt.NDArray[np.uint8]
) -> None:
    """A second reading of the architecture: layer by layer, straight from the stored tensors."""
    stored = {k: v.float() for k, v in load(datasets.read(FILES["inception"])).items()}
    x = networks.pixels(photos[:1, :139, :139])
    both = [NaiveInception(stored).features(x, last) for last in (False, True)]
    torch.testing.assert_close(network.embed_7a(x), both[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.embed(x), both[1], rtol=1e-4, atol=1e-5)
    assert torch.equal(network(x), network.embed(x))
    assert both[1].std() > 0.1


@needs_weights
@pytest.mark.parametrize(
    ("network", "features"),
    [("squeezenet", 512), ("mobilenet", 1280), ("inception", 1280)],
    indirect=["network"],
)
def test_features_do_not_depend_on_the_batch(
    network: Network, features: int, photos: npt.NDArray[np.uint8]
) -> None:
    x = networks.pixels(photos[18:21, :96, :96])
    together = network.embed(x)
    alone = torch.cat([network.embed(x[i : i + 1]) for i in range(3)])
    assert together.shape == (3, features)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@needs_weights
@pytest.mark.parametrize("name", ["squeezenet", "mobilenet", "inception"])
def test_mixed_second_derivative_against_differences(
    name: str, photos: npt.NDArray[np.uint8]
) -> None:
    """d/dx of u'∇_w loss(w'embed(x)), what perturbation influence needs, in float64."""
    network = LOAD[name]().double()
    x = networks.pixels(photos[:1, 64:160, 64:160], torch.float64)
    random = torch.Generator().manual_seed(0)
    width = network.embed(x).shape[1]
    w, u = (torch.randn(width, generator=random, dtype=torch.float64) / width for _ in range(2))
    w.requires_grad_()

    def along(x: Tensor) -> Tensor:
        loss = nn.functional.softplus(network.embed(x) @ w).sum()
        (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
        return gradient @ u

    x.requires_grad_()
    (exact,) = torch.autograd.grad(along(x), x)
    # Small, or the step crosses kinks of some of a million ReLUs.
    step = 1e-9 * torch.randn(x.shape, generator=random, dtype=torch.float64)
    difference = (along(x.detach() + step) - along(x.detach() - step)).item() / 2
    assert torch.isfinite(exact).all()
    assert (exact * step).sum().item() == pytest.approx(difference, rel=1e-5)


def test_mobilenet_refuses_sides_where_padding_would_differ() -> None:
    with pytest.raises(InvalidInput, match="Got 299 by 299"):
        networks.MobileNetV2()(torch.zeros(1, 3, 299, 299))


def test_pixels() -> None:
    images = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    x = networks.pixels(images, torch.float64)
    assert x.shape == (2, 3, 4, 5)
    assert x[1, 2, 3, 4].item() == images[1, 3, 4, 2] / 255
    assert torch.equal((x * 255).round().permute(0, 2, 3, 1).to(torch.uint8), torch.tensor(images))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (4, 5, 3)])
def test_pixels_refuses_other_layouts(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"Got uint8 of shape"):
        networks.pixels(np.zeros(shape, dtype=np.uint8))
    with pytest.raises(InvalidInput, match=r"Got float64"):
        networks.pixels(np.zeros((1, 4, 5, 3)))


class NaiveInception:
    """Inception v3 from a table of (kernel name, stride, padding), in the words of its paper."""

    def __init__(self, stored: dict[str, Tensor]) -> None:
        """Keep the stored tensors."""
        self.stored = stored

    def conv(self, x: Tensor, name: str, stride: int = 1, same: bool = True) -> Tensor:
        """Convolution plus bias, cut at zero; `same` pads to keep the size."""
        kernel = self.stored[f"{name}.conv.weight"]
        high, wide = (size // 2 if same else 0 for size in kernel.shape[2:])
        out = nn.functional.conv2d(
            nn.functional.pad(x, (wide, wide, high, high)), kernel, None, stride
        )
        return (out + self.stored[f"{name}.bn.bias"][:, None, None]).clamp(min=0)

    def chain(self, x: Tensor, block: str, *names: str, last_stride: int = 1) -> Tensor:
        """Several convolutions in a row; the last may go in steps of two, without padding."""
        for name in names[:-1]:
            x = self.conv(x, f"{block}.{name}")
        return self.conv(x, f"{block}.{names[-1]}", last_stride, same=last_stride == 1)

    def mean(self, x: Tensor) -> Tensor:
        """The average of the neighbors that exist."""
        ones = torch.ones_like(x)
        sums, counts = (
            nn.functional.unfold(t.transpose(0, 1), 3, padding=1).sum(1) for t in (x, ones)
        )
        return (sums / counts).reshape(x.shape)

    def features(self, x: Tensor, last: bool) -> Tensor:
        """Pooled features of one image, after Mixed_7a or, if `last`, the part of Mixed_7b."""
        pool = nn.MaxPool2d(3, 2)
        x = self.conv(2 * x - 1, "Conv2d_1a_3x3", 2, same=False)
        x = self.conv(self.conv(x, "Conv2d_2a_3x3", same=False), "Conv2d_2b_3x3")
        x = self.conv(self.conv(pool(x), "Conv2d_3b_1x1"), "Conv2d_4a_3x3", same=False)
        x = pool(x)
        double3 = ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            parts = [
                self.chain(x, block, "branch1x1"),
                self.chain(x, block, "branch5x5_1", "branch5x5_2"),
                self.chain(x, block, *double3),
                self.chain(self.mean(x), block, "branch_pool"),
            ]
            x = torch.cat(parts, 1)
        parts = [
            self.chain(x, "Mixed_6a", "branch3x3", last_stride=2),
            self.chain(x, "Mixed_6a", *double3, last_stride=2),
            pool(x),
        ]
        x = torch.cat(parts, 1)
        for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            parts = [
                self.chain(x, block, "branch1x1"),
                self.chain(x, block, *(f"branch7x7_{i}" for i in range(1, 4))),
                self.chain(x, block, *(f"branch7x7dbl_{i}" for i in range(1, 6))),
                self.chain(self.mean(x), block, "branch_pool"),
            ]
            x = torch.cat(parts, 1)
        parts = [
            self.chain(x, "Mixed_7a", "branch3x3_1", "branch3x3_2", last_stride=2),
            self.chain(x, "Mixed_7a", *(f"branch7x7x3_{i}" for i in range(1, 5)), last_stride=2),
            pool(x),
        ]
        x = torch.cat(parts, 1)
        if last:
            parts = [
                self.chain(x, "Mixed_7b", "branch1x1"),
                self.chain(x, "Mixed_7b", "branch3x3_1", "branch3x3_2a"),
                self.chain(x, "Mixed_7b", "branch3x3_1", "branch3x3_2b"),
                self.chain(self.mean(x), "Mixed_7b", "branch_pool"),
            ]
            x = torch.cat(parts, 1)
        return x.mean((2, 3))
