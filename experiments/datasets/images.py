"""Pictures: handwritten digits, dogs and fish, and CIFAR-10."""

from __future__ import annotations

import io
import tarfile
from itertools import pairwise
from typing import IO, Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from experiments.datasets.files import at_hand, read
from experiments.datasets.split import Array, Split, in_two
from whence.errors import InvalidInput


def mnist(*, quick: bool = False) -> Split:
    """MNIST digits: the first 55,000 of the training file, and the 10,000 test images.

    Args:
        quick: Take the first 5,000 and 1,000 rows if the files are at hand, else `digits()`.

    Returns:
        Pixels divided by 255, float64, [55000, 784] and [10000, 784], and labels 0 to 9.

    Raises:
        DataMissing: If the files are neither local nor to be downloaded.

    References:
        LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document
        recognition", 1998. Split: Koh & Liang 2017, section 4.1.
    """
    if quick and not (_mnist_at_hand("train") and _mnist_at_hand("t10k")):
        return digits()
    n_train, n_test = (5_000, 1_000) if quick else (55_000, 10_000)
    x_train, y_train = _idx("train", n_train)
    x_test, y_test = _idx("t10k", n_test)
    name = "MNIST, first 5,000 and 1,000" if quick else "MNIST"
    return Split(name=name, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def mnist_pair(positive: int = 1, negative: int = 7, *, quick: bool = False) -> Split:
    """Two MNIST digits as a binary problem, in the order of the files.

    Args:
        positive: The digit labeled 1.
        negative: The digit labeled 0.
        quick: As in `mnist`.

    Returns:
        The rows of `mnist` that show one of the two digits.

    Raises:
        InvalidInput: If the digits are equal or not in 0 to 9.
        DataMissing: If the files are neither local nor to be downloaded.
    """
    if positive == negative or not {positive, negative} <= set(range(10)):
        raise InvalidInput(
            "Expected two different digits in 0 to 9. "
            f"Got {positive} and {negative}. Pass, for example, 1 and 7."
        )
    full = mnist(quick=quick)
    train, test = (np.isin(y, (positive, negative)) for y in (full.y_train, full.y_test))
    return Split(
        name=f"{full.name}, {positive} against {negative}",
        x_train=full.x_train[train],
        y_train=(full.y_train[train] == positive).astype(np.int64),
        x_test=full.x_test[test],
        y_test=(full.y_test[test] == positive).astype(np.int64),
    )


def digits() -> Split:
    """scikit-learn's 8 by 8 digits, the stand-in for MNIST.

    Returns:
        Pixels divided by 16, float64, [1437, 64] and [360, 64], and labels 0 to 9.
    """
    data = load_digits()
    return in_two("scikit-learn digits", data.data / 16.0, data.target)


def dogfish(*, size: int = 224, n_train: int = 900, n_test: int = 300) -> Split:
    """ImageNet photos of dogs (0, English springer) and fish (1, tench).

    Args:
        size: Side in pixels, at least 1; other than 224, photos are resized (bicubic).
        n_train: Training photos per class, up to 955.
        n_test: Test photos per class, up to 387.

    Returns:
        The first photos of each class, dogs before fish, uint8 RGB [n, size, size, 3].

    Raises:
        InvalidInput: If more photos are asked for than there are.
        DataMissing: If the archive is not in the local mirror.

    Cost:
        About 2 ms and 3 size² bytes a photo.

    References:
        Deng et al., "ImageNet", 2009. Use: Koh & Liang 2017, sections 5.1 and 5.2.
    """
    if size < 1 or not 1 <= n_train <= 955 or not 1 <= n_test <= 387:
        raise InvalidInput(
            "Expected a size of at least 1, 1 to 955 training and 1 to 387 test photos per class. "
            f"Got size {size}, {n_train} and {n_test}."
        )
    with tarfile.open(fileobj=io.BytesIO(read("dogfish/dogfish224.tar"))) as tar:
        names = sorted(member.name for member in tar if member.isfile())

        def photos(part: str, n: int) -> Array:
            """The first `n` of each class."""
            chosen = [
                name
                for kind in ("dog", "fish")
                for name in [m for m in names if m.startswith(f"dogfish/{part}/{kind}/")][:n]
            ]
            return np.stack([_photo(_extract(tar, name), size) for name in chosen])

        x_train, x_test = photos("train", n_train), photos("test", n_test)
    return Split(
        name=f"dog against fish, {size} pixels, {n_train} and {n_test} per class",
        x_train=x_train,
        y_train=np.repeat([0, 1], n_train),
        x_test=x_test,
        y_test=np.repeat([0, 1], n_test),
    )


def cifar10(n_train: int = 50_000, n_test: int = 10_000) -> Split:
    """CIFAR-10 images in ten balanced classes.

    The local mirror keeps the images as JPEG; without it the lossless original is downloaded.
    `name` says which. The first image of every class comes first, then the second of every
    class, and so on: each multiple of 10 is balanced.

    Args:
        n_train: The number of training images, from the first, up to 50,000.
        n_test: The number of test images, from the first, up to 10,000.

    Returns:
        uint8 RGB [n, 32, 32, 3], labels 0 to 9.

    Raises:
        InvalidInput: If more images are asked for than there are.
        DataMissing: If the files are neither local nor to be downloaded.

    References:
        Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    if not 1 <= n_train <= 50_000 or not 1 <= n_test <= 10_000:
        raise InvalidInput(
            "Expected 1 to 50,000 training and 1 to 10,000 test images. "
            f"Got {n_train} and {n_test}."
        )
    if at_hand("cifar10/cifar10_jpeg.npz"):
        with np.load(io.BytesIO(read("cifar10/cifar10_jpeg.npz"))) as arrays:
            x_train, y_train = _cifar_jpeg(arrays, "train", n_train)
            x_test, y_test = _cifar_jpeg(arrays, "test", n_test)
        name = "CIFAR-10 (JPEG)"
    else:
        archive = read("cifar10/cifar-10-binary.tgz")
        x_train, y_train = _cifar_records(archive, "data_batch", n_train)
        x_test, y_test = _cifar_records(archive, "test_batch", n_test)
        name = "CIFAR-10"
    return Split(name=name, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def _mnist_at_hand(part: str) -> bool:
    """Whether images and labels of one part can be read without a download."""
    return at_hand(f"mnist/{part}-images-idx3-ubyte.gz") and at_hand(
        f"mnist/{part}-labels-idx1-ubyte.gz"
    )


def _idx(part: str, n: int) -> tuple[Array, Array]:
    """The first `n` images, scaled to [0, 1], and their labels."""
    images = read(f"mnist/{part}-images-idx3-ubyte.gz")[16:]
    labels = read(f"mnist/{part}-labels-idx1-ubyte.gz")[8:]
    x = np.frombuffer(images, np.uint8, count=n * 784).reshape(n, 784) / 255.0
    return x, np.frombuffer(labels, np.uint8, count=n).astype(np.int64)


def _photo(file: IO[bytes], size: int) -> Array:
    """One photo as uint8 RGB [size, size, 3]."""
    image = Image.open(file).convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _cifar_jpeg(arrays: Any, part: str, n: int) -> tuple[Array, Array]:
    """The first `n` images, decoded, and their labels."""
    data, offsets = arrays[f"{part}_jpeg"].tobytes(), arrays[f"{part}_offsets"]
    spans = pairwise(offsets[: n + 1])
    x = np.stack([_photo(io.BytesIO(data[start:stop]), 32) for start, stop in spans])
    return x, arrays[f"{part}_labels"][:n].astype(np.int64)


def _cifar_records(archive: bytes, part: str, n: int) -> tuple[Array, Array]:
    """The first `n` images of the lossless original, class by class in turn, and their labels.

    A record is one label byte and 3,072 pixel bytes, channel by channel.
    """
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        names = sorted(m.name for m in tar if m.isfile() and part in m.name)
        content = b"".join(_extract(tar, name).read() for name in names)
    records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    labels = records[:, 0].astype(np.int64)
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rank[rows] = np.arange(len(rows))
    first = np.lexsort((labels, rank))[:n]
    x = records[first, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(x), labels[first]


def _extract(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """The open member, which is known to be a regular file."""
    member = tar.extractfile(name)
    assert member is not None
    return member
