"""Pages about texts: each token has its part of the effect, and no text is ever markup."""

from __future__ import annotations

import math
import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import whence
from whence.network.objective import ModuleObjective
from whence.views.answer import share_text
from whence.views.sequences import counted, parts_of, pieces_of

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
_WORDS = ["<script>hacked=1</script>", "a & b", "<img src=x onerror=hacked=1>", "plain", '"it\'s"']


def decode(numbers: list[int]) -> str:
    return "".join(_WORDS[number % len(_WORDS)] + " " for number in numbers)


@pytest.fixture(scope="module")
def texts() -> list[dict[str, list[int]]]:
    rng = np.random.default_rng(0)
    return [{"input_ids": rng.integers(1, 20, length).tolist()} for length in range(4, 10)]


@pytest.fixture(scope="module")
def objective(texts: list[dict[str, list[int]]]) -> ModuleObjective:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20,
        n_positions=12,
        n_embd=8,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    return whence.from_transformers(model, texts, params=lambda name, p: "mlp" in name)


def test_parts_add_up_to_the_effect(
    objective: ModuleObjective, texts: list[dict[str, list[int]]]
) -> None:
    explanation = whence.explain(objective, texts[2:3], k=3)
    effects = (*explanation.helpful, *explanation.harmful)
    where = np.array([effect.position for effect in effects])
    parts = parts_of(objective, explanation.query, where, measure="loss", method=explanation.method)
    for effect, part in zip(effects, parts, strict=True):
        assert part.sum() == pytest.approx(effect.effect, rel=1e-3, abs=1e-7)
        assert len(part) == len(texts[effect.position]["input_ids"])
        assert part[0] == 0


def test_padding_is_no_token(objective: ModuleObjective, texts: list[dict[str, list[int]]]) -> None:
    assert pieces_of(objective.train, 0, None) == tuple(f"{i} " for i in texts[0]["input_ids"])
    assert counted(objective, objective.train.targets[0]) == len(texts[0]["input_ids"]) - 1


def test_page_shows_hostile_tokens_and_colors_them(
    objective: ModuleObjective, texts: list[dict[str, list[int]]], tmp_path: Path
) -> None:
    explanation = whence.explain(objective, texts[2:3], k=3)
    page = explanation.report(tmp_path / "why.html", decode=decode).read_text(encoding="utf-8")
    assert "<script>hacked" not in page
    assert "<img src=x" not in page
    assert re.search(r'<mark class="(raises|lowers) s5"', page)
    assert "which of its tokens the effect comes from" in page
    plain = unescape(re.sub(r"<[^>]*>", "", page))
    assert decode(texts[2]["input_ids"]).strip() in plain
    query = explanation.query
    loss = float(objective.loss(objective.outputs(query), query.targets)[0]) / 5
    assert f"each of the 5 tokens with probability {share_text(math.exp(-loss))}" in page


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_page_of_projected_gradients_colors_tokens_too(
    objective: ModuleObjective, texts: list[dict[str, list[int]]], tmp_path: Path, place: str
) -> None:
    method: whence.Method = whence.Projected(moment="layers")
    if place == "disk":
        method = whence.Stored(whence.Index.build(objective, tmp_path / "index", method=method))
    explanation = whence.explain(objective, texts[2:3], k=3, method=method)
    page = explanation.report(tmp_path / "why.html", decode=decode).read_text(encoding="utf-8")
    assert re.search(r'<mark class="(raises|lowers) s5"', page)


def test_the_answer_is_colored_by_what_each_text_is_behind(
    objective: ModuleObjective, texts: list[dict[str, list[int]]], tmp_path: Path
) -> None:
    asked = [{**texts[2], "labels": [-100, -100, *texts[2]["input_ids"][2:]]}]
    explanation = whence.explain(objective, asked, k=3)
    effects = (*explanation.helpful, *explanation.harmful)
    where = np.array([effect.position for effect in effects])
    found = parts_of(
        objective, explanation.query, where, measure="loss", method=explanation.method, side="query"
    )
    for effect, part in zip(effects, found, strict=True):
        assert part.sum() == pytest.approx(effect.effect, rel=1e-3, abs=1e-7)
        assert list(part[:2]) == [0, 0]  # the prompt is no answer
    page = explanation.report(tmp_path / "why.html", decode=decode).read_text(encoding="utf-8")
    behind = re.findall(r'<details class="behind">.*?</details>', page, re.S)
    assert len(behind) == len(effects)
    words = [decode([number]).strip() for number in texts[2]["input_ids"]]
    for each in behind:
        assert re.search(r'<mark class="(raises|lowers) s5"', each)
        plain = unescape(re.sub(r"<[^>]*>", "", each))
        assert plain.split("behind", 1)[1].split() == " ".join(words[2:]).split()
    top = page[page.index('class="query box"') : page.index('aria-labelledby="behind"')]
    assert re.search(r'<mark class="(raises|lowers) s5"', top)


