"""Small float64 models of every kind, each with its data: what the operators are held against."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import whence
from whence.network.objective import ModuleObjective

SIZE = 7


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _labels(classes: int, *shape: int) -> Tensor:
    return torch.randint(classes, (SIZE, *shape), generator=_seeded())


def _normal(*shape: int) -> Tensor:
    return torch.randn(SIZE, *shape, generator=_seeded(), dtype=torch.float64)


class Tied(nn.Module):
    """One matrix embeds, is used functionally in the middle, and reads out: three uses."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.norm = nn.LayerNorm(4)
        self.read = nn.Linear(4, 6)
        self.read.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.norm(self.embed(tokens)).tanh()
        hidden = hidden + functional.linear(hidden, self.embed.weight[:4])
        return self.read(hidden).mean(1)


class Shared(nn.Module):
    """A layer called twice, its activations changed in place, and a layer that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.twice = nn.Linear(5, 5)
        self.last = nn.Linear(5, 3)
        self.first.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.elu(self.first(x), inplace=True)
        for _ in range(2):
            hidden = functional.elu(self.twice(hidden), inplace=True)
        return self.last(hidden)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Attention(nn.Module):
    """Packed attention weights, used functionally, through scaled dot-product attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attend(x, x, x, need_weights=False)[0].mean(1))


class Logits(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, **batch: Tensor) -> Tensor:
        logits: Tensor = self.inner(**batch).logits
        return logits


def mlp() -> tuple[nn.Module, Any]:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    return model, (_normal(4), _labels(3))


def cnn() -> tuple[nn.Module, Any]:
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(3),
        nn.SiLU(inplace=True),
        nn.Conv2d(3, 4, 2, groups=1, dilation=1),
        nn.GroupNorm(2, 4),
        nn.Flatten(2),
        nn.Conv1d(4, 3, 3, padding=1),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(3, 3),
    )
    model(torch.randn(20, 2, 6, 6, generator=_seeded()))  # running statistics
    return model.eval(), (_normal(2, 6, 6), _labels(3))


def gpt2() -> tuple[nn.Module, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=11, n_positions=6, n_embd=4, n_layer=1, n_head=2)
    model = Logits(GPT2LMHeadModel(config)).eval()
    tokens = _labels(11, 5)
    return model, ({"input_ids": tokens}, tokens.roll(-1, 1))


def bert() -> tuple[nn.Module, Any]:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=9,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=6,
        max_position_embeddings=6,
        num_labels=3,
    )
    model = Logits(BertForSequenceClassification(config)).eval()
    mask = torch.ones(SIZE, 5, dtype=torch.long)
    mask[::2, 3:] = 0
    return model, ({"input_ids": _labels(9, 5), "attention_mask": mask}, _labels(3))


def lstm() -> tuple[nn.Module, Any]:
    return Recurrent(), (_normal(5, 3), _labels(3))


def attention() -> tuple[nn.Module, Any]:
    return Attention(), (_normal(5, 4), _labels(3))


def tied() -> tuple[nn.Module, Any]:
    return Tied(), (_labels(6, 4), _labels(6))


def shared() -> tuple[nn.Module, Any]:
    return Shared(), (_normal(3), _labels(3))


ZOO = {maker.__name__: maker for maker in (mlp, cnn, gpt2, bert, lstm, attention, tied, shared)}


def model_of(name: str) -> tuple[nn.Module, Any]:
    """Return a model of the zoo in float64, with its data."""
    torch.manual_seed(0)
    model, data = ZOO[name]()
    with torch.no_grad():
        for parameter in model.parameters():  # biases of zero hide mistakes
            parameter.add_(0.3 * torch.randn(parameter.shape).to(parameter))
    return model.double(), data


def objective_of(name: str, **options: Any) -> ModuleObjective:
    """Return a model of the zoo as an objective in float64, with unequal weights."""
    model, data = model_of(name)
    weights = torch.linspace(0.5, 2, SIZE, dtype=torch.float64)
    return whence.from_torch(model, whence.CrossEntropy(), data, l2=0.1, weights=weights, **options)
