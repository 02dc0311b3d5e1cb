"""Per-example gradients of what people fine-tune, against looped differentiation in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import whence
from whence.network.objective import ModuleObjective

_SIZES: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT2: dict[str, Any] = {
    "vocab_size": 20,
    "n_positions": 16,
    "n_embd": 8,
    "n_layer": 2,
    "n_head": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 1}
_T5: dict[str, Any] = {
    "vocab_size": 20,
    "d_model": 8,
    "d_kv": 4,
    "d_ff": 12,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
_BART: dict[str, Any] = {
    "vocab_size": 20,
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 12,
    "decoder_ffn_dim": 12,
    "max_position_embeddings": 16,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
_IMAGES = {"image_size": 8, "patch_size": 4, "num_labels": 3}


def model_of(name: str, config: dict[str, Any]) -> Any:
    """A model with random weights, none of them zero or one by construction."""
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model.double().eval()


def texts(labels: Callable[[int, int], Any] | None = None) -> list[dict[str, Any]]:
    """Texts of three lengths, with labels of their number and length."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for i, length in enumerate((4, 6, 3)):
        tokens = torch.randint(3, 20, (length,), generator=generator).tolist()
        rows.append({"input_ids": tokens, **({"labels": labels(i, length)} if labels else {})})
    return rows


def tokens_of(i: int, length: int) -> list[int]:
    """A label per token, some without a loss."""
    return [-100 if (i + t) % 3 == 0 else (i + t) % 3 for t in range(length)]


def images() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(3, 3, 8, 8, generator=generator, dtype=torch.float64)
    return [{"pixel_values": each, "labels": i} for i, each in enumerate(pixels)]


def classes(i: int, length: int) -> int:
    return i


def one_number(i: int, length: int) -> float:
    return 0.3 * i - 0.1


def several(i: int, length: int) -> list[float]:
    return [1.0, 0.0, float(i % 2)]


