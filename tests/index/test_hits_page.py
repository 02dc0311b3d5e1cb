"""The page of an index's answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import whence
from tests.index.words import language_model, tokenizer
from whence.errors import InvalidInput
from whence.index.asking import Asked
from whence.index.corpus import corpus_of, examples_at
from whence.index.hits import Hits
from whence.index.page import Found, hits_page
from whence.objective.trained import Examples
from whence.views.made import Made

TEXTS = ["the cat sat", "a mat", "on the mat", "the mat sat on a cat", "a cat sat on the mat"]
MORE = ["the cat", "the <b>mat</b>"]


@pytest.fixture(scope="module")
def objective() -> Any:
    return language_model()


def written(path: Path, texts: list[str]) -> Path:
    rows = [json.dumps({"id": f"{path.stem}-{i}", "text": text}) for i, text in enumerate(texts)]
    path.write_text("\n".join(rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return written(tmp_path / "first.jsonl", TEXTS), written(tmp_path / "more.jsonl", MORE)


@pytest.fixture
def hits(objective: Any, files: tuple[Path, Path], tmp_path: Path) -> Hits:
    index = whence.Index.build(
        objective, tmp_path / "index", data=files[0], tokenizer=tokenizer(), rows="float32"
    )
    index.append(files[1], tokenizer=tokenizer())
    return index.query(["the cat sat on a mat", "a mat"], k=7, tokenizer=tokenizer())


def found_in(hits: Hits, file: Path, first: int) -> Found:
    corpus = corpus_of(file, hits.asked.features.trained, tokenizer=tokenizer())
    rows = 5 if first == 0 else 2
    examples = examples_at(corpus, np.arange(rows))
    return Found(
        asked=hits.asked,
        helpful=hits.helpful,
        harmful=hits.harmful,
        examples={first + at: each for at, each in examples.items()},
        decode=tokenizer().decode,
    )


def test_texts_stand_beside_their_ids(hits: Hits, files: tuple[Path, Path], tmp_path: Path) -> None:
    first, more = (
        hits.report(tmp_path / f"{file.stem}.html", file, tokenizer=tokenizer()).read_text()
        for file in files
    )
    names = [f"first-{i}" for i in range(5)] + [f"more-{i}" for i in range(2)]
    for name in names:
        assert name in first
        assert name in more
    page = hits_page(found_in(hits, files[0], 0), Made(title="t", command="c"))
    for listing in page.listings[1:]:
        for line in listing.lines:
            text = None if line.item is None else "".join(line.item.tokens)
            name, _, place = line.name.partition("-")
            assert text == (TEXTS[int(place)] if name == "first" else None)
    assert ["".join(line.item.tokens) for line in page.listings[0].lines if line.item] == [
        "the cat sat on a mat",
        "a mat",
    ]


def test_parts_of_tokens_add_up_to_scores(hits: Hits, files: tuple[Path, Path]) -> None:
    """Each is n times what it is in the score, which is averaged."""
    found = found_in(hits, files[0], 0)
    for query in range(2):
        direction = hits.asked.direction(query)
        for position, score in zip(
            hits.helpful.positions[query], hits.helpful.values[query], strict=True
        ):
            item = found.item(int(position), "", direction)
            if position < 5:
                assert item is not None
                assert item.attribution is not None
                assert item.attribution.sum() == pytest.approx(7 * score, rel=1e-4, abs=1e-6)
            else:
                assert item is None


def test_a_score_that_is_no_derivative_has_no_parts(
    objective: Any, files: tuple[Path, Path], tmp_path: Path
) -> None:
    method = whence.TracIn(cosine=True)
    index = whence.Index.build(
        objective, tmp_path / "cosine", data=files[0], tokenizer=tokenizer(), method=method
    )
    hits = index.query("a mat", k=2, tokenizer=tokenizer())
    assert hits.asked.direction(0) is None
    text = hits.report(tmp_path / "page.html", files[0], tokenizer=tokenizer()).read_text()
    assert "first-" in text
    assert "Colors in a text" not in text


def test_other_data_are_refused(hits: Hits, files: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for data, options in ((None, {}), (files[0], {"max_length": 2}), (["a mat"], {})):
        with pytest.raises(InvalidInput, match="Expected the data that the index was built with"):
            hits.report(page, data, tokenizer=tokenizer(), **options)
    assert not page.exists()


def test_rows_of_a_table_are_the_models_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(600, 3), torch.arange(600) % 2
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    index = whence.Index.build(objective, tmp_path / "index")
    hits = index.query((x[:1], y[:1]), k=3)
    page = hits.report(tmp_path / "page.html").read_text()
    for position in hits.helpful.positions[0]:
        assert f">{position}</a>" in page
        assert f"{abs(float(x[position, 0])):.5f}"[:4] in page


@pytest.mark.parametrize("number", [False, True])
def test_targets_that_are_numbers_are_called_values(tmp_path: Path, number: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 3)
    y = x.sum(1) if number else (x.sum(1) > 0).long()
    loss = whence.SquaredError() if number else whence.CrossEntropy()
    objective = whence.from_torch(torch.nn.Linear(3, 1 if number else 2), loss, (x, y))
    hits = whence.Index.build(objective, tmp_path / "index").query((x[:1], y[:1]), k=3)
    page = hits.report(tmp_path / "page.html").read_text()
    assert ('<th scope="col">value</th>' in page) is number
    assert ('<th scope="col">label</th>' in page) is not number


def test_examples_at_are_those_of_the_whole_data(objective: Any, tmp_path: Path) -> None:
    """Also beyond the first chunk, and where there is one chunk only."""
    texts = [TEXTS[i % 5] for i in range(700)]
    corpus = corpus_of(written(tmp_path / "many.jsonl", texts), objective, tokenizer=tokenizer())
    words = tokenizer()
    for wanted in ([0], [699], [3, 255, 256, 520, 699], [300, 301]):
        found = examples_at(corpus, np.array(wanted))
        assert list(found) == wanted
        for position, example in found.items():
            assert example.inputs["input_ids"].tolist() == [words(texts[position])["input_ids"]]


def test_sides_by_sign(objective: Any, files: tuple[Path, Path], tmp_path: Path) -> None:
    """Of few examples the largest scores may be negative, and the smallest positive."""
    path = tmp_path / "index"
    index = whence.Index.build(objective, path, data=files[0], tokenizer=tokenizer())
    index.remove(["first-4"])
    hits = index.query(["the cat sat on a mat", "a mat"], k=5, tokenizer=tokenizer())
    page = hits_page(found_in(hits, files[0], 0), Made(title="t", command="c"))
    assert page.said.startswith("Of 4 training examples")
    for query in range(2):
        scores = dict(zip(hits.helpful.ids[query], hits.helpful.values[query], strict=True))
        assert min(scores.values()) < 0 < max(scores.values())
        lower, higher = page.listings[1 + 2 * query : 3 + 2 * query]
        assert [line.name for line in lower.lines] == [i for i in scores if scores[i] > 0]
        assert [line.name for line in higher.lines] == [i for i in scores if scores[i] < 0][::-1]
        assert bool(lower.words and higher.words) is (query == 0)


@pytest.mark.parametrize("rows", ["float16", "int8", "rank-1"])
@pytest.mark.parametrize("name", ["", "texts"])
def test_data_in_another_order_are_refused(
    objective: Any, tmp_path: Path, rows: str, name: str
) -> None:
    """Nothing but their scores tells them from those that the index was built with."""
    data, words = [{"text": text} for text in TEXTS], tokenizer()
    path, page = tmp_path / "index", tmp_path / "page.html"
    index = whence.Index.build(objective, path, data=data, tokenizer=words, rows=rows, name=name)
    hits = index.query("a mat", k=3, tokenizer=words)
    hits.report(page, data, tokenizer=words, name=name)
    page.unlink()
    for others in (data[::-1], [*data[1:], data[0]]):
        with pytest.raises(InvalidInput, match="in their order. Got another example where it has"):
            hits.report(page, others, tokenizer=words, name=name)
    with pytest.raises(InvalidInput, match="Got others"):
        hits.report(page, data[:2], tokenizer=words, name=name)
    assert not page.exists()


def test_the_score_that_is_off_is_named(
    objective: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two queries the second one's."""
    data, words = [{"text": text} for text in TEXTS], tokenizer()
    index = whence.Index.build(objective, tmp_path / "index", data=data, tokenizer=words)
    hits = index.query(["a mat", "the cat"], k=5, tokenizer=words)
    scored = Asked.scored

    def one_off(asked: Asked, example: Examples) -> tuple[torch.Tensor, torch.Tensor]:
        scores, most = scored(asked, example)
        return scores + torch.tensor([0.0, 1000.0]), most

    monkeypatch.setattr(Asked, "scored", one_off)
    with pytest.raises(InvalidInput, match=r"its score is (1e\+03|9\.\de\+02), and not"):
        hits.report(tmp_path / "page.html", data, tokenizer=words)