def test_two_answers_have_their_parts_each(
    objective: ModuleObjective, texts: list[dict[str, list[int]]], tmp_path: Path
) -> None:
    explanation = whence.explain(objective, texts[2:3], against=texts[3:4], k=2)
    shown = (*explanation.raising, *explanation.lowering)
    where = np.array([effect.position for effect in shown])
    both = [
        sign * np.stack(parts_of(
            objective, answer, where, measure="loss", method=method, side="query"
        )).sum(1)
        for method, answer, sign in explanation.method.answers(explanation.query)
    ]  # fmt: skip
    np.testing.assert_allclose(sum(both), [e.effect for e in shown], rtol=1e-3, atol=1e-7)
    page = explanation.report(tmp_path / "why.html", decode=decode).read_text(encoding="utf-8")
    assert page.count("What of the answer it is behind") == len(shown)
    assert page.count("What of the other answer it is behind") == len(shown)


@pytest.mark.parametrize("longer", ["text", "answer"])
def test_an_answer_of_its_own_stands_after_its_text(longer: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
        decoder_start_token_id=0, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model = transformers.T5ForConditionalGeneration(config).eval()
    sizes = (2, 6) if longer == "answer" else (6, 2)
    rng = np.random.default_rng(0)
    data = [
        dict(
            zip(
                ("input_ids", "labels"),
                (rng.integers(1, 20, s).tolist() for s in pair),
                strict=True,
            )
        )
        for pair in (sizes, (3, 3), sizes)
    ]
    only = lambda name, p: "decoder.block.0.layer.2" in name  # noqa: E731
    objective = whence.from_transformers(model, data, params=only)
    assert pieces_of(objective.train, 0, None) == (
        *(f"{i} " for i in data[0]["input_ids"]), " → ", *(f"{i} " for i in data[0]["labels"])
    )  # fmt: skip
    explanation = whence.explain(objective, data[:1], k=2, method=whence.Influence(damping=0.1))
    shown = (*explanation.raising, *explanation.lowering)
    where = np.array([effect.position for effect in shown])
    method = explanation.method
    parts = parts_of(objective, explanation.query, where, measure="loss", method=method)
    for effect, part in zip(shown, parts, strict=True):
        assert part.sum() == pytest.approx(effect.effect, rel=1e-3, abs=1e-7)
        assert not part[: len(data[effect.position]["input_ids"]) + 1].any()
    page = explanation.report(tmp_path / "why.html").read_text(encoding="utf-8")
    assert re.search(r'<mark class="(raises|lowers) s5"', page)


@pytest.mark.parametrize("kind", ["metaspace", "wordpiece", "bytes"])
def test_tokens_keep_their_spaces(kind: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    mark = {"metaspace": "▁", "wordpiece": "", "bytes": "Ġ"}[kind]
    inside = "##" if kind == "wordpiece" else ""
    words = [f"{mark}where", f"{mark}is", f"{mark}pla", f"{inside}ying", f"{mark}now"]
    model = tokenizers.models.WordLevel(
        {word: i for i, word in enumerate(words)}, unk_token=words[0]
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.decoder = {
        "metaspace": tokenizers.decoders.Metaspace,
        "wordpiece": tokenizers.decoders.WordPiece,
        "bytes": tokenizers.decoders.ByteLevel,
    }[kind]()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    ids = list(range(5))
    one = SimpleNamespace(inputs=torch.tensor([ids]))
    found = pieces_of(one, 0, fast.decode)
    assert "".join(found) == fast.decode(ids)
    assert "".join(found).split() == ["where", "is", "playing", "now"]
    assert len(found) == 5


def test_batch_of_texts(
    objective: ModuleObjective, texts: list[dict[str, list[int]]], tmp_path: Path
) -> None:
    page = whence.report(objective, texts[:2], tmp_path / "many.html", k=2, decode=decode)
    text = page.read_text(encoding="utf-8")
    assert "<script>hacked" not in text
    assert "hacked=1" in text


def test_a_classifier_of_texts_shows_them_without_colors(
    texts: list[dict[str, list[int]]], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=12,
    )
    model = transformers.BertForSequenceClassification(config).eval()
    data = [{**text, "labels": i % 2} for i, text in enumerate(texts)]
    objective = whence.from_transformers(model, data, params=lambda name, p: "classifier" in name)
    explanation = whence.explain(objective, data[:1], k=2)
    assert "The model says class" in str(explanation)
    page = explanation.report(tmp_path / "why.html", decode=decode).read_text(encoding="utf-8")
    assert "<mark" not in page
    assert "plain" in page
