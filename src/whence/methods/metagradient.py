r"""The exact derivative of a query's measure in every training weight, through the whole training.

Training is a function θ_T(w) of the example weights. For a query q,

```
score[q, i] = −wᵢ · d m_q(θ_T(w)) / d wᵢ
```

is the first-order change of m_q when example i is removed from the run. Walking back through the
steps, each step needs ∇²L V, for V with a column per query, and the products ∇ℓᵢᵀ V; both come from
differentiating the batch gradient once more. All queries share the forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vjp, vmap
from tqdm import tqdm

from whence.errors import InvalidInput
from whence.objective.losses import measure_of
from whence.objective.measures import Measure, OutputFunction, measure_name
from whence.scores import Scores
from whence.training.backward import weight_gradients
from whence.training.program import check_targets, queries_of
from whence.training.run import Run


def metagradient(
    run: Run,
    queries: Any,
    *,
    measure: str | Measure | OutputFunction = "loss",
    together: int = 64,
    query_ids: Sequence[Any] | None = None,
) -> Scores:
    r"""Score training examples by differentiating through a recorded training.

    score[q, i] = −wᵢ · d m_q(θ_T) / d wᵢ, exact up to rounding: the first-order change of the
    query's measure in the same training without example i. How far first order carries is what
    `metasmoothness` measures.

    Args:
        run: A training recorded by `whence.train`.
        queries: (x, y) with q rows each, or a `torch.utils.data.Dataset` of such pairs.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [q].
        together: Queries differentiated together, >= 1; the result does not depend on it, up to
            rounding. Memory grows with it: s vectors of p numbers per query.
        query_ids: Names of the queries, [q]; 0..q−1 by default.

    Returns:
        Scores [q, n]. Positive: the example helped.

    Raises:
        InvalidInput: If the queries do not fit the model, or its loss the measure.
        Diverged: If the derivative does not stay finite.
        CorruptFile: If a recorded state, or the progress of an earlier call, cannot be read.

    Cost:
        Per step about 4 passes of a batch for each query, and one shared gradient, two where states
        are recomputed. With a directory, an interrupted call goes on from its last segment.

    References:
        Maclaurin, Duvenaud & Adams (2015); Engstrom et al. (2025), "Optimizing ML training with
        metagradient descent", section 2.

    Examples:
        >>> import torch
        >>> from whence.objective.losses import SquaredError
        >>> from whence.training.recipe import Recipe
        >>> from whence.training.run import train
        >>> x, y = torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0], [3.0]])
        >>> recipe = Recipe(learning_rate=0.2, batch_size=2, epochs=200)
        >>> run = train(torch.nn.Linear(1, 1, bias=False), SquaredError(), (x, y), recipe)
        >>> metagradient(run, (torch.tensor([[1.0]]), torch.tensor([[1.0]]))).values.round(3)
        array([[ 0.5, -0.5]])
    """
    if together < 1:
        raise InvalidInput(f"Expected together >= 1. Got {together}.")
    inputs, targets = queries_of(run.program, queries)
    ids = np.arange(len(inputs)) if query_ids is None else np.asarray(query_ids)
    if isinstance(measure, str):
        check_targets(run.program, run.params, inputs, targets)
    measured = measure_of(run.program.loss, measure)
    with tqdm(total=len(inputs) * run.steps, desc="metagradient", disable=None) as bar:
        rows = [
            weight_gradients(run, query_gradients(run, measured, x, y), bar)
            for x, y in zip(
                torch.split(inputs, together), torch.split(targets, together), strict=True
            )
        ]
    values = -torch.cat(rows) * run.weights
    return Scores(
        values=values.double().cpu().numpy(),
        query_ids=ids,
        train_ids=run.train_ids,
        positions=np.arange(len(run.weights)),
        n=len(run.weights),
        method=f"metagradient through {run.steps} steps of {run.recipe.optimizer}",
        measure=measure_name(measure),
    )


def query_gradients(run: Run, measure: Measure, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return ∇m_q(θ_T) of each query.

    Args:
        run: The training.
        measure: m.
        inputs: x of the queries, [q, ...].
        targets: y of the queries, [q].

    Returns:
        One gradient per row, [q, p].
    """

    def values(params: Tensor) -> Tensor:
        return measure(run.program.outputs(params, inputs), targets)

    found, pull = vjp(values, run.params)[:2]
    if found.shape != (len(inputs),):
        raise InvalidInput(
            f"Expected a measure with one value per query, [{len(inputs)}]. "
            f"Got {list(found.shape)}. Return an unreduced value."
        )
    gradients: Tensor = vmap(pull)(torch.eye(len(inputs)).to(found))[0]
    return gradients
