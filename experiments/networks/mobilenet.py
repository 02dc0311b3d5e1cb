"""MobileNetV2."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from experiments.networks.weights import load_frozen
from whence.errors import InvalidInput

# Expansion, output channels, number of blocks, stride of the first (table 2 of the paper).
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@final
class MobileNetV2(nn.Module):
    """MobileNetV2 1.0, with the parameter names of torchvision.

    Input: RGB in [0, 1], [b, 3, height, width], sides divisible by 32. The stored kernels are
    rotated by 180 degrees, and so is the image inside: that turns the one-sided padding that the
    network was trained with into the symmetric padding of torch.

    References:
        Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018.
    """

    def __init__(self) -> None:
        """Build it with random weights."""
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, 32, 3, stride=2)]
        channels = 32
        for expansion, out, blocks, stride in _STAGES:
            for block in range(blocks):
                layers.append(_Block(channels, out, expansion, stride if block == 0 else 1))
                channels = out
        layers.append(_convolution(channels, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def embed(self, x: Tensor) -> Tensor:
        """Pool the last features over space.

        Args:
            x: RGB in [0, 1], [b, 3, height, width].

        Returns:
            Features [b, 1280].

        Raises:
            InvalidInput: If a side is not divisible by 32, where the padding would differ.
        """
        if x.shape[-1] % 32 or x.shape[-2] % 32:
            raise InvalidInput(
                "Expected images with sides divisible by 32. "
                f"Got {x.shape[-2]} by {x.shape[-1]}. Resize them to 224 by 224."
            )
        maps: Tensor = self.features((2 * x - 1).flip(-2, -1))
        return maps.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Classify.

        Args:
            x: RGB in [0, 1], [b, 3, height, width].

        Returns:
            Logits [b, 1000].
        """
        logits: Tensor = self.classifier(self.embed(x))
        return logits


@final
class _Block(nn.Module):
    """An inverted residual: widen, filter each channel alone, narrow; skipped over if it fits."""

    def __init__(self, channels: int, out: int, expansion: int, stride: int) -> None:
        """Build it for `channels` in and `out` out."""
        super().__init__()
        wide = channels * expansion
        self.skip = stride == 1 and channels == out
        self.conv = nn.Sequential(
            *([_convolution(channels, wide, 1)] if expansion > 1 else []),
            _convolution(wide, wide, 3, stride=stride, groups=wide),
            nn.Conv2d(wide, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, added to its input where the shapes agree."""
        y: Tensor = self.conv(x)
        return x + y if self.skip else y


def _convolution(
    channels: int, out: int, size: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, batch normalization, ReLU6."""
    return nn.Sequential(
        nn.Conv2d(channels, out, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU6(),
    )


def mobilenet_v2() -> MobileNetV2:
    """Load Google's MobileNetV2 1.0 224, from its dequantized 8-bit weights.

    Returns:
        The network, float32, frozen, in evaluation mode.

    Raises:
        DataMissing: If the weights are not in the local mirror.
    """
    return load_frozen(MobileNetV2(), "mobilenet_v2")
