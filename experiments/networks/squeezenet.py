"""SqueezeNet 1.1."""

from __future__ import annotations

from typing import Final, final

import torch
from torch import Tensor, nn

from experiments.networks.weights import load_frozen

_MEAN: Final = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_STD: Final = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@final
class SqueezeNet(nn.Module):
    """SqueezeNet 1.1, with the parameter names of torchvision.

    Input: RGB in [0, 1], [b, 3, 224, 224] or larger; mean and deviation are taken care of.

    References:
        Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016.
    """

    def __init__(self) -> None:
        """Build it with random weights."""
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            _Fire(64, 16, 64),
            _Fire(128, 16, 64),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            _Fire(128, 32, 128),
            _Fire(256, 32, 128),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            _Fire(256, 48, 192),
            _Fire(384, 48, 192),
            _Fire(384, 64, 256),
            _Fire(512, 64, 256),
        )
        self.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(512, 1000, 1), nn.ReLU())

    def embed(self, x: Tensor) -> Tensor:
        """Pool the last features over space.

        Args:
            x: RGB in [0, 1], [b, 3, height, width].

        Returns:
            Features [b, 512].
        """
        return self._maps(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Classify.

        Args:
            x: RGB in [0, 1], [b, 3, height, width].

        Returns:
            Logits [b, 1000], none negative.
        """
        logits: Tensor = self.classifier(self._maps(x))
        return logits.mean((2, 3))

    def _maps(self, x: Tensor) -> Tensor:
        """The last feature maps."""
        maps: Tensor = self.features((x - _MEAN.to(x)) / _STD.to(x))
        return maps


@final
class _Fire(nn.Module):
    """A narrow 1x1 convolution, then a 1x1 and a 3x3 side by side."""

    def __init__(self, channels: int, narrow: int, wide: int) -> None:
        """Build it for `channels` in and twice `wide` out."""
        super().__init__()
        self.squeeze = nn.Conv2d(channels, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, wide, 1)
        self.expand3x3 = nn.Conv2d(narrow, wide, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The two wide halves, one after the other."""
        narrow = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(narrow), self.expand3x3(narrow)], dim=1).relu()


def squeezenet1_1() -> SqueezeNet:
    """Load SqueezeNet 1.1 of the ONNX model zoo.

    Returns:
        The network, float32, frozen, in evaluation mode.

    Raises:
        DataMissing: If the weights are not in the local mirror.
    """
    return load_frozen(SqueezeNet(), "squeezenet1_1")
