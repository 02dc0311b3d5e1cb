"""Trainings by TRL's SFTTrainer, whose model, texts and checkpoints are explained as they are."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import whence
from whence.index.texts import Tokenized

trl = pytest.importorskip("trl", reason="trl is not installed")
peft = pytest.importorskip("peft")
datasets = pytest.importorskip("datasets")
tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.filterwarnings("ignore")

_WORDS = ["<pad>", "<eos>", "▁", *(f"▁w{i}" for i in range(20))]


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(_WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<eos>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()  # a space before each text
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>")


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(_WORDS),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def trained(folder: Path, rows: list[dict[str, str]], **options: Any) -> Any:
    """A small Llama after two epochs."""
    adapter = options.pop("peft_config", None)
    arguments = trl.SFTConfig(
        output_dir=str(folder / "run"),
        per_device_train_batch_size=3,
        num_train_epochs=2,
        learning_rate=1e-2,
        save_steps=2,
        report_to=[],
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        **options,
    )
    trainer = trl.SFTTrainer(
        model=llama(),
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer(),
        peft_config=adapter,
        callbacks=[whence.trainer_callback(folder / "whence", every=2)],
    )
    trainer.train()
    trainer.model.eval()
    return trainer


def texts(*lengths: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(f"w{i}" for i in rng.integers(0, 20, n)) for n in lengths]


@pytest.mark.parametrize("kind", ["completion", "packed", "lora"])
def test_a_model_of_trl_is_explained_as_it_was_trained(kind: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {}
    rows = [{"text": text} for text in texts(5, 3, 7, 4, 6, 5)]
    if kind == "completion":
        rows = [{"prompt": f"{row['text']} ", "completion": row["text"].split()[0]} for row in rows]
    elif kind == "packed":
        options = {"packing": True, "max_length": 12}
    else:
        options = {"peft_config": peft.LoraConfig(r=2, target_modules=["q_proj"])}
    trainer = trained(tmp_path, rows, **options)
    data = trainer.train_dataset
    for row, own in zip(rows, data, strict=True) if kind == "completion" else ():
        found = Tokenized(tokenizer())(row)
        assert found == {name: own[name] for name in ("input_ids", "labels")}
    objective = whence.from_transformers(trainer.model, data)
    trainable = [p for p in trainer.model.parameters() if p.requires_grad]
    assert len(objective.params) == sum(p.numel() for p in trainable)
    objective = pickle.loads(pickle.dumps(objective))
    losses = objective.loss(objective.outputs(objective.train), objective.train.targets)
    for at in range(len(data)):
        # The library's own batches and mean over tokens, and the gradient of the user's own model.
        batch = trainer.data_collator([data[at]])
        counted = int((objective.train.targets[at] != -100).sum())
        own = trainer.model(**batch).loss
        assert float(losses[at]) == pytest.approx(float(own) * counted, rel=1e-5)
    slope = torch.cat([part.flatten() for part in torch.autograd.grad(own * counted, trainable)])
    last = objective.train.subset(np.array([len(data) - 1]))
    found = objective.gradient_columns(last, objective.loss)[:, 0]
    torch.testing.assert_close(found, slope, rtol=1e-3, atol=1e-5 * float(slope.abs().max()))
    for place in ("whence", "run"):
        run = whence.Run.from_trainer(tmp_path / place, objective)
        assert run.path().scales is not None
        assert whence.TracIn(optimizer=True).fit(run).scores(last).values.shape == (1, len(data))


_TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool['name'] + ' ' }}{% endfor %}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}{{ 'w1 ' }}"
    "{% generation %}{{ m['content'] + ' <eos>' }}{% endgeneration %}{{ ' ' }}"
    "{% else %}{{ 'w0 ' + m['content'] + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'w1 ' }}{% endif %}"
)
_CHAT = [
    {"role": role, "content": content}
    for role, content in zip(["user", "assistant"] * 2, ["w2 w3", "w4", "w5", "w6 w7"], strict=True)
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "texts": [{"text": "w2 w3 w4"}, {"text": "w5<eos>"}, {"text": "w6 " * 30}],
    "completions": [
        {"prompt": "w2 w3", "completion": " w4 w5"},
        {"prompt": "w2 ", "completion": "w3"},
    ],
    "chats": [{"messages": _CHAT}, {"messages": _CHAT[:2]}],
    "tools": [{"messages": _CHAT, "tools": [{"name": "w9"}]}] * 2,
    "tools as JSON": [{"messages": _CHAT, "tools": '[{"name": "w9"}]'}] * 2,
    "answers": [{"prompt": _CHAT[:3], "completion": _CHAT[3:]}] * 2,
}


@pytest.mark.parametrize("special", ["none", "ends", "begins"])
@pytest.mark.parametrize("kind", ROWS)
def test_tokens_and_labels_are_those_that_trl_trained_on(
    kind: str, special: str, tmp_path: Path
) -> None:
    """Also by tokenizers that put a token of their own before each text, or behind it."""
    own = tokenizer()
    own.chat_template = _TEMPLATE
    if special != "none":
        shape = {"ends": "$A <eos>", "begins": "<pad> $A"}[special]
        own.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=shape, special_tokens=[("<eos>", 1), ("<pad>", 0)]
        )
    ways = [({}, True), ({}, False)] if "prompt" in ROWS[kind][0] else [({}, True)]
    if kind == "chats":
        ways.append(({"assistant_only_loss": True}, False))
    for options, as_trl in ways:
        arguments = trl.SFTConfig(
            output_dir=str(tmp_path),
            report_to=[],
            use_cpu=True,
            bf16=False,
            max_length=20,
            **options,
        )
        data = datasets.Dataset.from_list(ROWS[kind])
        trainer = trl.SFTTrainer(
            model=llama(),
            args=arguments,
            train_dataset=data,
            processing_class=own,
        )
        read = Tokenized(own, 20, as_trl)
        for row, expected in zip(data, trainer.train_dataset, strict=True):
            found = read(row)
            assert found == {name: expected[name] for name in ("input_ids", "labels")}
