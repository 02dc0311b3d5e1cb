"""A plain loop in PyTorch: one training after another."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.workloads.problem import Ask, Halves
from benchmarks.workloads.w2 import network

_TRAININGS, _BATCH, _EPOCHS = 4, 64, 20


def one_after_another(problem: Halves, setting: float | None) -> Ask:
    """Prepare training with torch.optim; rows that a half leaves out are not even computed."""

    def trained(mask: torch.Tensor) -> nn.Module:
        model = network(problem.x.shape[1])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-3)
        for _ in range(_EPOCHS):
            for batch in torch.randperm(len(problem.x)).split(_BATCH):
                kept = batch[mask[batch]]
                loss = cross_entropy(model(problem.x[kept]), problem.y[kept], reduction="sum")
                optimizer.zero_grad()
                (loss / len(batch)).backward()
                optimizer.step()
        return model.eval()

    def ask() -> Any:
        losses = []
        for mask in torch.from_numpy(problem.masks[:_TRAININGS]):
            model = trained(mask)
            with torch.no_grad():
                x, y = problem.queries
                losses.append(cross_entropy(model(x), y, reduction="none"))
        return torch.stack(losses).numpy()

    return ask


METHODS = {"one after another": one_after_another}