# Name, configuration, rows, and the share of parameters whose layers have a rule.
_MODELS: dict[str, tuple[str, dict[str, Any], Any, float]] = {
    "gpt2": ("GPT2LMHeadModel", _GPT2, texts, 1.0),
    "llama": ("LlamaForCausalLM", _GROUPED, texts, 1.0),
    "llama with bias": ("LlamaForCausalLM", {**_GROUPED, "attention_bias": True}, texts, 1.0),
    "qwen2": ("Qwen2ForCausalLM", _GROUPED, texts, 1.0),
    "qwen3": ("Qwen3ForCausalLM", {**_GROUPED, "head_dim": 4}, texts, 1.0),
    "gemma2": ("Gemma2ForCausalLM", {**_GROUPED, "head_dim": 4}, texts, 1.0),
    "gpt-neox": ("GPTNeoXForCausalLM", _SIZES, texts, 1.0),
    "phi": ("PhiForCausalLM", _SIZES, texts, 1.0),
    "mistral": ("MistralForCausalLM", {**_GROUPED, "head_dim": 4}, texts, 1.0),
    "gpt2 classifier": (
        "GPT2ForSequenceClassification",
        {**_GPT2, "num_labels": 3},
        lambda: texts(classes),
        1.0,
    ),
    "bert": (
        "BertForSequenceClassification",
        {**_SIZES, "num_labels": 3},
        lambda: texts(classes),
        1.0,
    ),
    "bert regression": (
        "BertForSequenceClassification",
        {**_SIZES, "num_labels": 1},
        lambda: texts(one_number),
        1.0,
    ),
    "bert, several labels": (
        "BertForSequenceClassification",
        {**_SIZES, "num_labels": 3},
        lambda: texts(several),
        1.0,
    ),
    "bert tokens": (
        "BertForTokenClassification",
        {**_SIZES, "num_labels": 3},
        lambda: texts(tokens_of),
        1.0,
    ),
    "bert masked": ("BertForMaskedLM", _SIZES, lambda: texts(tokens_of), 1.0),
    "roberta": (
        "RobertaForSequenceClassification",
        {**_SIZES, "max_position_embeddings": 18, "pad_token_id": 1, "bos_token_id": 0,
         "num_labels": 3},
        lambda: texts(classes),
        1.0,
    ),
    "roberta masked": (
        "RobertaForMaskedLM",
        {**_SIZES, "max_position_embeddings": 18, "pad_token_id": 1, "bos_token_id": 0},
        lambda: texts(tokens_of),
        1.0,
    ),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"vocab_size": 20, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 12,
         "max_position_embeddings": 16, "num_labels": 3},
        lambda: texts(classes),
        1.0,
    ),
    "opt": ("OPTForCausalLM", {**_SIZES, "ffn_dim": 12, "word_embed_proj_dim": 8}, texts, 1.0),
    "falcon": ("FalconForCausalLM", _SIZES, texts, 1.0),
    "xlnet classifier": (  # its answer stands at the last token: padding goes before the text
        "XLNetForSequenceClassification",
        {"vocab_size": 20, "d_model": 8, "n_layer": 1, "n_head": 2, "d_inner": 12, "num_labels": 3},
        lambda: texts(classes),
        0.1,
    ),
    "mbart": (  # its decoder begins with the last token of the answer
        "MBartForConditionalGeneration",
        {**_BART, "decoder_start_token_id": None},
        lambda: texts(tokens_of),
        1.0,
    ),
    "t5": ("T5ForConditionalGeneration", _T5, lambda: texts(tokens_of), 1.0),
    "longt5": (  # its relative positions lie within blocks
        "LongT5ForConditionalGeneration",
        {**_T5, "local_radius": 3},
        lambda: texts(tokens_of),
        1.0,
    ),
    "bart": ("BartForConditionalGeneration", _BART, lambda: texts(tokens_of), 1.0),
    "vit": ("ViTForImageClassification", {**_SIZES, **_IMAGES}, images, 1.0),
    "beit": ("BeitForImageClassification", {**_SIZES, **_IMAGES}, images, 1.0),
    "dinov2": ("Dinov2ForImageClassification", {**_SIZES, **_IMAGES}, images, 0.99),
    "swin": (  # windows of all images in one batch; the biases of relative positions have no rule
        "SwinForImageClassification",
        {"image_size": 8, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2],
         "window_size": 2, "num_labels": 3},
        images,
        0.99,
    ),
    "convnext": (
        "ConvNextForImageClassification",
        {"num_stages": 2, "hidden_sizes": [4, 8], "depths": [1, 1], "patch_size": 2,
         "num_labels": 3},
        images,
        1.0,
    ),
    "resnet": (
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic",
         "num_labels": 3},
        images,
        1.0,
    ),
    "mobilenet": (  # convolutions of single channels
        "MobileNetV2ForImageClassification",
        {"image_size": 8, "depth_multiplier": 0.1, "min_depth": 4, "depth_divisible_by": 4,
         "num_labels": 3},
        images,
        1.0,
    ),
    "electra": (
        "ElectraForSequenceClassification",
        {**_SIZES, "embedding_size": 8, "num_labels": 3},
        lambda: texts(classes),
        1.0,
    ),
    "deberta-v2": (  # its projections see the table of positions as well, once for the batch
        "DebertaV2ForSequenceClassification",
        {**_SIZES, "relative_attention": True, "position_buckets": 4, "share_att_key": True,
         "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm", "num_labels": 3},
        lambda: texts(classes),
        0.7,
    ),
    "marian": (
        "MarianMTModel",
        {**_BART, "decoder_start_token_id": 1},
        lambda: texts(tokens_of),
        1.0,
    ),
}  # fmt: skip


def looped(objective: ModuleObjective) -> Tensor:
    """The gradient of each example by itself, differentiated whole, [n, p]."""
    rows = []
    for b in range(len(objective.train)):
        one = objective.train.subset(torch.tensor([b]).numpy())
        leaves = objective.module.leaves(objective.params)
        loss = objective.loss(objective.module(leaves, one.inputs, twice=True), one.targets)
        pieces = torch.autograd.grad(loss.sum(), [*leaves.values()], materialize_grads=True)
        rows.append(torch.cat([piece.flatten() for piece in pieces]))
    return torch.stack(rows)


def hold(objective: ModuleObjective, factored: float, rtol: float = 1e-10) -> None:
    """Compare gradients with looped ones; and the share of parameters that factor."""
    eye = torch.eye(len(objective.train)).to(objective.params)
    found = objective.gradient_sum(objective.train, objective.loss, eye).T
    truth = looped(objective)
    scale = float(truth.abs().max())
    assert float((found - truth).abs().max()) <= rtol * scale
    # One column takes one backward pass, tied weights apart and looked-up rows sparse.
    one = objective.gradient_sum(objective.train, objective.loss, torch.ones_like(eye[:, :1]))
    assert float((one[:, 0] - truth.sum(0)).abs().max()) <= 10 * rtol * scale
    covered = sum(objective.shapes[name].numel() for name in objective.factored)
    assert covered >= factored * len(objective.params)


