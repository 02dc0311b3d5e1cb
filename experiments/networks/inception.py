"""The trunk of Inception v3."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.networks.weights import load_frozen


@final
class InceptionV3Trunk(nn.Module):
    """Inception v3 up to three of the four branches of Mixed_7b, named as in torchvision.

    The stored weights end there: it has no classifier and is not the 2,048-feature extractor of
    the paper. Input: RGB in [0, 1], [b, 3, 299, 299].

    References:
        Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016.
    """

    def __init__(self) -> None:
        """Build it with random weights."""
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3)
        self.Mixed_5b = _A(192, 32)
        self.Mixed_5c = _A(256, 64)
        self.Mixed_5d = _A(288, 64)
        self.Mixed_6a = _B(288)
        self.Mixed_6b = _C(768, 128)
        self.Mixed_6c = _C(768, 160)
        self.Mixed_6d = _C(768, 160)
        self.Mixed_6e = _C(768, 192)
        self.Mixed_7a = _D(768)
        self.Mixed_7b = _PartOfE(1280)

    def forward(self, x: Tensor) -> Tensor:
        """The same as `embed`, since there is no classifier."""
        return self.embed(x)

    def embed(self, x: Tensor) -> Tensor:
        """Pool the features of the stored part of Mixed_7b over space.

        Args:
            x: RGB in [0, 1], [b, 3, 299, 299].

        Returns:
            Features [b, 1280].
        """
        maps: Tensor = self.Mixed_7b(self._mixed_7a(x))
        return maps.mean((2, 3))

    def embed_7a(self, x: Tensor) -> Tensor:
        """Pool the features of Mixed_7a, the last complete block, over space.

        Args:
            x: RGB in [0, 1], [b, 3, 299, 299].

        Returns:
            Features [b, 1280].
        """
        return self._mixed_7a(x).mean((2, 3))

    def _mixed_7a(self, x: Tensor) -> Tensor:
        """The feature maps after Mixed_7a."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(2 * x - 1)))
        x = self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2))
        x = F.max_pool2d(self.Conv2d_4a_3x3(x), 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_7a(self.Mixed_6e(self.Mixed_6d(x)))
        return x


@final
class _Convolution(nn.Module):
    """Convolution, batch normalization, ReLU."""

    def __init__(
        self,
        channels: int,
        out: int,
        size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        """Build it for `channels` in and `out` out."""
        super().__init__()
        self.conv = nn.Conv2d(channels, out, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """The activations."""
        activations: Tensor = self.bn(self.conv(x))
        return activations.relu()


def _row(channels: int, out: int) -> _Convolution:
    """A convolution 7 wide and 1 high."""
    return _Convolution(channels, out, (1, 7), padding=(0, 3))


def _column(channels: int, out: int) -> _Convolution:
    """A convolution 1 wide and 7 high."""
    return _Convolution(channels, out, (7, 1), padding=(3, 0))


def _mean3x3(x: Tensor) -> Tensor:
    """Average over 3x3 neighbors, not counting the padding, as the weights were trained."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


@final
class _A(nn.Module):
    """Four branches at 35 by 35."""

    def __init__(self, channels: int, pooled: int) -> None:
        """Build it for `channels` in and 224 + `pooled` out."""
        super().__init__()
        self.branch1x1 = _Convolution(channels, 64, 1)
        self.branch5x5_1 = _Convolution(channels, 48, 1)
        self.branch5x5_2 = _Convolution(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = _Convolution(channels, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3, padding=1)
        self.branch_pool = _Convolution(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The branches, channel after channel."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_mean3x3(x))], dim=1)


@final
class _B(nn.Module):
    """From 35 by 35 to 17 by 17."""

    def __init__(self, channels: int) -> None:
        """Build it for `channels` in and 480 more out."""
        super().__init__()
        self.branch3x3 = _Convolution(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = _Convolution(channels, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """The branches, channel after channel."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], dim=1)


@final
class _C(nn.Module):
    """Four branches at 17 by 17, with rows and columns for squares."""

    def __init__(self, channels: int, narrow: int) -> None:
        """Build it for `channels` in and 768 out."""
        super().__init__()
        self.branch1x1 = _Convolution(channels, 192, 1)
        self.branch7x7_1 = _Convolution(channels, narrow, 1)
        self.branch7x7_2 = _row(narrow, narrow)
        self.branch7x7_3 = _column(narrow, 192)
        self.branch7x7dbl_1 = _Convolution(channels, narrow, 1)
        self.branch7x7dbl_2 = _column(narrow, narrow)
        self.branch7x7dbl_3 = _row(narrow, narrow)
        self.branch7x7dbl_4 = _column(narrow, narrow)
        self.branch7x7dbl_5 = _row(narrow, 192)
        self.branch_pool = _Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The branches, channel after channel."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_mean3x3(x))], dim=1)


@final
class _D(nn.Module):
    """From 17 by 17 to 8 by 8."""

    def __init__(self, channels: int) -> None:
        """Build it for `channels` in and 512 more out."""
        super().__init__()
        self.branch3x3_1 = _Convolution(channels, 192, 1)
        self.branch3x3_2 = _Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = _Convolution(channels, 192, 1)
        self.branch7x7x3_2 = _row(192, 192)
        self.branch7x7x3_3 = _column(192, 192)
        self.branch7x7x3_4 = _Convolution(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """The branches, channel after channel."""
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        three = self.branch3x3_2(self.branch3x3_1(x))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, stride=2)], dim=1)


@final
class _PartOfE(nn.Module):
    """Three of four branches at 8 by 8; the double 3x3 is not stored."""

    def __init__(self, channels: int) -> None:
        """Build it for `channels` in and 1,280 out."""
        super().__init__()
        self.branch1x1 = _Convolution(channels, 320, 1)
        self.branch3x3_1 = _Convolution(channels, 384, 1)
        self.branch3x3_2a = _Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = _Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = _Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The branches, channel after channel."""
        three = self.branch3x3_1(x)
        halves = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        return torch.cat([self.branch1x1(x), *halves, self.branch_pool(_mean3x3(x))], dim=1)


def inception_v3_trunk() -> InceptionV3Trunk:
    """Load what there is of Google's Inception v3 of 2015-12-05, stored in half precision.

    Returns:
        The network, float32, frozen, in evaluation mode.

    Raises:
        DataMissing: If the weights are not in the local mirror.
    """
    return load_frozen(InceptionV3Trunk(), "inception_v3_trunk")
