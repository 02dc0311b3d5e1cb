"""Attribution through a recorded training in a few segments: SOURCE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whence.adapters.torch import from_torch
from whence.curvature.kronecker import kronecker
from whence.errors import InvalidInput, UnsupportedModel
from whence.linalg.spectral import Spectral
from whence.methods.prediction import MeasureLike, as_array
from whence.methods.segments import Segment, unroll
from whence.network.objective import ModuleObjective
from whence.objective.losses import measure_of
from whence.objective.measures import measure_name
from whence.scores import Scores
from whence.training.run import Run


def unrolled(
    run: Run,
    queries: Any,
    *,
    segments: int = 3,
    measure: MeasureLike = "loss",
    curvature: Callable[[ModuleObjective], Spectral] = kronecker,
) -> Scores:
    r"""Score training examples by segments of a recorded training, without replaying its steps.

    score[q, i] = (wᵢ/n) ∇m_q(θ_T)ᵀ Σ_l S_L ⋯ S_{l+1} F_l gᵢ(θ_l), S_l = exp(−τ_l H_l) and
    F_l = (I − S_l) H_l⁻¹, with θ_l the mean of the kept parameters of segment l, H_l the curvature
    there (weight decay included) and τ_l the sum of its learning rates over 1 − momentum. No
    damping: the duration takes its place, since F_l is at most τ_l.

    Args:
        run: A training recorded by `whence.train` with SGD.
        queries: (x, y) of q queries, or of one.
        segments: L >= 1, stretches of as many steps each; at most as many as states were kept.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        curvature: From the objective at θ_l to H_l as an operator that knows its spectrum; EKFAC by
            default.

    Returns:
        Scores with values [q, n]: a predicted change of the measure on removal, 1/n included.

    Raises:
        InvalidInput: If queries or segments do not fit the run.
        UnsupportedModel: If the optimizer is not SGD, or gradients were clipped.
        CorruptFile: If a recorded state cannot be read.

    Cost:
        Per segment one EKFAC and one product of the training gradients with [p, q].

    References:
        Bae et al. (2024), "Training Data Attribution via Approximate Unrolled Differentiation",
        section 3; the mean of the parameters for that of gradients and curvature is its section
        on a faster form (FAST-SOURCE).

    Examples:
        >>> import torch, whence
        >>> data = torch.randn(50, 4), torch.arange(50) % 3
        >>> recipe = whence.Recipe(learning_rate=0.1, batch_size=10, epochs=6, momentum=0.9)
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(),
        ...                           torch.nn.Linear(8, 3))
        >>> run = whence.train(net, whence.CrossEntropy(), data, recipe)
        >>> whence.unrolled(run, (data[0][:2], data[1][:2])).values.shape
        (2, 50)
    """
    recipe = run.recipe
    if recipe.optimizer != "sgd" or recipe.clip_norm is not None:
        raise UnsupportedModel(
            "Expected a training by SGD without clipping, whose steps are the learning rate times "
            f"the gradient. Got optimizer={recipe.optimizer!r}, clip_norm={recipe.clip_norm}. Use "
            "whence.metagradient, which differentiates the steps as they were."
        )
    kept = [start for start, _ in run.segments()]
    if not 1 <= segments <= len(kept):
        raise InvalidInput(
            f"Expected 1 to {len(kept)} segments, as many as states were kept. Got {segments}."
        )
    program = run.program
    final = from_torch(
        run.model,
        program.loss,
        (program.inputs, program.targets),
        l2=recipe.weight_decay,
        weights=run.weights,
    )
    asked = final.examples(queries)
    parts = []
    for group in np.array_split(np.array(kept), segments):
        start = int(group[0])
        objective = final.at(_mean_params(run, group.tolist()))
        parts.append((start, objective, curvature(objective)))
    ends = [start for start, *_ in parts[1:]] + [run.steps]
    cut = [
        Segment(
            objective=objective,
            curvature=operator,
            duration=sum(run.rates[start:end]) / (1 - recipe.momentum),
        )
        for (start, objective, operator), end in zip(parts, ends, strict=True)
    ]
    eye = torch.eye(len(asked)).to(final.params)
    cotangents = final.gradient_sum(asked, measure_of(final.loss, measure), eye)
    values = unroll(cut, cotangents) * (run.weights / len(run.weights))
    return Scores(
        values=as_array(values),
        query_ids=asked.ids,
        train_ids=run.train_ids,
        positions=np.arange(len(run.weights)),
        n=len(run.weights),
        method=f"unrolled in {segments} segment{'s' if segments > 1 else ''} of {run.steps} steps "
        f"(Bae et al. 2024), durations {', '.join(f'{s.duration:.3g}' for s in cut)}",
        measure=measure_name(measure),
    )


def _mean_params(run: Run, steps: list[int]) -> Tensor:
    """Return the mean of the parameters before some steps whose states are kept, [p]."""
    total = torch.zeros_like(run.params)
    for step in steps:
        total += run.checkpoints.read(step)[0][0]
    return total / len(steps)
