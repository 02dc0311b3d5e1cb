"""Influence of a training sequence on a query, split over the tokens of one or the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.arrays import Floats
from whence.checked import checked
from whence.curvature.damping import CurvatureName
from whence.errors import InvalidInput, UnsupportedModel
from whence.linalg.solver import Solver
from whence.methods.attribution import Attribution
from whence.methods.choose import chosen
from whence.methods.directed import Directed, directed
from whence.methods.features import Side
from whence.methods.method import Method
from whence.methods.prediction import Indices, MeasureLike, as_array, measure_name, positions
from whence.objective.losses import measure_of
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.trained import Data, Examples
from whence.result import Card, Result
from whence.scores import Diagnostics
from whence.tiles import tiles

_TILE = 2**25  # numbers of J V that stand at once: 128 MB of float32


@dataclass(frozen=True, kw_only=True, repr=False)
class TokenScores(Result):
    """The part of each score that each target token of the training sequence, or query, has.

    `values[q, i].sum()` is the sequence's score, as `whence.influence` gives it: the predicted
    change of query q's measure if sequence i is removed. A positive part helped.

    Args:
        values: [q, k, t], for k candidates and t target tokens; 0 where a token has no loss.
        targets: The target tokens, [k, t] of the candidates or [q, t] of the queries (or
            [k, t, c] and [q, t, c] for outputs that are compared in full).
        side: Whose tokens: "training" or "query".
        query_ids: The user's names of the queries, [q].
        train_ids: The user's names of the candidates, [k].
        positions: Positions of the candidates in the training data, [k].
        measure: What is predicted: "loss", "margin", "probability" or a function's name.
        diagnostics: How far to trust them.
    """

    values: Floats
    targets: NDArray[Any]
    query_ids: NDArray[Any]
    train_ids: NDArray[Any]
    positions: NDArray[np.intp]
    measure: str
    side: Side = "training"
    diagnostics: Diagnostics | None = field(default=None, repr=False)

    def card(self) -> Card:
        """Return what the scores are."""
        q, k, t = self.values.shape
        return Card(
            title=f"{self.measure} of {q:,} queries without each of {k:,} sequences, the parts of "
            f"{t:,} {self.side} tokens"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return a frame with a row per sequence and token, and a column per query.

        For tokens of queries a row per query and token, and a column per sequence.
        """
        sides = ("query_id", self.query_ids), ("train_id", self.train_ids)
        other, (own, ids) = sides if self.side == "training" else sides[::-1]
        values = self.values if self.side == "training" else self.values.swapaxes(0, 1)
        index = pd.MultiIndex.from_product([ids, range(values.shape[2])], names=[own, "token"])
        columns = pd.Index(other[1], name=other[0])
        return pd.DataFrame(values.reshape(len(values), -1).T, index=index, columns=columns)


