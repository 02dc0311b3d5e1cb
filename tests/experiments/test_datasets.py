"""Every data set against counts published with it, and every route to a file against the other."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pooch
import pytest
from PIL import Image
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from experiments import datasets
from experiments.datasets.files import FILES
from whence.errors import CorruptFile, DataMissing, InvalidInput

MNIST = [name for name in FILES if name.startswith("mnist/")]
ENRON = "enron1/enron1.jsonl.gz"
STAYS = "diabetes130/diabetic_data.csv.gz"
DOGFISH = "dogfish/dogfish224.tar"
CIFAR = "cifar10/cifar10_jpeg.npz"


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip where a file would have to be downloaded."""
    absent = [name for name in names if not datasets.at_hand(name)]
    return pytest.mark.skipif(bool(absent), reason=f"not in WHENCE_DATA: {', '.join(absent)}")


@pytest.fixture
def nothing_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty mirror, an empty cache, and no network; the mirror is returned."""

    def refuse(*_: object, **__: object) -> str:
        raise ConnectionError("no network in tests")

    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("WHENCE_DATA", str(mirror))
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setattr(pooch, "retrieve", refuse)
    return mirror


def publish(monkeypatch: pytest.MonkeyPatch, content: bytes) -> list[str]:
    """Make every download deliver `content`; the addresses asked for are listed."""
    asked: list[str] = []

    def retrieve(url: str, known_hash: None, fname: str, path: Path) -> str:
        asked.append(url)
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(content)
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    return asked


def test_an_unknown_file_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="Got 'mnist/train'"):
        datasets.read("mnist/train")


def test_a_missing_file_without_a_source_says_how_to_get_it(nothing_local: Path) -> None:
    assert not datasets.at_hand(DOGFISH)
    with pytest.raises(DataMissing, match=r"WHENCE_DATA.*no public download.*Imagenette"):
        datasets.dogfish()


def test_a_failed_download_is_a_missing_file(nothing_local: Path) -> None:
    with pytest.raises(DataMissing, match=r"idx.*could not be read \(no network in tests\)"):
        datasets.mnist()


@pytest.mark.parametrize("content", [b"other content", b""])
@pytest.mark.parametrize("name", ["weights/imagenet_synset_words.txt", ENRON])
def test_changed_content_is_refused(nothing_local: Path, name: str, content: bytes) -> None:
    path = nothing_local / name
    path.parent.mkdir()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(CorruptFile, match=f"Got {hashlib.sha256(content).hexdigest()}"):
        datasets.read(name)


def test_a_truncated_file_is_refused(nothing_local: Path) -> None:
    name = "mnist/t10k-labels-idx1-ubyte.gz"
    (nothing_local / "mnist").mkdir()
    (nothing_local / name).write_bytes(gzip.compress(bytes(range(256)))[:-20])
    with pytest.raises(CorruptFile, match="cannot be unpacked"):
        datasets.read(name)


@needs(ENRON, STAYS, MNIST[-1])
@pytest.mark.parametrize("name", [ENRON, STAYS, MNIST[-1]])
def test_the_public_source_gives_the_content_of_the_mirror(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = datasets.read(name)
    if name == ENRON:
        archive = _enron_archive(content)
    elif name == STAYS:
        archive = _zip("dataset_diabetes/diabetic_data.csv", content)
    else:
        archive = gzip.compress(content)
    monkeypatch.setenv("WHENCE_DATA", str(tmp_path / "empty"))
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    asked = publish(monkeypatch, archive)
    assert not datasets.at_hand(name)
    assert datasets.read(name) == content
    assert datasets.at_hand(name)
    assert datasets.read(name) == content
    assert asked == [FILES[name].url]


def test_a_source_that_sends_something_else_is_refused(
    nothing_local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (ENRON, STAYS, MNIST[0]):
        publish(monkeypatch, b"<html>moved</html>")
        with pytest.raises(CorruptFile, match="Delete that file"):
            datasets.read(name)


def test_stand_ins_where_nothing_is_local(nothing_local: Path) -> None:
    digits, pair = datasets.mnist(quick=True), datasets.mnist_pair(quick=True)
    assert digits.name == "scikit-learn digits"
    assert digits.x_train.shape == (1437, 64)
    assert digits.x_test.shape == (360, 64)
    assert 0.0 <= digits.x_train.min() < digits.x_train.max() == 1.0
    assert pair.name == "scikit-learn digits, 1 against 7"
    assert len(pair.y_train) == np.isin(digits.y_train, (1, 7)).sum()
    assert pair.y_train.sum() == (digits.y_train == 1).sum()
    tumors = datasets.enron_bag_of_words(quick=True)
    assert tumors.name == "scikit-learn breast cancer"
    assert tumors.x_train.shape == (455, 30)
    np.testing.assert_allclose(tumors.x_train.toarray().mean(axis=0), 0.0, atol=1e-12)
    hospital = datasets.diabetes130(quick=True)
    assert hospital.split.name == "scikit-learn diabetes progression"
    assert hospital.features[hospital.group] == "age_[14-24)"
    assert _children(hospital) == (3, 12)
    assert _children(datasets.drop_children(hospital)) == (3, 4)


@pytest.fixture(scope="module")
def whole_mnist() -> datasets.Split:
    """MNIST, read once."""
    return datasets.mnist()


@needs(*MNIST)
def test_mnist(whole_mnist: datasets.Split) -> None:
    data = whole_mnist
    assert data.x_train.shape == (55_000, 784)
    assert data.x_train.dtype == np.float64
    assert data.x_train.min() == 0.0
    assert data.x_train.max() == 1.0
    labels = np.frombuffer(datasets.read("mnist/train-labels-idx1-ubyte.gz")[8:], np.uint8)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(labels).tolist() == counts
    assert np.array_equal(data.y_train, labels[:55_000])
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(data.y_test).tolist() == counts
    # Known mean intensity of the training images, 0.1307.
    assert data.x_train.mean() == pytest.approx(0.1307, abs=2e-4)

    pair = datasets.mnist_pair(1, 7)
    kept = np.isin(data.y_test, (1, 7))
    assert len(pair.y_train) == 11_914
    assert np.array_equal(pair.x_test, data.x_test[kept])
    assert np.array_equal(pair.y_test, data.y_test[kept] == 1)
    assert pair.y_test[30] == 0  # the 7 that the paper explains


@needs(*MNIST)
def test_quick_mnist_is_a_prefix(whole_mnist: datasets.Split) -> None:
    data, quick = whole_mnist, datasets.mnist(quick=True)
    assert np.array_equal(quick.x_train, data.x_train[:5_000])
    assert np.array_equal(quick.y_test, data.y_test[:1_000])
    assert quick.name != data.name


@pytest.mark.parametrize("digits", [(1, 1), (1, 10), (-1, 7)])
def test_mnist_pair_needs_two_digits(digits: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput, match="two different digits"):
        datasets.mnist_pair(*digits)


@needs(ENRON)
def test_enron_words_against_a_naive_count() -> None:
    bag = datasets.enron_bag_of_words(seed=3)
    assert (len(bag.texts_train), len(bag.texts_test)) == (4_137, 1_035)
    corpus = [json.loads(line) for line in datasets.read(ENRON).splitlines()]
    assert Counter(bag.texts_train + bag.texts_test) == Counter(row["text"] for row in corpus)
    assert bag.y_train.sum() + bag.y_test.sum() == 1_500
    label = {row["text"]: row["label"] == "spam" for row in corpus}
    assert [label[text] for text in bag.texts_test] == bag.y_test.tolist()

    words = [re.findall(r"[^\W\d_]{2,}", text.lower()) for text in bag.texts_train]
    mails = Counter(word for found in words for word in set(found))
    kept = {word for word, count in mails.items() if count >= 5} - ENGLISH_STOP_WORDS
    assert list(bag.vocabulary) == sorted(kept)
    for row in range(0, 4_137, 200):
        counts = Counter(word for word in words[row] if word in kept)
        dense = bag.x_train[[row]].toarray()[0]
        assert {bag.vocabulary[j]: dense[j] for j in np.flatnonzero(dense)} == counts


@needs(ENRON)
def test_enron_choices() -> None:
    one, same, other = (datasets.enron_bag_of_words(seed=s, quick=True) for s in (0, 0, 1))
    assert one.x_train.shape[0] == 1_000
    assert one.texts_train == same.texts_train
    assert np.array_equal(one.x_test.toarray(), same.x_test.toarray())
    assert one.texts_train != other.texts_train
    every = datasets.enron_bag_of_words(min_documents=1, keep_stop_words=True, quick=True)
    assert {"the", *one.vocabulary} <= set(every.vocabulary)
    assert "the" not in one.vocabulary
    with pytest.raises(InvalidInput, match="Got 0"):
        datasets.enron_bag_of_words(min_documents=0)


@needs(STAYS)
def test_diabetes130_is_the_split_of_the_paper() -> None:
    hospital = datasets.diabetes130()
    split, features = hospital.split, hospital.features
    assert split.x_train.shape == (20_000, 127)
    assert split.x_test.shape == (81_766, 127)
    assert (split.y_train.sum(), split.y_test.sum()) == (10_000, 1_357)
    assert features[hospital.group] == "age_[0-10)"
    assert _children(hospital) == (3, 24)
    # The first children among the test rows that the authors' notebook prints; it explains 1742.
    children = np.flatnonzero(split.x_test[:, hospital.group])
    assert children[:6].tolist() == [473, 647, 1037, 1599, 1611, 1742]
    assert split.y_test[1742] == 0

    x = np.vstack([split.x_train, split.x_test])
    assert x[:, hospital.group].sum() == 161
    for column, levels in [("age", 10), ("race", 6), ("discharge_disposition_id", 26)]:
        block = [j for j, name in enumerate(features) if name.startswith(f"{column}_")]
        assert len(block) == levels
        assert np.array_equal(x[:, block].sum(axis=1), np.ones(len(x)))
    codes = [name for name in features if name.startswith("discharge")]
    assert codes == sorted(codes, key=lambda name: int(name.split("_")[-1]))
    assert [name for name in features if name.startswith("change_")] == ["change_No"]
    assert x[:, features.index("change_No")].sum() == 54_755
    assert x[:, features.index("diabetesMed_Yes")].sum() == 78_363

    fewer = datasets.drop_children(hospital)
    assert _children(fewer) == (3, 4)
    assert len(fewer.split.y_train) == 19_980
    assert fewer.split.x_test is split.x_test
    others = split.x_train[split.x_train[:, hospital.group] == 0]
    still = fewer.split.x_train[fewer.split.x_train[:, hospital.group] == 0]
    assert np.array_equal(still, others)


def test_diabetes130_refuses_more_rows_than_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"Got 11357"):
        datasets.diabetes130(n_per_class=11_357)


@needs(DOGFISH)
def test_dogfish() -> None:
    data = datasets.dogfish(n_train=2, n_test=3)
    assert data.x_train.shape == (4, 224, 224, 3)
    assert data.x_test.dtype == np.uint8
    assert data.y_test.tolist() == [0, 0, 0, 1, 1, 1]
    with tarfile.open(fileobj=io.BytesIO(datasets.read(DOGFISH))) as tar:
        names = sorted(name for name in tar.getnames() if "/test/fish/" in name)
        third = tar.extractfile(names[2])
        assert third is not None
        expected = np.asarray(Image.open(third).convert("RGB"))
    assert np.array_equal(data.x_test[5], expected)
    small = datasets.dogfish(size=56, n_train=1, n_test=3)
    assert small.x_test.shape == (6, 56, 56, 3)
    blocks = expected.reshape(56, 4, 56, 4, 3).mean(axis=(1, 3))
    assert np.abs(small.x_test[5] - blocks).mean() < 4


@pytest.mark.parametrize("wrong", [{"size": 0}, {"n_train": 956}, {"n_test": 388}])
def test_dogfish_refuses_more_than_there_is(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match="photos per class"):
        datasets.dogfish(**wrong)


@needs(CIFAR)
def test_cifar10() -> None:
    data = datasets.cifar10(1_000, 200)
    assert data.name == "CIFAR-10 (JPEG)"
    assert data.x_train.shape == (1_000, 32, 32, 3)
    assert data.y_train.tolist() == list(range(10)) * 100
    # The channel means of the whole training set are .4913, .4821 and .4465.
    means = data.x_train.mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.4913, 0.4821, 0.4465], atol=0.01)
    with pytest.raises(InvalidInput, match="Got 50001"):
        datasets.cifar10(50_001)


def test_cifar10_from_the_lossless_original(
    nothing_local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    batches = {
        name: np.hstack(
            [
                random.permutation(np.repeat(np.arange(10, dtype=np.uint8), 4))[:, None],
                random.integers(0, 256, (40, 3072), dtype=np.uint8),
            ]
        )
        for name in ("data_batch_2.bin", "data_batch_1.bin", "test_batch.bin")
    }
    archive = _tar({f"cifar-10-batches-bin/{k}": v.tobytes() for k, v in batches.items()})
    name = "cifar10/cifar-10-binary.tgz"
    file = replace(FILES[name], sha256=hashlib.sha256(archive).hexdigest())
    monkeypatch.setitem(FILES, name, file)
    publish(monkeypatch, archive)
    data = datasets.cifar10(25, 10)
    assert data.name == "CIFAR-10"
    records = np.vstack([batches["data_batch_1.bin"], batches["data_batch_2.bin"]])
    for i in range(25):
        record = [row for row in records if row[0] == i % 10][i // 10]
        assert data.y_train[i] == i % 10
        for channel in range(3):
            plane = record[1 + 1024 * channel : 1 + 1024 * (channel + 1)].reshape(32, 32)
            assert np.array_equal(data.x_train[i, :, :, channel], plane)
    assert data.y_test.tolist() == list(range(10))


@needs(*(name for name in FILES if name.startswith("text/")))
def test_texts() -> None:
    for part, n in (("train", 6_920), ("dev", 872), ("test", 1_821)):
        sentences = datasets.sst2(part)  # type: ignore[arg-type]
        assert (len(sentences.texts), len(sentences.labels)) == (n, n)
        assert set(sentences.labels.tolist()) == {0, 1}
        assert not any("\t" in text for text in sentences.texts)
    news = datasets.agnews()
    assert np.bincount(news.labels).tolist() == [1_900] * 4
    assert news.texts[0].startswith("Fears for T N pension after talks\nUnions")
    assert len(datasets.wikitext2("valid").split()) == pytest.approx(214_000, abs=1_000)
    assert len(datasets.wikitext2("test").split()) == pytest.approx(241_000, abs=1_000)
    assert len(datasets.tinyshakespeare()) == 1_115_394
    assert datasets.tinyshakespeare().startswith("First Citizen:\n")


def _children(hospital: datasets.Hospital) -> tuple[int, int]:
    """Readmitted and all training rows of the group."""
    group = hospital.split.x_train[:, hospital.group] == 1
    return int(hospital.split.y_train[group].sum()), int(group.sum())


def _tar(files: dict[str, bytes]) -> bytes:
    """A gzipped tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _enron_archive(lines: bytes) -> bytes:
    """The corpus as it is published: a folder of mails, in no order, with a note beside them."""
    rows = [json.loads(line) for line in lines.splitlines()]
    files = {f"enron1/{row['id']}": row["text"].encode("latin-1") for row in reversed(rows)}
    return _tar({"enron1/Summary.txt": b"Ham: 3672", **files})


def _zip(name: str, content: bytes) -> bytes:
    """A zip archive of one file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()