@pytest.mark.parametrize(
    "method",
    [
        whence.Projected(moment="layers", seed=1),
        whence.Projected(solver=whence.EKFAC()),
        whence.Influence(solver=whence.KFAC()),
        whence.TracIn(),
        whence.TracIn(cosine=True),
        whence.HiddenCosine(),
    ],
    ids=["layers", "ekfac", "whole", "tracin", "cosine", "hidden"],
)
def test_an_example_scored_anew_has_its_stored_score(
    objective: Any, tmp_path: Path, method: Any
) -> None:
    data, words = [{"text": text} for text in TEXTS], tokenizer()
    index = whence.Index.build(
        objective, tmp_path, data=data, tokenizer=words, method=method, rows="float32"
    )
    hits = index.query(["a mat", "the cat"], k=5, tokenizer=words)
    corpus = corpus_of(data, objective, tokenizer=words)
    for position, example in examples_at(corpus, np.arange(5)).items():
        scores, most = hits.asked.scored(example)
        query, place = np.nonzero(hits.helpful.positions == position)
        stored = torch.from_numpy(hits.helpful.values[query, place])
        torch.testing.assert_close(scores, stored, rtol=1e-4, atol=1e-4 * float(most.max()))
        assert bool((scores.abs() <= most * (1 + 1e-5)).all())
