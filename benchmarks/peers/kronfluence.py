"""kronfluence: EK-FAC and its relatives for Linear and Conv2d layers.

As in its examples: a Task with the summed cross-entropy and labels drawn from the model,
`fit_all_factors`, `compute_pairwise_scores`. Its scores are not divided by n.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from kronfluence.utils.dataset import DataLoaderKwargs
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from benchmarks.peers.loading import Rows, as_is
from benchmarks.workloads.problem import Ask, Influence, Suspects

_BATCH = 1024


class Classification(Task):
    """Logits of classes, trained with the cross-entropy."""

    def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
        x, y = batch
        logits = model(x)
        if sample:
            y = torch.multinomial(logits.detach().softmax(-1), 1).flatten()
        return cross_entropy(logits, y, reduction="sum")

    def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
        return self.compute_train_loss(batch, model)


class Binary(Classification):
    """One logit."""

    def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
        x, y = batch
        logits = model(x)[:, 0]
        if sample:
            y = torch.bernoulli(logits.detach().sigmoid())
        return binary_cross_entropy_with_logits(logits, y, reduction="sum")


class Sequences(Classification):
    """Logits of the next character at each position; the loss is the sum over positions."""

    def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
        x, y = batch
        logits = model(x).flatten(0, 1)
        y = y.flatten()
        if sample:
            y = torch.multinomial(logits.detach().softmax(-1), 1).flatten()
        return cross_entropy(logits, y, reduction="sum")


def factors(
    task: Task, model: nn.Module, rows: Rows, strategy: str, folder: Any, batch: int
) -> Analyzer:
    """Fit what a strategy needs."""
    analyzer = Analyzer(
        "benchmark",
        prepare_model(model, task),
        task,
        cpu=not next(model.parameters()).is_cuda,
        disable_tqdm=True,
        output_dir=str(folder),
    )
    analyzer.set_dataloader_kwargs(DataLoaderKwargs(collate_fn=as_is))
    analyzer.fit_all_factors(
        "factors",
        rows,
        per_device_batch_size=min(batch, len(rows)),
        factor_args=FactorArguments(strategy=strategy),
    )
    return analyzer


def influence(
    strategy: str, problem: Influence, setting: float, *, task: type[Task] = Classification
) -> Ask:
    """Prepare one strategy."""
    rows, asked = Rows(problem.x, problem.y), Rows(*problem.queries)
    batch = 64 if problem.x.ndim == 2 and not problem.x.is_floating_point() else _BATCH
    analyzer = factors(task(), problem.model, rows, strategy, problem.folder, batch)

    def ask() -> Any:
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            asked,
            rows,
            per_device_query_batch_size=len(asked),
            per_device_train_batch_size=min(batch, len(rows)),
            score_args=ScoreArguments(damping_factor=problem.damping(setting)),
        )
        return (analyzer.load_pairwise_scores("scores")["all_modules"] / problem.n).numpy()

    return ask


def self_influence(strategy: str, problem: Suspects, setting: float) -> Ask:
    """Prepare the self-influence of dense rows under one strategy."""
    x = torch.from_numpy(problem.x.toarray()).float()
    layer = nn.Linear(x.shape[1], 1)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(problem.coef)[None])
        layer.bias.fill_(problem.intercept)
    model = nn.Sequential(layer)  # a bare layer cannot be wrapped
    rows = Rows(x, torch.from_numpy(problem.y).float())
    analyzer = factors(Binary(), model, rows, strategy, problem.folder, _BATCH)

    def ask() -> Any:
        analyzer.compute_self_scores(
            "scores",
            "factors",
            rows,
            per_device_train_batch_size=min(_BATCH, len(rows)),
            score_args=ScoreArguments(damping_factor=setting * problem.l2),
        )
        return analyzer.load_self_scores("scores")["all_modules"].numpy()

    return ask


METHODS = {
    "EK-FAC": partial(influence, "ekfac"),
    "K-FAC": partial(influence, "kfac"),
    "EK-FAC, sequences": partial(influence, "ekfac", task=Sequences),
    "diagonal": partial(influence, "diagonal"),
    "self-influence, EK-FAC": partial(self_influence, "ekfac"),
    "self-influence, diagonal": partial(self_influence, "diagonal"),
}
