"""The files behind the data sets: where they are, and what they must contain.

A file is looked for in the mirror, the folder named by `WHENCE_DATA` (where that is not set:
`../shared/data` beside the repository), then among earlier downloads, and then fetched from its
public source, if it has one. Whatever the route, the sha256 of its content (after gunzip) is
checked before it is used, so two machines that both get an answer get the same one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pooch

from whence.errors import CorruptFile, DataMissing, InvalidInput


@dataclass(frozen=True, kw_only=True)
class _File:
    """One file: what it must contain, and how to get it.

    Attributes:
        sha256: Of the content, after gunzip.
        how: What a person can do where no download is possible.
        url: The public source, if there is one.
        convert: From what the source sends to the content.
    """

    sha256: str
    how: str
    url: str | None = None
    convert: Callable[[bytes], bytes] = bytes


def at_hand(name: str) -> bool:
    """Whether a file can be read without a download.

    Args:
        name: Path inside the mirror, such as `mnist/train-images-idx3-ubyte.gz`.

    Returns:
        True if it is in the mirror or has been downloaded before.
    """
    return _mirrored(name).is_file() or _cached(name).is_file()


def read(name: str) -> bytes:
    """The checked content of one file, decompressed if its name ends in `.gz`.

    Args:
        name: Path inside the mirror, such as `mnist/train-images-idx3-ubyte.gz`.

    Returns:
        The content, whose sha256 is the recorded one.

    Raises:
        InvalidInput: If no such file is known.
        DataMissing: If it is neither local nor to be downloaded.
        CorruptFile: If its content is not what was recorded.
    """
    if name not in FILES:
        raise InvalidInput(f"Expected a known data file. Got {name!r}. Use one of {list(FILES)}.")
    path = _mirrored(name)
    try:
        if path.is_file():
            content = (
                gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
            )
        else:
            path = _cached(name) if _cached(name).is_file() else _download(name)
            content = FILES[name].convert(path.read_bytes())
        digest = hashlib.sha256(content).hexdigest()
    except (EOFError, KeyError, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile) as error:
        digest = f"a file that cannot be unpacked ({error})"
    if digest != FILES[name].sha256:
        raise CorruptFile(
            f"Expected {path} to hold {name}, with content sha256 {FILES[name].sha256}. "
            f"Got {digest}. Delete that file and run again."
        )
    return content


def _mirrored(name: str) -> Path:
    """Where the file is in the local mirror, if it is there."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    return Path(os.environ.get("WHENCE_DATA") or beside) / name


def _cached(name: str) -> Path:
    """Where a download of the file is kept, as its source sent it."""
    return Path(pooch.os_cache("whence")) / name


def _download(name: str) -> Path:
    """Fetch the file from its public source, and return where it was put."""
    file, path = FILES[name], _cached(name)
    expected = f"Expected the data file {name} in the folder that WHENCE_DATA names."
    if file.url is None:
        raise DataMissing(f"{expected} Got none, and it has no public download. {file.how}")
    try:
        # No hash of the archive: `read` checks the content, whatever it came wrapped in.
        pooch.retrieve(file.url, known_hash=None, fname=path.name, path=path.parent)
    except (OSError, ValueError) as error:
        raise DataMissing(
            f"{expected} Got none, and {file.url} could not be read ({error}). {file.how}"
        ) from error
    return path


