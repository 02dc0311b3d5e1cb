"""Text: mails as bags of words, labeled sentences, and running text."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse
from sklearn.datasets import load_breast_cancer
from sklearn.feature_extraction.text import CountVectorizer

from experiments.datasets.files import at_hand, read
from experiments.datasets.split import Array
from experiments.datasets.tables import breast_cancer
from whence.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class BagOfWords:
    """Documents as sparse rows of word counts.

    Attributes:
        name: What it is, for the record of a run; a stand-in has its own name.
        x_train: Counts, CSR float64 [n, d].
        y_train: Labels [n], int64.
        x_test: Counts, CSR float64 [q, d].
        y_test: Labels [q], int64.
        vocabulary: The word of each column [d].
        texts_train: The documents themselves [n]; empty for a stand-in that has none.
        texts_test: The documents themselves [q]; empty for a stand-in that has none.
    """

    name: str
    x_train: sparse.csr_array
    y_train: Array
    x_test: sparse.csr_array
    y_test: Array
    vocabulary: tuple[str, ...]
    texts_train: tuple[str, ...]
    texts_test: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """Short labeled texts.

    Attributes:
        name: What they are.
        texts: The texts [n].
        labels: Their classes [n], int64, from 0.
    """

    name: str
    texts: tuple[str, ...]
    labels: Array


def enron_bag_of_words(
    *, seed: int = 0, min_documents: int = 5, keep_stop_words: bool = False, quick: bool = False
) -> BagOfWords:
    """The Enron1 mails, spam (1) against ham (0), as counts of words.

    A word is a run of two or more letters, lowercased. The vocabulary holds the words found in
    at least `min_documents` training mails; test mails have no say in it. The authors of the
    paper also lemmatize with a language model and drop words unknown to it; that is not done.

    Args:
        seed: Of the shuffle that precedes the 80/20 split into 4,137 and 1,035 mails.
        min_documents: The number of training mails a word must occur in, at least 1.
        keep_stop_words: Keep the commonest English words (scikit-learn's list).
        quick: Take 1,000 and 250 of the mails if the file is at hand, else the tumors of
            `breast_cancer`, whose features are no counts and which have no texts.

    Returns:
        Rows in shuffled order.

    Raises:
        InvalidInput: If `min_documents` is below 1.
        DataMissing: If the corpus is neither local nor to be downloaded.

    References:
        Metsis, Androutsopoulos, Paliouras, "Spam filtering with naive Bayes - which naive
        Bayes?", 2006. Use: Koh & Liang 2017, section 5.4.
    """
    if min_documents < 1:
        raise InvalidInput(
            f"Expected min_documents of at least 1. Got {min_documents}. The paper uses 5."
        )
    if quick and not at_hand("enron1/enron1.jsonl.gz"):
        return _tumors()
    rows = [json.loads(line) for line in read("enron1/enron1.jsonl.gz").splitlines()]
    order = np.random.default_rng(seed).permutation(len(rows))
    n_train, n_test = (1_000, 250) if quick else (4_137, 1_035)
    train = [rows[i] for i in order[:n_train]]
    test = [rows[i] for i in order[n_train : n_train + n_test]]
    counter = CountVectorizer(
        token_pattern=r"[^\W\d_]{2,}",
        min_df=min_documents,
        stop_words=None if keep_stop_words else "english",
        dtype=np.float64,
    )
    texts_train, texts_test = (tuple(row["text"] for row in part) for part in (train, test))
    return BagOfWords(
        name="Enron1, 1,000 and 250 mails" if quick else "Enron1",
        x_train=sparse.csr_array(counter.fit_transform(texts_train)),
        y_train=np.array([row["label"] == "spam" for row in train], dtype=np.int64),
        x_test=sparse.csr_array(counter.transform(texts_test)),
        y_test=np.array([row["label"] == "spam" for row in test], dtype=np.int64),
        vocabulary=tuple(counter.get_feature_names_out()),
        texts_train=texts_train,
        texts_test=texts_test,
    )


def sst2(part: Literal["train", "dev", "test"] = "train") -> Sentences:
    """Sentences from film reviews, negative (0) or positive (1).

    Args:
        part: The part: 6,920, 872 or 1,821 sentences.

    Returns:
        Sentences in the order of the file, lowercased and tokenized as published.

    Raises:
        DataMissing: If the file is neither local nor to be downloaded.

    References:
        Socher et al., "Recursive deep models for semantic compositionality", 2013.
    """
    lines = read(f"text/sst2_{part}.tsv.gz").decode().splitlines()
    pairs = [line.rsplit("\t", 1) for line in lines]
    return Sentences(
        name=f"SST-2 {part}",
        texts=tuple(text for text, _ in pairs),
        labels=np.array([label for _, label in pairs], dtype=np.int64),
    )


def agnews() -> Sentences:
    """The 7,600 test articles of AG News: world, sports, business, technology (0 to 3).

    Returns:
        Title and description, with a line break between them.

    Raises:
        DataMissing: If the file is not in the local mirror.

    References:
        Zhang, Zhao, LeCun, "Character-level convolutional networks for text classification",
        2015.
    """
    rows = list(csv.DictReader(io.StringIO(read("text/agnews_test.csv.gz").decode(), newline="")))
    return Sentences(
        name="AG News test",
        texts=tuple(f"{row['Title']}\n{row['Description']}" for row in rows),
        labels=np.array([int(row["Class Index"]) - 1 for row in rows], dtype=np.int64),
    )


def wikitext2(part: Literal["valid", "test"] = "valid") -> str:
    """WikiText-2, one paragraph a line, rare words replaced by `<unk>`.

    Args:
        part: The part: 214,000 or 241,000 words.

    Returns:
        The text.

    Raises:
        DataMissing: If the file is neither local nor to be downloaded.

    References:
        Merity, Xiong, Bradbury, Socher, "Pointer sentinel mixture models", 2016.
    """
    return read(f"text/wikitext2_{part}.txt.gz").decode()


def tinyshakespeare() -> str:
    """40,000 lines of Shakespeare's plays, 1,115,394 characters.

    Returns:
        The text.

    Raises:
        DataMissing: If the file is neither local nor to be downloaded.
    """
    return read("text/tinyshakespeare.txt.gz").decode()


def _tumors() -> BagOfWords:
    """scikit-learn's tumors in the form of a bag of words, for where the mails are absent."""
    data = breast_cancer()
    return BagOfWords(
        name=data.name,
        x_train=sparse.csr_array(data.x_train),
        y_train=data.y_train,
        x_test=sparse.csr_array(data.x_test),
        y_test=data.y_test,
        vocabulary=tuple(str(name) for name in load_breast_cancer().feature_names),
        texts_train=(),
        texts_test=(),
    )
