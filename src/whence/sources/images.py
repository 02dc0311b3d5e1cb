"""Images in class folders as an objective: read, and a top layer fitted on frozen features."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from tqdm import tqdm

from whence.adapters.frozen import from_frozen
from whence.errors import InvalidInput
from whence.linear.objective import LinearObjective

_BATCH = 64
_BLOCK = 4  # pixels of a block of the default features
_ENDINGS = frozenset(
    [".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"]
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Images:
    """Images read from class folders.

    Args:
        folder: Where they lie.
        names: Their paths below the folder, such as "cat/17.png", sorted, [n].
        pixels: Red, green and blue in [-1, 1], [n, 3, size, size], float32.
        labels: The names of their class folders, [n].
        notes: What was done to the data, a sentence each.
    """

    folder: Path
    names: tuple[str, ...]
    pixels: Tensor
    labels: NDArray[np.str_]
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """The height and width of the images, in pixels."""
        return self.pixels.shape[-1]


def read_images(folder: str | os.PathLike[str], *, size: int = 64) -> Images:
    """Read a folder with one folder of images per class.

    Each image is cut to its central square and scaled to size × size pixels.

    Args:
        folder: Where the class folders lie; images deeper in a class folder count too.
        size: The height and width to which images are brought, >= 8, in pixels.

    Returns:
        The images. Files that are no images by their ending are left out, and said so.

    Raises:
        InvalidInput: If there are not two classes with images, or an image cannot be read.
    """
    where = Path(folder)
    if size < 8:
        raise InvalidInput(f"Expected a size of at least 8 pixels. Got {size}.")
    if not where.is_dir():
        raise InvalidInput(f"Expected a folder with one folder per class. Got {where}.")
    below = sorted(path for path in where.glob("*/**/*") if path.is_file())
    files = [path for path in below if path.suffix.lower() in _ENDINGS]
    labels = [path.relative_to(where).parts[0] for path in files]
    classes = sorted(set(labels))
    if len(classes) < 2:
        found = f"images in {classes[0]!r} alone" if classes else "no images in folders"
        raise InvalidInput(
            f"Expected a folder with at least two class folders of images, such as cat/ and dog/. "
            f"Got the folder {where} with {found}. To explain a table, name its file."
        )
    progress = tqdm(files, desc="reading", unit="image", disable=None)
    pixels = torch.stack([read_image(path, size=size) for path in progress])
    sizes = ", ".join(f"{labels.count(name)} of {name}" for name in classes)
    notes = [f"{len(files)} images: {sizes}."]
    if len(below) > len(files):
        other = min(set(below) - set(files)).relative_to(where)
        notes.append(f"Files that are no images were left out: {len(below) - len(files)}, {other}.")
    return Images(
        folder=where,
        names=tuple(path.relative_to(where).as_posix() for path in files),
        pixels=pixels,
        labels=np.array(labels),
        notes=tuple(notes),
    )


def read_image(path: str | os.PathLike[str], *, size: int) -> Tensor:
    """Read an image's central square, scaled.

    Args:
        path: The file.
        size: Height and width of what is returned, in pixels.

    Returns:
        Red, green and blue in [-1, 1], [3, size, size], float32.

    Raises:
        InvalidInput: If the file is no image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError  # paid by images alone

    try:
        with Image.open(path) as image:
            square = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInput(
            f"Expected an image. Got {path}, which cannot be read as one "
            f"({type(error).__name__}). Repair or remove it."
        ) from error
    return torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1).float() / 127.5 - 1


def block_colors() -> nn.Module:
    """Return the default features: the mean red, green and blue of each block of 4 × 4 pixels.

    No weights come with whence, and none are downloaded. These see color and coarse shape: enough
    to find duplicates, odd pictures and backgrounds that give a class away. For more, name a
    network of your own.

    Returns:
        From [b, 3, h, w] to [b, 3 · (h/4) · (w/4)].
    """
    return nn.Sequential(nn.AvgPool2d(_BLOCK), nn.Flatten()).eval()


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedImages:
    """Images with a top layer fitted on frozen features of them.

    Args:
        images: The images.
        objective: What the top layer minimized, on all images but those held out; its ids are the
            images' names.
        held_out: Positions of the images that it was not fitted on.
    """

    images: Images
    objective: LinearObjective
    held_out: tuple[int, ...]

    def query(self, rows: Sequence[int]) -> tuple[Tensor, NDArray[np.str_]]:
        """Return images of the folder, by position in the sorted names, as queries."""
        n = len(self.images.names)
        unknown = [row for row in rows if not 0 <= row < n]
        if unknown:
            raise InvalidInput(
                f"Expected images of {self.images.folder}, numbered from 0 to {n - 1} by their "
                f"sorted names. Got {unknown[0]}."
            )
        where = np.asarray(rows, dtype=np.intp)
        return self.images.pixels[torch.from_numpy(where)], self.images.labels[where]

    def other(self, path: Path) -> tuple[Tensor, NDArray[np.str_]]:
        """Return an image from elsewhere as a query, labeled by its folder's name.

        Where that is no class, the label is what the model says.
        """
        pixels = read_image(path, size=self.images.size).unsqueeze(0)
        classes = self.objective.classes
        label = path.resolve().parent.name
        if label not in classes:
            asked = self.objective.examples((pixels, np.array([classes[0]])))
            outputs = self.objective.outputs(asked)[0]
            best = int(outputs[0] > 0) if len(outputs) == 1 else int(outputs.argmax())
            label = str(classes[best])
        return pixels, np.array([label])


def fit_images(
    images: Images, *, network: nn.Module | None = None, hold_out: Sequence[int] = ()
) -> FittedImages:
    """Fit logistic regression on frozen features of images.

    Args:
        images: The images.
        network: From [b, 3, size, size], pixels in [-1, 1], to features [b, d]; `block_colors`
            if `None`.
        hold_out: Positions of the images that the top layer is not fitted on.

    Returns:
        The objective at its optimum, with the images.

    Raises:
        InvalidInput: If a class has no image beside those held out, or the network does not fit.
    """
    frozen = (block_colors() if network is None else network).requires_grad_(False).eval()
    held = tuple(row for row in hold_out if 0 <= row < len(images.names))
    rest = np.setdiff1d(np.arange(len(images.names)), held)
    labels = images.labels[rest]
    if set(labels) != set(images.labels):
        gone = sorted(set(images.labels) - set(labels))[0]
        raise InvalidInput(
            f"Expected images of every class beside those held out. Got none of {gone!r}. "
            "Add images of it."
        )
    pixels = images.pixels[torch.from_numpy(rest)]
    with torch.no_grad():
        features = torch.cat([frozen(pixels[i : i + _BATCH]) for i in range(0, len(rest), _BATCH)])
    if features.ndim != 2:
        raise InvalidInput(
            f"Expected a network that returns features [b, d]. Got shape {list(features.shape)}. "
            "End it with torch.nn.Flatten()."
        )
    top = LogisticRegression(tol=1e-6, max_iter=2000).fit(features.double().numpy(), labels)
    objective = from_frozen(frozen, top, pixels, labels).refit()
    assert isinstance(objective, LinearObjective)
    names = np.array(images.names)[rest]
    named = replace(objective, train=replace(objective.train, ids=names))
    return FittedImages(images=images, objective=named, held_out=held)