@checked
def influence_by_token(
    objective: Objective,
    queries: Data,
    *,
    side: Side = "training",
    measure: MeasureLike = "loss",
    indices: Indices | None = None,
    method: Method | None = None,
    solver: Solver | None = None,
    damping: float | None = None,
    curvature: CurvatureName = "auto",
) -> TokenScores:
    """Split the influence of each training sequence among its target tokens, or the query's.

    The loss of a sequence is a sum over its target tokens, and so is its score. Token t of sequence
    i contributes (wᵢ/n) ∂ℓᵢ/∂f_{it} · (Jᵢ H⁻¹ ∇m_q)_t: what its own term of the loss taught the
    model about the query. The other way, token t of query q takes (wᵢ/n) ∂m_q/∂f_{qt} ·
    (J_q H⁻¹ gᵢ)_t: which part of the answer the sequence taught. Either adds up to
    `whence.influence(objective, queries)`, within the `rtol` of the solver; or to the scores of
    `method`, whose C stands for H⁻¹: Pᵀ K⁻¹ P of projected gradients, in memory or of an index.

    Args:
        objective: R at θ̂ of a sequence model, with outputs [b, t, c].
        queries: (X, y) of q queries, or of one.
        side: Whose tokens: "training" or "query".
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        indices: Positions of the candidates in the training data; all n if `None`. Usually those
            that `whence.influence` put first.
        method: Whose scores are split: `whence.Influence`, `whence.Projected`, or `whence.Stored`
            rows of either; influence by the following options if `None`.
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.
        curvature: "hessian", "ggn" (the Gauss–Newton matrix) or "auto": the exact Hessian of a
            convex objective or at a strict minimum, elsewhere the damped Gauss–Newton matrix.

    Returns:
        The parts, values [q, k, t]; in nats for the loss. Padding and ignored targets have 0.

    Raises:
        InvalidInput: If the model's outputs are no sequences, or an option cannot be used.
        UnsupportedModel: If scores of the method are no products of gradients at one θ.
        NotPositiveDefinite: If the curvature is singular or indefinite.

    Cost:
        q solves, and for each query about three forward passes over the candidates. For tokens of
        queries k solves, and for each candidate about three forward passes over the queries.

    References:
        Grosse et al. (2023), "Studying Large Language Model Generalization with Influence
        Functions", section 3.3, who split by the position of the gradient instead of the loss.

    Examples:
        >>> import torch, whence
        >>> model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 5))
        >>> tokens = torch.randint(5, (30, 4))
        >>> data = tokens[:, :-1], tokens[:, 1:]
        >>> recipe = whence.Recipe(learning_rate=0.3, batch_size=30, epochs=500)
        >>> run = whence.train(model, whence.CrossEntropy(), data, recipe)
        >>> objective = whence.from_torch(run.model, whence.CrossEntropy(), data)
        >>> query = (tokens[:2, :-1], tokens[:2, 1:])
        >>> parts = whence.influence_by_token(objective, query, solver=whence.EKFAC())
        >>> parts.values.shape
        (2, 30, 3)
    """
    encoded = objective.examples(queries)
    quantity = measure_of(objective.loss, measure)
    where = positions(objective, indices)
    candidates = objective.train.subset(where)
    shape = objective.outputs(candidates.subset(np.arange(1))).shape
    if len(shape) != 3:
        raise InvalidInput(
            f"Expected a model of sequences, with outputs [b, t, c]. Got outputs [b, "
            f"{', '.join(map(str, shape[1:]))}]. Use whence.influence."
        )
    sides: list[tuple[Examples, Measure]] = [(candidates, objective.loss), (encoded, quantity)]
    split, other = sides if side == "training" else sides[::-1]
    scoring = chosen(objective, method, solver, damping, curvature)
    directions, measured = _directed(scoring, objective).directions(*other, side)
    parts = torch.cat(list(token_parts(objective, *split, directions)), 1)
    scale = objective.weights[where] / len(objective.train)
    return TokenScores(
        values=as_array((parts.swapaxes(0, 1) if side == "query" else parts) * scale[:, None]),
        targets=split[0].targets.cpu().numpy(),
        query_ids=encoded.ids,
        train_ids=candidates.ids,
        positions=where,
        measure=measure_name(measure),
        side=side,
        diagnostics=measured,
    )


def _directed(method: Method, objective: Objective) -> Directed:
    """Return a method fitted to a model, if its scores can be split."""
    fitted: Attribution = method.fit(objective)
    found = directed(fitted)
    if found is None:
        raise UnsupportedModel(
            "Expected a method whose scores are products of gradients, such as whence.Influence() "
            f"or whence.Projected(). Got {fitted.words}{fitted.unit}."
        )
    return found


def token_parts(
    objective: Objective, examples: Examples, measure: Measure, v: Tensor
) -> Iterator[Tensor]:
    """Yield Σ_c ∂m/∂f_{btc} (J V)_{btc} of a few examples at once, [k, b, t].

    Args:
        objective: Of a sequence model.
        examples: The examples, their outputs [b, t, c].
        measure: m.
        v: Directions of θ, [p, k].
    """
    numbers = objective.outputs(examples.subset(np.arange(1))).numel() * v.shape[1]
    for tile in tiles(len(examples), numbers, _TILE):
        part = examples.subset(np.arange(tile.start, tile.stop))
        slopes = measure.gradient(objective.outputs(part), part.targets)
        yield torch.einsum("btc,btck->kbt", slopes, objective.jvp(part, v))
