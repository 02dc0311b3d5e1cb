"""bergson: gradients of sequences, projected on both sides per layer as they are collected.

Its command line takes models and data of the Hugging Face hub; for a module of one's own its
in-memory collector is used as that command uses it. 16 x 16 numbers per linear layer, scored by
their inner products: no curvature is inverted.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from bergson import GradientProcessor, IndexConfig, InMemoryCollector
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.workloads.problem import Ask, Influence

_SIDE, _BATCH = 16, 32

logging.disable(logging.INFO)


def collected(problem: Influence, x: Tensor, y: Tensor) -> Tensor:
    """Return the projected gradients of each sequence's loss, [n, layers x 256]."""
    model: Any = problem.model
    model.device = problem.device
    collector = InMemoryCollector(
        model=model,
        data=Dataset.from_dict({"input_ids": x.tolist()}),
        cfg=IndexConfig(run_path=str(problem.folder / "run"), projection_dim=_SIDE),
        processor=GradientProcessor(projection_dim=_SIDE),
    )
    for rows in torch.arange(len(x), device=x.device).split(_BATCH):
        seen = torch.ones(len(rows), x.shape[1], dtype=torch.bool, device=x.device)
        with collector.with_batch(seen):
            logits = model(x[rows]).transpose(1, 2)
            losses = cross_entropy(logits, y[rows], reduction="none").sum(1)
            losses.sum().backward()
            model.zero_grad()
        collector.process_batch(rows.tolist(), losses=losses)
    collector.teardown()
    return torch.cat([value.float().cpu() for value in collector.gradients.values()], 1)


def projected(problem: Influence, setting: float | None) -> Ask:
    """Collect the training gradients; ask for products with those of the queries."""
    train = collected(problem, problem.x, problem.y)
    return lambda: (collected(problem, *problem.queries) @ train.T / problem.n).numpy()


METHODS = {"projected-16": projected}
