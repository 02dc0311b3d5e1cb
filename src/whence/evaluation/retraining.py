"""Retraining of a recorded run without its top-ranked examples, or on random subsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.checked import Float, checked, floats
from whence.errors import InvalidInput
from whence.evaluation.curves import BrittlenessCurve, brittleness_curve
from whence.evaluation.ensemble import Together
from whence.network.examples import ModuleExamples
from whence.objective.losses import measure_of
from whence.objective.measures import Measure, OutputFunction
from whence.objective.trained import Data
from whence.training.checkpoints import InMemory
from whence.training.replay import retrain
from whence.training.run import Run


@checked
def top_k_removal(
    run: Run,
    scores: Tensor | NDArray[Any],
    queries: Data,
    *,
    removed: Sequence[int],
    measure: str | Measure | OutputFunction = "margin",
    together: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> BrittlenessCurve:
    """Remove each query's top-ranked examples, retrain, and measure what is left of the prediction.

    The faster the margin falls, the better the scores found what it rests on ("brittleness").

    Args:
        run: A training recorded by `whence.train`.
        scores: Predicted change of the loss if example i is removed, [q, n]: the highest go first.
        queries: (x, y) with q rows each.
        removed: Two or more numbers k of examples to remove, strictly rising; 0 shows the full
            training.
        measure: "margin", "loss", "probability", or a function (outputs, targets) -> [b].
        together: Trainings in one stack; see `retrain`.
        confidence: Probability that each interval aims to cover, in (0, 1).
        seed: Seed of the bootstrap over queries.

    Returns:
        The curve; `first_below(0.0)` is the smallest tested set that flips each prediction.

    Raises:
        InvalidInput: If scores, queries or numbers do not fit the training.
        Diverged: If a training does not stay finite.

    Cost:
        q trainings for each k but 0, several at once.

    References:
        Ilyas et al. (2022), "Datamodels", arXiv:2202.00622, §4.1; Park et al. (2023), "TRAK",
        section 5.2.

    Examples:
        >>> import torch, whence
        >>> x, y = torch.tensor([[1.0], [2.0], [-1.0], [-2.0]]), torch.tensor([0, 0, 1, 1])
        >>> recipe = whence.Recipe(learning_rate=0.5, batch_size=4, epochs=50)
        >>> _ = torch.manual_seed(0)
        >>> run = whence.train(torch.nn.Linear(1, 2), whence.CrossEntropy(), (x, y), recipe)
        >>> query = torch.tensor([[1.5]]), torch.tensor([0])
        >>> scores = whence.metagradient(run, query).values
        >>> curve = top_k_removal(run, scores, query, removed=[0, 1, 2])
        >>> bool(curve.mean[0] > curve.mean[1] > curve.mean[2])
        True
    """
    tau, n = floats("scores", scores, "q, n"), len(run.weights)
    count = len(run.examples(queries))
    if tau.shape != (count, n):
        raise InvalidInput(
            f"Expected scores of shape [{count}, {n}], a row per query and a column per "
            f"training example. Got {list(tau.shape)}."
        )
    counts = np.asarray(removed)
    whole = counts.ndim == 1 and np.issubdtype(counts.dtype, np.integer)
    if not whole or len(counts) < 2 or (counts < 0).any() or (np.diff(counts) <= 0).any():
        raise InvalidInput(
            "Expected at least two strictly rising whole numbers of examples to remove. "
            f"Got {removed!r}."
        )
    if counts.max(initial=0) >= n:
        raise InvalidInput(f"Expected to remove fewer than all {n} examples. Got {counts.max()}.")
    order = torch.from_numpy(np.argsort(-tau, axis=1, kind="stable")).to(run.weights.device)
    outcomes = []
    for k in counts.tolist():
        weights = run.weights.repeat(len(tau) if k else 1, 1)
        weights.scatter_(1, order[: len(weights), :k], 0.0)
        rows = np.stack(list(_measured(run, weights, queries, measure, together)))
        outcomes.append(np.diagonal(rows) if k else rows[0])
    return brittleness_curve(counts, np.stack(outcomes), confidence=confidence, seed=seed)


@checked
def replays(
    runs: Sequence[Run],
    queries: Data,
    *,
    measure: str | Measure | OutputFunction = "loss",
    together: int | None = None,
) -> Together:
    """Return the `retrain` of an ensemble that repeats recorded trainings; seed i repeats the i-th.

    It can be sent to the workers of `retraining_ensemble`. Trainings go together where that is
    faster, by `stack_size`; others one by one, on as many cores as there are workers, each faster
    than the same loop of `torch.optim`.

    Args:
        runs: Trainings of one data set, recorded by `whence.train` with weights of one: from
            other starts or in other orders.
        queries: (x, y) with q rows each.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        together: Trainings in one stack, as for `retrain`. A GPU with memory to spare takes many in
            about the time of a few.

    Returns:
        What `retraining_ensemble` takes as its first argument, with `seeds=len(runs)` or fewer.

    Raises:
        InvalidInput: If there is no run, the runs have different numbers of examples, or the
            queries cannot be used.

    Cost:
        Two gradients of a batch; as `retrain` when called.

    Examples:
        >>> import tempfile, torch, whence
        >>> from whence.evaluation import retraining_ensemble
        >>> x, y = torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0], [3.0]])
        >>> recipe = whence.Recipe(learning_rate=0.2, batch_size=2, epochs=200)
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> run = whence.train(model, whence.SquaredError(), (x, y), recipe)
        >>> retrain = replays([run], (x[:1], y[:1]))
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     ensemble = retraining_ensemble(
        ...         retrain, 2, subsets=1, seeds=1, fingerprint="demo", directory=directory
        ...     )
        >>> ensemble.masks[0].tolist(), ensemble.outcomes[0, 0].round(decimals=3).tolist()
        ([False, True], [2.0])
    """
    sizes = sorted({len(run.weights) for run in runs})
    if len(sizes) != 1:
        raise InvalidInput(
            f"Expected trainings of one data set, at least one. Got {len(runs)}, of n = {sizes}."
        )
    for run in runs:
        _asked(run, queries, measure)
    # Kept states are not needed, and would be sent to every worker.
    light = tuple(replace(run, checkpoints=InMemory(), directory=None) for run in runs)
    size = min(run.together for run in runs) if together is None else together
    return Together(_Replays(runs=light, queries=queries, measure=measure, together=size), size)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class _Replays:
    """What a member of an ensemble is: a replay of the run of its seed, and its measure."""

    runs: tuple[Run, ...]
    queries: Data
    measure: str | Measure | OutputFunction
    together: int

    def __call__(self, weights: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return the outcomes [k, q] for weights [k, n] and k seeds."""
        rows: dict[int, Tensor] = {}
        for seed in sorted(set(seeds)):
            if not 0 <= seed < len(self.runs):
                raise InvalidInput(
                    f"Expected seeds from 0 to {len(self.runs) - 1}, one per run. Got {seed}."
                )
            chosen = [i for i, other in enumerate(seeds) if other == seed]
            found = _measured(
                self.runs[seed], weights[chosen], self.queries, self.measure, self.together
            )
            rows.update(zip(chosen, map(torch.from_numpy, found), strict=True))
        return torch.stack([rows[i] for i in range(len(seeds))])


def _asked(run: Run, queries: Data, measure: str | Measure | OutputFunction) -> ModuleExamples:
    """Return the queries, checked for a run and a measure."""
    asked = run.examples(queries)
    if isinstance(measure, str):
        run.program.check_targets(asked)
    return asked


def _measured(
    run: Run,
    weights: Tensor,
    queries: Data,
    measure: str | Measure | OutputFunction,
    together: int | None,
) -> Iterator[Float]:
    """Yield the measure of all queries, [q], after each of the trainings with weights [k, n]."""
    asked = _asked(run, queries, measure)
    measured = measure_of(run.program.loss, measure)
    together = run.together if together is None else together
    for chunk in torch.split(weights, max(together, 1)):
        for params in retrain(run, chunk, together=together):
            with torch.no_grad():
                outputs = run.program.outputs(params, asked.inputs)
                yield measured(outputs, asked.targets).double().cpu().numpy()