@pytest.mark.parametrize("name", _MODELS)
def test_gradients_equal_looped_ones(name: str) -> None:
    kind, config, rows, factored = _MODELS[name]
    model, data = model_of(kind, config), rows()
    objective = whence.from_transformers(model, data)
    # Gemma multiplies by the weights of its norms in float32, whatever the model's dtype.
    hold(objective, factored, rtol=1e-6 if name == "gemma2" else 1e-10)
    reached = {n for n in objective.shapes if n not in objective.factored}
    assert objective.mapped or not reached or name == "dinov2"  # its mask token is in no answer
    losses = objective.loss(objective.outputs(objective.train), objective.train.targets)
    for loss, row in zip(losses.tolist(), data, strict=True):
        batch = {key: torch.as_tensor(value)[None] for key, value in row.items()}
        labels = batch.setdefault("labels", batch.get("input_ids"))
        if labels.is_floating_point():
            labels = batch["labels"] = labels.double()
        with torch.no_grad():
            own = float(model(**batch).loss)
        counted = labels[:, 1:] if "labels" not in row else labels
        if labels.is_floating_point():
            scale = 0.5 if labels.numel() == 1 else labels.numel()
        else:
            scale = int((counted != -100).sum())
        # The library takes its own loss in float32, whatever the model's dtype.
        assert loss == pytest.approx(own * scale, rel=1e-5)


_MOE = {**_GROUPED, "num_local_experts": 3, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 8, "shared_expert_intermediate_size": 12,
        "head_dim": 4}  # fmt: skip
_DEEPSEEK = {**_SIZES, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
             "num_local_experts": 4, "n_group": 2, "topk_group": 1,
             "first_k_dense_replace": 1, "q_lora_rank": 4, "kv_lora_rank": 4,
             "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4}  # fmt: skip
_OSS = {**_MOE, "layer_types": ["full_attention"] * 2}
_MAMBA = {"vocab_size": 20, "hidden_size": 8, "state_size": 3, "num_hidden_layers": 1,
          "conv_kernel": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "config", "factored"),
    [
        ("MixtralForCausalLM", _MOE, 1.0),
        ("Qwen2MoeForCausalLM", _MOE, 1.0),  # experts that all tokens share, beside the fused ones
        ("DeepseekV3ForCausalLM", _DEEPSEEK, 1.0),
        ("GptOssForCausalLM", _OSS, 0.99),  # transposed, with biases; sinks have no rule
        ("MambaForCausalLM", _MAMBA, 0.2),
    ],
)
def test_gradients_of_mixtures_of_experts_and_of_states(
    kind: str, config: dict[str, Any], factored: float
) -> None:
    model = model_of(kind, config)
    objective = whence.from_transformers(model.float(), texts())
    hold(objective, factored, rtol=1e-5)
    if kind == "MixtralForCausalLM":  # its exact diagonal, in EKFAC, is that of whole gradients
        for name in (n for n in objective.shapes if "experts" in n):
            rows = looped(objective)[:, objective.slices[name]]
            pieces = next(objective.pieces(objective.train, objective.loss))
            (own,) = (piece for at, piece in pieces if at == objective.slices[name])
            squares = own.squares(torch.ones(len(rows)))
            torch.testing.assert_close(squares, rows.square().sum(0), rtol=1e-3, atol=1e-5)
    if kind.startswith(("Mixtral", "GptOss")):
        model.config._experts_implementation = "eager"  # the grouped kernel knows no float64
        hold(whence.from_transformers(model.double(), texts()), factored)


