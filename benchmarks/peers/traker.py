"""TRAK: projected margin gradients, as in its quickstart, in single precision.

The projection has 512 dimensions; the setting is `lambda_reg` in units of the kernel's expected
mean eigenvalue, 0 its default. Scores predict the margin, not the loss.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn
from trak import TRAKer

from benchmarks.peers.loading import loader
from benchmarks.workloads.problem import Ask, Influence, Suspects

_DIMENSIONS, _BATCH = 512, 500


class TwoLogits(nn.Module):
    """A binary model with a logit for either class."""

    def __init__(self, coef: Any, intercept: float) -> None:
        super().__init__()
        self.linear = nn.Linear(len(coef), 1)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(coef)[None])
            self.linear.bias.fill_(intercept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logit = self.linear(x)
        return torch.cat([torch.zeros_like(logit), logit], 1)


def featurized(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, folder: Any, regularization: float
) -> TRAKer:
    """Project the gradients of all training examples."""
    traker = TRAKer(
        model,
        "image_classification",
        len(x),
        save_dir=str(folder),
        device=x.device.type,
        proj_dim=_DIMENSIONS,
        use_half_precision=False,
        lambda_reg=regularization,
        logging_level=logging.ERROR,
    )
    traker.load_checkpoint(model.state_dict(), model_id=0)
    for batch in loader(x, y, _BATCH):
        traker.featurize(batch, num_samples=len(batch[0]))
    traker.finalize_features()
    return traker


def scored(traker: TRAKer, model: nn.Module, x: Any, y: Any) -> Any:
    """Score all training examples for some rows, [n, q]."""
    traker.start_scoring_checkpoint("queries", model.state_dict(), 0, len(x))
    for batch in loader(x, y, _BATCH):
        traker.score(batch, num_samples=len(batch[0]))
    return traker.finalize_scores("queries")


def trak(problem: Influence, setting: float) -> Ask:
    """Prepare TRAK with one trained model."""
    regularization = setting * problem.n * problem.margin
    traker = featurized(problem.model, problem.x, problem.y, problem.folder, regularization)
    return lambda: scored(traker, problem.model, *problem.queries).T


def self_influence(problem: Suspects, setting: float) -> Ask:
    """Prepare TRAK of dense rows on themselves."""
    x, y = torch.from_numpy(problem.x.toarray()).float(), torch.from_numpy(problem.y)
    model = TwoLogits(problem.coef, problem.intercept).eval()
    traker = featurized(model, x, y, problem.folder, 0.0)
    return lambda: scored(traker, model, x, y).diagonal().copy()


METHODS = {"TRAK-512": trak, "self-influence, TRAK-512": self_influence}
