"""captum.influence: TracIn's fast form for the last layer, and Arnoldi's low-rank inverse.

As in its tutorial: a checkpoint on disk with a function that loads it and returns the learning
rate. Scores of TracIn are learning rate times products of gradients, not a change of the loss.
"""

from __future__ import annotations

from typing import Any

import torch
from captum.influence import TracInCPFast
from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction
from torch import nn

from benchmarks.peers.loading import loader
from benchmarks.workloads.problem import Ask, Influence, Suspects


def checkpoint(model: nn.Module, folder: Any) -> str:
    """Save what the library loads again."""
    path = str(folder / "model.pt")
    torch.save(model.state_dict(), path)
    return path


def load(model: nn.Module, path: str) -> float:
    """Load a checkpoint and return its learning rate."""
    model.load_state_dict(torch.load(path))
    return 1.0


def last_layer(model: nn.Module) -> nn.Linear:
    """Return the last linear layer."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


def tracin(problem: Influence, setting: float | None) -> Ask:
    """Prepare TracInCPFast at the trained model."""
    method = TracInCPFast(
        problem.model,
        last_layer(problem.model),
        loader(problem.x, problem.y, 4096),
        [checkpoint(problem.model, problem.folder)],
        checkpoints_load_func=load,
        loss_fn=nn.CrossEntropyLoss(reduction="sum"),
    )
    return lambda: (method.influence(problem.queries) / problem.n).detach().cpu().numpy()


def arnoldi(problem: Influence, setting: float) -> Ask:
    """Prepare Arnoldi's iteration, the Hessian from 5,000 rows as its documentation advises.

    The setting is its `hessian_reg` in units of the problem's damping; dimensions are its defaults.
    """
    train = loader(problem.x, problem.y, 1024)
    sample = loader(problem.x[:5000], problem.y[:5000], 5000)
    method = ArnoldiInfluenceFunction(
        problem.model,
        train,
        checkpoint(problem.model, problem.folder),
        checkpoints_load_func=load,
        loss_fn=nn.CrossEntropyLoss(reduction="sum"),
        sample_wise_grads_per_batch=True,
        hessian_dataset=sample,
        hessian_reg=problem.damping(setting),
    )
    return lambda: (method.influence(problem.queries) / problem.n).detach().numpy()


def self_influence(problem: Suspects, setting: float | None) -> Ask:
    """Prepare TracIn's self-influence of dense rows."""
    x, y = torch.from_numpy(problem.x.toarray()).float(), torch.from_numpy(problem.y).float()
    layer = nn.Linear(x.shape[1], 1)
    model = nn.Sequential(layer)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(problem.coef)[None])
        layer.bias.fill_(problem.intercept)
    method = TracInCPFast(
        model,
        layer,
        loader(x, y[:, None], 1024),
        [checkpoint(model, problem.folder)],
        checkpoints_load_func=load,
        loss_fn=nn.BCEWithLogitsLoss(reduction="sum"),
    )
    return lambda: method.self_influence().detach().numpy()


METHODS = {
    "TracInCPFast": tracin,
    "Arnoldi": arnoldi,
    "self-influence, TracInCPFast": self_influence,
}