def adapters() -> dict[str, tuple[Any, float]]:
    """Adapters of peft, and the share of their parameters whose layers have a rule."""
    peft = pytest.importorskip("peft")
    low = {"r": 2, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
    ia3 = {"target_modules": ["q_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
    return {
        "lora": (peft.LoraConfig(task_type="CAUSAL_LM", **low), 1.0),
        "dora": (peft.LoraConfig(task_type="CAUSAL_LM", use_dora=True, **low), 1.0),
        "ia3": (peft.IA3Config(task_type="CAUSAL_LM", **ia3), 1.0),
        "prompt": (peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), 1.0),
        "prefix": (peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), 1.0),
        # What is looked up is computed of parameters, not one of them.
        "lora of a table": (
            peft.LoraConfig(
                task_type="CAUSAL_LM", **low | {"target_modules": ["q_proj", "embed_tokens"]}
            ),
            0.4,
        ),
        "tokens": (
            peft.TrainableTokensConfig(
                task_type="CAUSAL_LM", token_indices=[3, 4], target_modules=["embed_tokens"]
            ),
            0.0,
        ),
        "p-tuning": (
            peft.PromptEncoderConfig(
                task_type="CAUSAL_LM", num_virtual_tokens=3, encoder_hidden_size=8
            ),
            0.0,
        ),
        "vera": (peft.VeraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]), 1.0),
        **{name: (config, 0.0) for name, config in turned(peft).items()},
    }


def turned(peft: Any) -> dict[str, Any]:
    """Adapters that turn or multiply the weights of a layer, or add what is no product of two."""
    some: dict[str, Any] = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj"]}
    return {
        "oft": peft.OFTConfig(r=0, oft_block_size=4, **some),
        "boft": peft.BOFTConfig(boft_block_size=4, **some),
        "hra": peft.HRAConfig(r=2, **some),
        "loha": peft.LoHaConfig(r=2, init_weights=False, **some),
        "lokr": peft.LoKrConfig(r=2, init_weights=False, **some),
        "fourier": peft.FourierFTConfig(n_frequency=10, **some),
    }


_PROMPTS = ("prompt", "p-tuning")
_ADAPTERS = ["lora", "dora", "ia3", *_PROMPTS, "prefix", "lora of a table", "tokens", "vera",
             "oft", "boft", "hra", "loha", "lokr", "fourier"]  # fmt: skip


