"""Weights into networks, and images into tensors."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy.typing as npt
import torch
from safetensors.torch import load
from torch import Tensor, nn

from experiments.datasets.files import read
from whence.errors import InvalidInput

Network = TypeVar("Network", bound=nn.Module)


def load_frozen(network: Network, name: str) -> Network:
    """Fill a network with stored weights, for evaluation only.

    Args:
        network: The network; its parameter names and shapes must be those of the file.
        name: The file, such as `squeezenet1_1`.

    Returns:
        The same network, float32, in evaluation mode, no parameter asking for a gradient.

    Raises:
        DataMissing: If the weights are not in the local mirror.
    """
    stored = load(read(f"weights/{name}.safetensors"))
    network.load_state_dict({key: value.to(_dtype(value)) for key, value in stored.items()})
    return network.eval().requires_grad_(False)


def imagenet_classes() -> tuple[str, ...]:
    """Name the 1,000 classes of the logits.

    Returns:
        Line i is "wnid name" of class i.

    Raises:
        DataMissing: If the list is not in the local mirror.
    """
    return tuple(read("weights/imagenet_synset_words.txt").decode().splitlines())


def pixels(images: npt.NDArray[Any], dtype: torch.dtype = torch.float32) -> Tensor:
    """Turn 8-bit images into what the networks take.

    Args:
        images: RGB, uint8 [b, height, width, 3].
        dtype: Of the result.

    Returns:
        RGB in [0, 1], [b, 3, height, width].

    Raises:
        InvalidInput: If the images have another type or shape.
    """
    if images.dtype != "uint8" or images.ndim != 4 or images.shape[-1] != 3:
        raise InvalidInput(
            "Expected uint8 images of shape [b, height, width, 3]. "
            f"Got {images.dtype} of shape {list(images.shape)}. Convert them to 8-bit RGB."
        )
    return torch.tensor(images, dtype=dtype).permute(0, 3, 1, 2).contiguous() / 255


def _dtype(value: Tensor) -> torch.dtype:
    """float32 for weights, unchanged for the step counts of batch normalization."""
    return torch.float32 if value.is_floating_point() else value.dtype
