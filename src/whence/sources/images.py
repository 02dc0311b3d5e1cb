"""Images in class folders as an objective: read, and a top layer fitted on frozen features."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from whence.adapters.frozen import from_frozen
from whence.errors import InvalidInput
from whence.linear.objective import LinearObjective
from whence.progress import clock, progress
from whence.sources.unpacking import first_line

if TYPE_CHECKING:
    from PIL import Image as Pillow

_BATCH = 64
_BLOCK = 4  # pixels of a block of the default features
_LARGEST = 2**27  # pixels that are decoded at most
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF
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

    Each image is cut to its central square and scaled to size × size pixels; see `read_image`.

    Args:
        folder: Where the class folders lie; images deeper in a class folder count too.
        size: The height and width to which images are brought, >= 8, in pixels.

    Returns:
        The images. Files that are no images by their ending are left out, and of animations and
        stacks of pages all but the first frame is; the notes say so.

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
    read = [_read(path, size) for path in progress(files, desc="reading", unit="image")]
    pixels = torch.stack([image for image, _ in read])
    sizes = ", ".join(f"{labels.count(name)} of {name}" for name in classes)
    notes = [f"{len(files)} images: {sizes}."]
    if len(below) > len(files):
        other = min(set(below) - set(files)).relative_to(where)
        notes.append(f"Files that are no images were left out: {len(below) - len(files)}, {other}.")
    moving = [path.relative_to(where) for path, (_, n) in zip(files, read, strict=True) if n > 1]
    if moving:
        notes.append(f"Only the first frame was read of {len(moving)} files: {moving[0]}.")
    return Images(
        folder=where,
        names=tuple(path.relative_to(where).as_posix() for path in files),
        pixels=pixels,
        labels=np.array(labels),
        notes=tuple(notes),
    )


def read_image(path: str | os.PathLike[str], *, size: int) -> Tensor:
    """Read an image's central square, scaled.

    Stored numbers are divided by the largest that their type can hold: 8, 12 or 16 bits. The image
    is turned as its camera noted, transparent parts are laid on white, and of an animation or a
    stack of pages the first frame is read.

    Args:
        path: The file.
        size: Height and width of what is returned, in pixels.

    Returns:
        Red, green and blue in [-1, 1], [3, size, size], float32.

    Raises:
        InvalidInput: If the file is no image, is damaged, has more than 134 million pixels, or
            holds numbers of no known range: floating-point ones outside [0, 1], or integers with a
            sign or 32 bits.
    """
    return _read(path, size)[0]


def _read(path: str | os.PathLike[str], size: int) -> tuple[Tensor, int]:
    """Return an image as [3, size, size] in [-1, 1], and of how many frames it is the first."""
    from PIL import Image, ImageOps  # paid by images alone

    # What Pillow warns of concerns data beside the pixels, or a size that is checked here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as image:
                if image.width * image.height > _LARGEST:
                    raise Image.DecompressionBombError(f"{image.width} × {image.height} pixels")
                image.load()
                with suppress(Exception):  # EXIF data that cannot be read turn nothing
                    ImageOps.exif_transpose(image, in_place=True)
                pixels = _square(image, path, size)
                # A camera's file may hold previews of the same picture beside it.
                frames = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
        except InvalidInput:
            raise
        except Image.DecompressionBombError as error:
            raise InvalidInput(
                f"Expected an image of at most {_LARGEST // 10**6} million pixels. Got {path}: "
                f"{error}. Scale it down, or cut it into tiles."
            ) from error
        except Exception as error:  # Pillow raises many kinds on damaged files
            raise InvalidInput(
                f"Expected an image. Got {path}, which cannot be read as one "
                f"({first_line(error)}). Repair or remove it."
            ) from error
    return pixels, frames


def _square(image: Pillow.Image, path: str | os.PathLike[str], size: int) -> Tensor:
    """Return the central square of an opened image as [3, size, size] in [-1, 1]."""
    from PIL import Image, ImageOps

    gray = image.mode[:1] in "FI"
    levels = Image.fromarray(_gray(image, path)) if gray else _colors(image)
    square = np.asarray(ImageOps.fit(levels, (size, size), Image.Resampling.BICUBIC))
    if gray:
        shades = torch.from_numpy(square.clip(0, 1)) * 2 - 1
        return shades.expand(3, size, size).clone()
    return torch.from_numpy(square.copy()).permute(2, 0, 1).float() / 127.5 - 1


def _colors(image: Pillow.Image) -> Pillow.Image:
    """Return an image of at most 8 bits per channel in RGB, on white where it is transparent."""
    from PIL import Image

    if image.mode not in ("RGBA", "RGBa", "LA", "La", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    above = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, above).convert("RGB")


def _gray(image: Pillow.Image, path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Return gray levels that 8 bits do not hold as numbers from 0 to 1, [h, w]."""
    values = np.asarray(image, dtype=np.float32)
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F":
        if not (values.min() >= 0 and values.max() <= 1):
            raise InvalidInput(
                "Expected an image whose floating-point numbers lie in [0, 1]. Got "
                f"{path}, from {values.min():g} to {values.max():g}. Scale them to that range."
            )
    elif image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        values /= 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1
    else:
        raise InvalidInput(
            f"Expected an image of 8 or 16 bits without sign. Got {path}, whose integers have a "
            f"sign or 32 bits: {values.min():g} to {values.max():g}. Save it with 16 bits."
        )
    if "transparency" in image.info:
        values[np.asarray(image) == image.info["transparency"]] = 1
    return 1 - values if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else values


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

    def answering(
        self, query: tuple[Tensor, NDArray[np.str_]], label: str
    ) -> tuple[Tensor, NDArray[np.str_]]:
        """Return an image as a query with another label.

        Args:
            query: The image with its label, or with what the model says.
            label: The other label.

        Raises:
            InvalidInput: If it is no other class of the folder.
        """
        own = str(query[1][0])
        others = [str(name) for name in self.objective.classes if name != own]
        if label not in others:
            raise InvalidInput(
                f"Expected --against with another class than {own!r}, the answer explained: "
                f"{', '.join(map(repr, others[:8]))}{', …' * (len(others) > 8)}. Got {label!r:.80}."
            )
        return query[0], np.array([label])


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
        starts = progress(range(0, len(rest), _BATCH), desc="features", unit="batch")
        features = torch.cat([frozen(pixels[i : i + _BATCH]) for i in starts])
    if features.ndim != 2:
        raise InvalidInput(
            f"Expected a network that returns features [b, d]. Got shape {list(features.shape)}. "
            "End it with torch.nn.Flatten()."
        )
    with clock("fitting logistic regression"):
        top = LogisticRegression(tol=1e-6, max_iter=2000).fit(features.double().numpy(), labels)
        objective = from_frozen(frozen, top, pixels, labels).refit()
    names = np.array(images.names)[rest]
    named = replace(objective, train=replace(objective.train, ids=names))
    return FittedImages(images=images, objective=named, held_out=held)