def _enron_lines(archive: bytes) -> bytes:
    """Enron1's folder of mails as one JSON object a line: ham, then spam, each by file name."""
    mails: dict[str, str] = {}
    # Read in the order of the archive: seeking in a compressed stream starts it over.
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            parts, file = member.name.split("/"), tar.extractfile(member)
            if file is not None and parts[-2:-1] in (["ham"], ["spam"]):
                mails["/".join(parts[-2:])] = file.read().decode("latin-1")
    rows = ({"id": k, "label": k.split("/")[0], "text": mails[k]} for k in sorted(mails))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _member(name: str) -> Callable[[bytes], bytes]:
    """Take the file called `name`, in whatever folder, out of a zip archive."""

    def convert(archive: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
            found = [path for path in zipped.namelist() if path.split("/")[-1] == name]
            return zipped.read(found[0]) if found else b""

    return convert


def _mnist(part: str, sha256: str) -> _File:
    """One of MNIST's four files."""
    return _File(
        sha256=sha256,
        how="Get MNIST's four idx files, gzipped.",
        url=f"https://ossci-datasets.s3.amazonaws.com/mnist/{part}-ubyte.gz",
        convert=gzip.decompress,
    )


def _uci(member: str, sha256: str) -> _File:
    """One of the two files of UCI data set 296."""
    return _File(
        sha256=sha256,
        how="Get data set 296 (doi 10.24432/C5230J) from the UCI repository.",
        url="https://archive.ics.uci.edu/static/public/296/"
        "diabetes+130-us+hospitals+for+years+1999-2008.zip",
        convert=_member(member),
    )


def _github(path: str, sha256: str) -> _File:
    """A text file in a public repository."""
    return _File(
        sha256=sha256,
        how="Get it by hand and gzip it.",
        url=f"https://raw.githubusercontent.com/{path}",
    )


def _network(sha256: str, source: str) -> _File:
    """Converted network weights, which are published nowhere in this form."""
    how = f"Convert {source} to safetensors with torchvision's parameter names."
    return _File(sha256=sha256, how=how)


_SST2 = "clairett/pytorch-sentiment-classification/457ffd83de90a9d6d472d8ffc31bbffe40a8b236"
_CHAR_RNN = "karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
_WIKITEXT2 = "pytorch/examples/main/word_language_model/data/wikitext-2"

FILES: dict[str, _File] = {
    "mnist/train-images-idx3-ubyte.gz": _mnist(
        "train-images-idx3",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "mnist/train-labels-idx1-ubyte.gz": _mnist(
        "train-labels-idx1",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "mnist/t10k-images-idx3-ubyte.gz": _mnist(
        "t10k-images-idx3",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "mnist/t10k-labels-idx1-ubyte.gz": _mnist(
        "t10k-labels-idx1",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "enron1/enron1.jsonl.gz": _File(
        sha256="aebc69f4ec6bb5d5b1e9b5a12afdd5a59b4d8c4daec0fb541bd6e9bfea325cd3",
        how="Get the preprocessed Enron1 corpus of Metsis, Androutsopoulos and Paliouras 2006.",
        url="http://www2.aueb.gr/users/ion/data/enron-spam/preprocessed/enron1.tar.gz",
        convert=_enron_lines,
    ),
    "diabetes130/diabetic_data.csv.gz": _uci(
        "diabetic_data.csv",
        "0689e7ec031237dc63031b938805c48377748761a3b26acab621567afa24df97",
    ),
    "dogfish/dogfish224.tar": _File(
        sha256="d29e7910b99ff2ab6241bd5664df659d92d2b7443ad6912d2cadda2e5c26e1d4",
        how="Pack the classes n02102040 (dog) and n01440764 (fish) of Imagenette-v2, cropped to "
        "224 by 224, as members dogfish/{train,test}/{dog,fish}/*.JPEG of one tar file.",
    ),
    "cifar10/cifar10_jpeg.npz": _File(
        sha256="6ee168959eb617070ee33024d1798997eb82d0efc86ab62fbd46c199ee79ee3b",
        how="Use the lossless original instead.",
    ),
    "cifar10/cifar-10-binary.tgz": _File(
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        how="Get the binary version of CIFAR-10 from the University of Toronto.",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    ),
    "text/sst2_train.tsv.gz": _github(
        f"{_SST2}/data/SST2/train.tsv",
        "ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920",
    ),
    "text/sst2_dev.tsv.gz": _github(
        f"{_SST2}/data/SST2/dev.tsv",
        "eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359",
    ),
    "text/sst2_test.tsv.gz": _github(
        f"{_SST2}/data/SST2/test.tsv",
        "831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7",
    ),
    "text/agnews_test.csv.gz": _File(
        sha256="1b1b6c5f1dd034c83fec3f585611d2bc65c34fafd86685fc92cee5e6059313ef",
        how="Get the AG News test split (Zhang et al. 2015) as a csv file with the header "
        "Class Index,Title,Description, and gzip it.",
    ),
    "text/wikitext2_valid.txt.gz": _github(
        f"{_WIKITEXT2}/valid.txt",
        "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    ),
    "text/wikitext2_test.txt.gz": _github(
        f"{_WIKITEXT2}/test.txt",
        "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
    ),
    "text/tinyshakespeare.txt.gz": _github(
        f"{_CHAR_RNN}/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "weights/imagenet_synset_words.txt": _File(
        sha256="acf75ef0abe89694b19056e0796401068b459c457baa30335f240c7692857355",
        how="Write the 1000 lines 'wnid name' of ImageNet's classes, in order.",
    ),
    "weights/squeezenet1_1.safetensors": _network(
        "b91606d2a6c9734dded4c00431ab087ce1a219c19a3f59a3ed7889406c332020",
        "SqueezeNet 1.1 of the ONNX model zoo",
    ),
    "weights/mobilenet_v2.safetensors": _network(
        "362a2de0e84e33d84cbbd4cf785b2bd5cdc971d038a282beeb024a7cdc7e74b9",
        "Google's tf2_mobilenet_v2_1.0_224_ptq, kernels rotated by 180 degrees,",
    ),
    "weights/inception_v3_trunk.safetensors": _network(
        "7774e05457336ece79a0880947e76ce50f41de7d12e35fd97d6f015658fe7df9",
        "Google's Inception v3 of 2015-12-05, up to Mixed_7b",
    ),
}
