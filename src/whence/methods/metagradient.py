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
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.func import vjp, vmap

from whence.checked import checked
from whence.errors import InvalidInput
from whence.methods.attribution import Attribution
from whence.methods.family import of_family
from whence.methods.method import Method
from whence.methods.prediction import MeasureLike
from whence.methods.subsets import Positions, blocks
from whence.objective.measures import Measure
from whence.objective.trained import Data, Examples, Trained
from whence.progress import progress
from whence.scores import Diagnostics, Scores
from whence.training.backward import weight_gradients
from whence.training.run import Run


@final
@checked
@dataclass(frozen=True, kw_only=True)
class Metagradient(Method):
    r"""Score training examples by differentiating through a recorded training.

    score[q, i] = −wᵢ · d m_q(θ_T) / d wᵢ, exact up to rounding.

    Args:
        together: Queries differentiated together, >= 1; the result does not depend on it, up to
            rounding. Memory grows with it: s vectors of p numbers per query.

    Raises:
        InvalidInput: If `together` is less than 1.

    Cost:
        As `whence.metagradient`.

    References:
        Maclaurin, Duvenaud & Adams (2015); Engstrom et al. (2025), section 2.

    Examples:
        >>> import torch, whence
        >>> x, y = torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0], [3.0]])
        >>> recipe = whence.Recipe(learning_rate=0.2, batch_size=2, epochs=200)
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> run = whence.train(model, whence.SquaredError(), (x, y), recipe)
        >>> whence.Metagradient().fit(run).scores((x[:1], y[:1])).values.shape
        (1, 2)
    """

    together: int = 64

    def __post_init__(self) -> None:
        """Check the option."""
        if self.together < 1:
            raise InvalidInput(f"Expected together >= 1. Got {self.together}.")

    def attribution(self, trained: Trained) -> Attribution:
        """Return the derivative through a training."""
        return _ThroughTraining(recorded_run(trained, "whence.Metagradient"), self)


@final
@dataclass(frozen=True, eq=False)
class _ThroughTraining(Attribution):
    """Derivatives of measures at the end of a training in its example weights.

    Args:
        trained: The training.
        method: The options.
    """

    trained: Run
    method: Metagradient

    @property
    def words(self) -> str:
        """What is differentiated."""
        run = self.trained
        return f"metagradient through {run.steps} steps of {run.recipe.optimizer}"

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return −wᵢ d m_q / d wᵢ, [q, k]."""
        run, count = self.trained, len(queries)
        rows = [run.weights.new_zeros(0, len(run.weights))]
        with progress(total=count * run.steps, desc="metagradient") as bar:
            for part in blocks(np.arange(count), self.method.together):
                some = run.examples(queries.subset(part))
                gradients = query_gradients(run, measure, some.inputs, some.targets)
                rows.append(weight_gradients(run, gradients, bar))
        values = -torch.cat(rows) * run.weights
        return values[:, where], Diagnostics(notes=run.notes)


def recorded_run(trained: Trained, method: str) -> Run:
    """Return a model as a recorded training, or raise that the method needs one.

    Args:
        trained: The model.
        method: The name of the method.

    Returns:
        The run.

    Raises:
        UnsupportedModel: If the model is not a recorded training.
    """
    return of_family(
        trained,
        Run,
        f"a training recorded by whence.train for {method}, which differentiates its steps",
        "Record the training, or use whence.Influence().",
    )


@checked
def metagradient(
    run: Trained,
    queries: Data,
    *,
    measure: MeasureLike = "loss",
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
        >>> from whence.training.train import train
        >>> x, y = torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0], [3.0]])
        >>> recipe = Recipe(learning_rate=0.2, batch_size=2, epochs=200)
        >>> run = train(torch.nn.Linear(1, 1, bias=False), SquaredError(), (x, y), recipe)
        >>> metagradient(run, (torch.tensor([[1.0]]), torch.tensor([[1.0]]))).values.round(3)
        array([[ 0.5, -0.5]], dtype=float32)
    """
    found = Metagradient(together=together).fit(run)
    encoded = recorded_run(run, "whence.Metagradient").examples(queries)
    if query_ids is not None:
        encoded = replace(encoded, ids=np.asarray(query_ids))
    return found.scores(encoded, measure=measure)


def query_gradients(run: Run, measure: Measure, inputs: Any, targets: Tensor) -> Tensor:
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
        return measure(run.program.outputs(params, inputs, twice=True), targets)

    found, transpose = vjp(values, run.params)[:2]
    count = len(targets)
    if found.shape != (count,):
        raise InvalidInput(
            f"Expected a measure with one value per query, [{count}]. "
            f"Got {list(found.shape)}. Return an unreduced value."
        )
    gradients: Tensor = vmap(transpose)(torch.eye(count).to(found))[0]
    return gradients
