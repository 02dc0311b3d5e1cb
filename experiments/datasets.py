"""Real data sets as plain arrays, from a local mirror or from where they are published.

A file is looked for in the mirror, the folder named by `WHENCE_DATA` (where that is not set:
`../shared/data` beside the repository), then in the download cache, and then fetched from its
public source. Whatever the route, the sha256 of its content (after gunzip) is checked before a
single array is built, so two machines that both get an answer get the same one.

`quick=True` asks for the small stand-in that a two-minute run uses: the first rows of the same
data if they are at hand, otherwise a data set that comes with scikit-learn. It never downloads,
and `name` says which one it is.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pooch
from sklearn import datasets as bundled
from sklearn.model_selection import train_test_split

from whence.errors import CorruptFile, DataMissing, InvalidInput

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Split:
    """A supervised data set with its train and test parts.

    Attributes:
        name: What it is, for the record of a run; it differs for a stand-in.
        x_train: Features [n, d].
        y_train: Labels [n], int64.
        x_test: Features [q, d].
        y_test: Labels [q], int64.
    """

    name: str
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


@dataclass(frozen=True, kw_only=True)
class _File:
    """One file: the sha256 of its content, and how to get it where it is not local."""

    sha256: str
    how: str
    url: str | None = None
    convert: Callable[[bytes], bytes] = bytes


def _mnist(name: str, sha256: str) -> tuple[str, _File]:
    """One of MNIST's four files, published gzipped."""
    url = f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}"
    how = "Download MNIST's four idx files."
    return f"mnist/{name}", _File(sha256=sha256, how=how, url=url, convert=gzip.decompress)


_FILES: dict[str, _File] = dict(
    [
        _mnist(
            "train-images-idx3-ubyte.gz",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        _mnist(
            "train-labels-idx1-ubyte.gz",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        _mnist(
            "t10k-images-idx3-ubyte.gz",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        _mnist(
            "t10k-labels-idx1-ubyte.gz",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ]
)


def at_hand(name: str) -> bool:
    """Whether a file can be read without a download.

    Args:
        name: Path inside the mirror, such as `mnist/train-images-idx3-ubyte.gz`.

    Returns:
        True if it is in the mirror or has been downloaded before.
    """
    return _mirrored(name) is not None or _cached(name).exists()


def read(name: str) -> bytes:
    """The content of one file, decompressed if its name ends in `.gz`, and checked.

    Args:
        name: Path inside the mirror, such as `mnist/train-images-idx3-ubyte.gz`.

    Returns:
        The content, whose sha256 is the recorded one.

    Raises:
        InvalidInput: If no such file is known.
        DataMissing: If it is neither local nor to be downloaded.
        CorruptFile: If its content is not what was recorded.
    """
    if name not in _FILES:
        raise InvalidInput(f"Expected a known data file. Got {name!r}. Use one of {list(_FILES)}.")
    path = _mirrored(name)
    if path is not None:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    else:
        path = _cached(name) if _cached(name).exists() else _download(name)
        content = _FILES[name].convert(path.read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    if digest != _FILES[name].sha256:
        raise CorruptFile(
            f"Expected {path} to hold {name} with content sha256 {_FILES[name].sha256}. "
            f"Got {digest}. Delete that file and run again."
        )
    return content


def mnist(*, quick: bool = False) -> Split:
    """MNIST digits: the first 55,000 of the training file, and the 10,000 test images.

    Args:
        quick: Take the first 5,000 and 1,000 rows if the files are local, else `digits()`.

    Returns:
        Pixels divided by 255, float64, [55000, 784] and [10000, 784], and labels 0 to 9.

    Raises:
        DataMissing: If the files are neither local nor to be downloaded.

    References:
        LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document
        recognition", 1998; the split is that of Koh & Liang 2017, section 4.1.
    """
    if quick and not all(at_hand(name) for name in _FILES if name.startswith("mnist/")):
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
        The rows of `mnist` showing one of the two digits.

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
    """scikit-learn's 8 by 8 digits, 1,437 train and 360 test, the stand-in for MNIST.

    Returns:
        Pixels divided by 16, float64, [1437, 64] and [360, 64], and labels 0 to 9.
    """
    data = bundled.load_digits()
    return _bundled_split("scikit-learn digits", data.data / 16.0, data.target)


def _bundled_split(name: str, x: Array, y: Array) -> Split:
    """An 80/20 split, stratified by label, always the same."""
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.2, random_state=0, stratify=y
    )
    return Split(
        name=name,
        x_train=x_train,
        y_train=y_train.astype(np.int64),
        x_test=x_test,
        y_test=y_test.astype(np.int64),
    )


def _idx(part: str, n: int) -> tuple[Array, Array]:
    """The first `n` images, scaled to [0, 1], and their labels."""
    images = read(f"mnist/{part}-images-idx3-ubyte.gz")[16:]
    labels = read(f"mnist/{part}-labels-idx1-ubyte.gz")[8:]
    x = np.frombuffer(images, np.uint8, count=n * 784).reshape(n, 784) / 255.0
    return x, np.frombuffer(labels, np.uint8, count=n).astype(np.int64)


def _mirrored(name: str) -> Path | None:
    """The file in the local mirror, or None."""
    root = Path(__file__).resolve().parents[1]
    mirror = Path(os.environ.get("WHENCE_DATA") or root.parent / "shared" / "data")
    path = mirror / name
    return path if path.is_file() else None


def _cached(name: str) -> Path:
    """Where a download of the file is kept."""
    return Path(pooch.os_cache("whence")) / name


def _download(name: str) -> Path:
    """Fetch the file from its public source into the cache."""
    source, path = _FILES[name], _cached(name)
    expected = f"Expected the data file {name} in the folder that WHENCE_DATA names."
    if source.url is None:
        raise DataMissing(f"{expected} Got none, and it has no public download. {source.how}")
    try:
        # known_hash is None because `read` checks the content, whatever archive it came in.
        pooch.retrieve(source.url, known_hash=None, fname=path.name, path=path.parent)
    except (OSError, ValueError) as error:
        raise DataMissing(
            f"{expected} Got none, and {source.url} could not be read ({error}). {source.how}"
        ) from error
    return path