def moved(model: Any) -> Any:
    """The model in float64, its trained parameters away from where training begins."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.double().eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", _ADAPTERS)
def test_adapters_over_a_frozen_model(name: str) -> None:
    config, factored = adapters()[name]
    import peft

    model = moved(peft.get_peft_model(model_of("LlamaForCausalLM", _GROUPED), config))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    data = texts()
    objective = whence.from_transformers(model, data)
    assert len(objective.params) == trained < 1000
    assert bool(factored) != ("(100 %) are in modules without a rule" in str(objective))
    # The spectrum of a Fourier transform is in float32, whatever the model's dtype.
    hold(objective, factored, rtol=1e-6 if name == "fourier" else 1e-10)
    losses = objective.loss(objective.outputs(objective.train), objective.train.targets)
    for loss, row in zip(losses.tolist(), data, strict=True):
        tokens = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            own = float(model(input_ids=tokens, labels=tokens).loss)
        # The first token is predicted from a tuned prompt as well.
        counted = tokens.numel() - (0 if name in _PROMPTS else 1)
        assert loss == pytest.approx(own * counted, rel=1e-5)


def adaptive(weight: float) -> Any:
    """A model with AdaLoRA, whose own loss has a penalty of some weight."""
    peft = pytest.importorskip("peft")
    config = peft.AdaLoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj"], init_r=2, target_r=2, total_step=10,
        orth_reg_weight=weight,
    )  # fmt: skip
    return peft.get_peft_model(model_of("LlamaForCausalLM", _GROUPED), config)


def mixture(weight: float) -> Any:
    """A mixture of experts, whose own loss has one that balances them."""
    added = {"output_router_logits": True, "router_aux_loss_coef": weight}
    return model_of("MixtralForCausalLM", _MOE | added)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [adaptive, mixture])
@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_what_the_models_own_loss_has_besides_is_said(make: Any, weight: float) -> None:
    model, data = make(weight).float().eval(), texts()
    objective = whence.from_transformers(model, data)
    losses = objective.loss(objective.outputs(objective.train), objective.train.targets)
    tokens = torch.tensor([data[0]["input_ids"]])
    with torch.no_grad():
        own = float(model(input_ids=tokens, labels=tokens).loss) * (tokens.numel() - 1)
    assert (own == pytest.approx(float(losses[0]), rel=1e-4)) is (weight == 0)
    said = [note for note in objective.notes if "= 0.25), which is left out" in note]
    assert len(said) == (weight > 0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", ["LlamaForSequenceClassification", "GPT2ForSequenceClassification"]
)
@pytest.mark.parametrize("name", _PROMPTS)
def test_a_classifier_behind_a_tuned_prompt_answers_as_for_each_text_alone(
    kind: str, name: str
) -> None:
    """It sees no token ids, and by itself takes the last place of the batch: padding."""
    config, _ = adapters()[name]
    import peft

    config.task_type = "SEQ_CLS"
    sizes = {**_GROUPED, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16}
    base = model_of(kind, {**sizes, "num_labels": 3, "pad_token_id": 0})
    model, data = moved(peft.get_peft_model(base, config)), texts(classes)
    assert len({len(row["input_ids"]) for row in data}) > 1
    objective = whence.from_transformers(model, data)
    eye = torch.eye(len(data)).to(objective.params)
    found = objective.gradient_sum(objective.train, objective.loss, eye).T
    trained = [p for p in model.parameters() if p.requires_grad]
    for row, own in zip(data, found, strict=True):
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits
        loss = nn.functional.cross_entropy(logits, torch.tensor([row["labels"]]))
        pieces = torch.autograd.grad(loss, trained)
        truth = torch.cat([piece.flatten() for piece in pieces])
        torch.testing.assert_close(own, truth, rtol=1e-10, atol=1e-10 * float(truth.abs().max()))


@pytest.mark.filterwarnings("ignore")
def test_adapters_over_a_base_in_bfloat16_have_rules() -> None:
    import peft

    config, _ = adapters()["lora"]
    base = model_of("LlamaForCausalLM", _GROUPED).to(torch.bfloat16)
    model = peft.get_peft_model(base, config).eval()
    objective = whence.from_transformers(model, texts())
    assert objective.params.dtype == torch.float32
    assert objective.factored == frozenset(objective.shapes)
    found = objective.gradient_columns(objective.train, objective.loss).T
    # Alone, an example is rounded otherwise than in a batch: to 8 bits, layer by layer.
    truth = looped(objective)
    assert float((found - truth).norm()) <= 0.05 * float(truth.norm())


class Quantized(nn.Module):
    """A linear layer whose weight is held as int8 with a scale per row, and not as a parameter."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach()
        scale = weight.abs().amax(1, keepdim=True) / 127
        self.register_buffer("codes", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x @ (self.codes.to(x.dtype) * self.scale.to(x.dtype)).T
        return found


class Adapted(nn.Module):
    """A quantized layer with an adapter of rank 2 beside it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.base = Quantized(layer)
        self.down = nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.base(x) + self.up(self.down(x))
        return found


def quantized(dtype: torch.dtype) -> Any:
    """A Llama with an int8 base, its output layer included, and trained adapters."""
    model = model_of("LlamaForCausalLM", _GROUPED).requires_grad_(False)
    named = [(n, m) for n, m in model.named_modules() if type(m) is nn.Linear]
    for name, layer in named:
        parent, _, own = name.rpartition(".")
        made = Adapted(layer) if own in ("q_proj", "v_proj") else Quantized(layer)
        setattr(model.get_submodule(parent), own, made)
    return model.to(dtype).eval()


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_adapters_over_a_quantized_base() -> None:
    """Only what is trained counts, by rules, with the codes as they are."""
    objective = whence.from_transformers(quantized(torch.float64), texts())
    assert all(".down." in name or ".up." in name for name in objective.shapes)
    assert len(objective.params) == 2 * 2 * 8 * 2 + 2 * (8 + 4) * 2
    assert any(buffer.dtype == torch.int8 for buffer in objective.model.buffers())
    hold(objective, 1.0)
    single = whence.from_transformers(quantized(torch.float32), texts())
    exact, rough = (whence.influence(one, texts()[:1]).values for one in (objective, single))
    assert exact == pytest.approx(rough, rel=1e-3)


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_models_in_float64_with_layers_that_compute_in_float32() -> None:
    """As T5's norms do: the curvature is symmetric but for their rounding."""
    values = []
    for dtype in (torch.float64, torch.float32):
        model = model_of("T5ForConditionalGeneration", _T5).to(dtype).requires_grad_(False)
        model.lm_head.weight.requires_grad_(True)
        objective = whence.from_transformers(model, texts(tokens_of))
        values.append(whence.influence(objective, texts(tokens_of)[:1]).values)
    assert values[0] == pytest.approx(values[1], rel=1e-3)
