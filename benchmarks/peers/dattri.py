"""dattri: CG on the Hessian, EK-FAC, TRAK and LoGra, as in its examples.

Version 0.3.0 applies EK-FAC's eigenvectors transposed, so that what it inverts is not the Fisher
matrix it estimated; it is shown as it is. LoGra reloads metadata that it finds in the working
directory, so it is given a cache folder of its own. Scores are not divided by n.
"""

from __future__ import annotations

from typing import Any

import torch
from dattri.algorithm.influence_function import IFAttributorCG, IFAttributorEKFAC
from dattri.algorithm.logra import LoGraAttributor
from dattri.algorithm.trak import TRAKAttributor
from dattri.task import AttributionTask
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from benchmarks.peers.loading import loader
from benchmarks.workloads.problem import Ask, Influence

_DIMENSIONS = 512


def task(problem: Influence, loss: Any) -> AttributionTask:
    """Return the task of one loss."""
    return AttributionTask(loss, problem.model, problem.model.state_dict())


def attributed(attributor: Any, problem: Influence, batch_size: int) -> Ask:
    """Return how to ask; each training batch solves for the queries again, so few are best."""
    train = loader(problem.x, problem.y, batch_size)
    asked = loader(*problem.queries, len(problem.queries[0]))
    return lambda: (attributor.attribute(train, asked).T / problem.n).detach().cpu().numpy()


def cross_entropy_of(problem: Influence) -> Any:
    """Return the loss as a function of parameters and data."""

    def loss(params: dict[str, Tensor], data: tuple[Tensor, Tensor]) -> Tensor:
        x, y = data
        return cross_entropy(functional_call(problem.model, params, x), y)

    return loss


def cg(iterations: int) -> Any:
    """Return conjugate gradients on the Hessian of all data, so many steps."""

    def prepare(problem: Influence, setting: float) -> Ask:
        attributor = IFAttributorCG(
            task(problem, cross_entropy_of(problem)),
            max_iter=iterations,
            regularization=problem.damping(setting),
            device=problem.device.type,
        )
        attributor.cache(loader(problem.x, problem.y, problem.n))
        return attributed(attributor, problem, problem.n)

    return prepare


def ekfac(problem: Influence, setting: float) -> Ask:
    """Prepare EK-FAC."""
    attributor = IFAttributorEKFAC(
        task(problem, cross_entropy_of(problem)),
        damping=problem.damping(setting),
        device=problem.device.type,
    )
    p = sum(parameter.numel() for parameter in problem.model.parameters())
    attributor.cache(loader(problem.x, problem.y, 1000))
    return attributed(attributor, problem, 2**29 // p)


def trak(problem: Influence, setting: float) -> Ask:
    """Prepare TRAK with 512 dimensions; the setting is as for the traker package."""

    def margin(params: dict[str, Tensor], data: tuple[Tensor, Tensor]) -> Tensor:
        x, y = data
        logits = functional_call(problem.model, params, x[None])
        log_p = -cross_entropy(logits, y[None])
        return log_p - torch.log(1 - torch.exp(log_p))

    def probability(params: dict[str, Tensor], data: tuple[Tensor, Tensor]) -> Tensor:
        x, y = data
        return torch.exp(-cross_entropy(functional_call(problem.model, params, x[None]), y[None]))

    attributor = TRAKAttributor(
        task(problem, margin),
        probability,
        projector_kwargs={"proj_dim": _DIMENSIONS, "device": problem.device.type},
        device=problem.device.type,
        regularization=setting * problem.n * problem.margin,
    )
    attributor.cache(loader(problem.x, problem.y, 500))
    asked = loader(*problem.queries, 500)
    return lambda: (attributor.attribute(asked)).T.detach().cpu().numpy()


class OneByOne(nn.Module):
    """A model whose examples carry a leading 1, as images carry their channel.

    LoGra's first look at a model is through one example out of its batch.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of examples [b, 1, d], or of one, [1, d]; classes before positions."""
        outputs: Tensor = self.model(x.flatten(0, -2))
        return outputs.transpose(1, 2) if outputs.ndim == 3 else outputs


def logra(problem: Influence, setting: float) -> Ask:
    """Prepare LoGra; the setting is its dimension, per layer. Outputs may be of sequences."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor], device: str) -> Tensor:
        x, y = batch
        return cross_entropy(model(x), y, reduction="sum")

    model = OneByOne(problem.model)
    attributor = LoGraAttributor(
        AttributionTask(loss, model, model.state_dict()),
        proj_dim=int(setting),
        damping=0.1,
        cache_dir=str(problem.folder),
        device=problem.device.type,
    )
    size = 500 if problem.x.is_floating_point() else 64
    train = loader(problem.x[:, None], problem.y, size)
    attributor.cache(train)
    asked = loader(problem.queries[0][:, None], problem.queries[1], size)
    return lambda: (attributor.attribute(train, asked).T / problem.n).detach().cpu().numpy()


METHODS = {
    "CG, 10 steps": cg(10),
    "CG, 100 steps": cg(100),
    "EK-FAC": ekfac,
    "TRAK-512": trak,
    "LoGra": logra,
    "LoGra, sequences": logra,
}
