"""Leave-one-out retraining, to full precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import singledispatch
from itertools import chain
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.arrays import Floats
from whence.checked import checked
from whence.curvature.changes import SingleChanges, change_tiles
from whence.curvature.leverages import determines_itself
from whence.curvature.prepare import prepare
from whence.curvature.reweighting import Reweightings
from whence.errors import warn_user
from whence.fitting.hinge import fit_hinge
from whence.fitting.newton import negligible
from whence.methods.attribution import Attribution
from whence.methods.converged import converged, minimum
from whence.methods.fit_quality import fit_quality
from whence.methods.method import Method
from whence.methods.own_fits import beside_own_fits
from whence.methods.prediction import Indices, MeasureLike, measure_changes
from whence.methods.removals import answers, removal
from whence.methods.subsets import Positions
from whence.objective.losses import Loss
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.removed import weights_without
from whence.objective.trained import Data, Examples, Trained
from whence.progress import progress
from whence.scores import Diagnostics
from whence.tiles import tiles

_CONTRACTION = 0.8  # a step that leaves a longer one sends its removal to be refitted alone
_WEIGHTS = 2**22  # example weights that are held at once: 32 MB
_CONVERGED = 1e-9  # of a removal's first step: the length of one at which it counts as refitted


@final
@checked
@dataclass(frozen=True, kw_only=True)
class LeaveOneOut(Method):
    """Remove each training example, fit again for real, and report what changed.

    score[q, i] = m_q(θ̂₋ᵢ) − m_q(θ̂), both models as the model's own `refit` gives them.

    Cost:
        As `whence.leave_one_out`.

    References:
        Koh & Liang (2017), section 4.1.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> found = whence.LeaveOneOut().fit(objective).scores((X[:1], y[:1]), indices=[3, 7])
        >>> found.values.shape
        (1, 2)
    """

    def attribution(self, trained: Trained) -> Attribution:
        """Return the removals of a model that can be fitted again."""
        return _Refitted(trained)


class Refits(Attribution):
    """Scores that are what fitting again gives: nothing predicted, nothing linearized."""

    @property
    def calibrated(self) -> bool:
        """Whether sizes are right: they are what retraining gives."""
        return True

    @property
    def exact(self) -> bool:
        """Whether nothing is left out: these are refits."""
        return True

    @property
    def linear(self) -> bool:
        """Whether measures are linearized: no, they are evaluated."""
        return False


@final
@dataclass(frozen=True, eq=False)
class _Refitted(Refits):
    """Removals by fitting again.

    Args:
        trained: The model.
    """

    trained: Trained

    @property
    def words(self) -> str:
        """What was done."""
        return "leave-one-out: fitted again without the example"

    @property
    def loss(self) -> Loss:
        """The loss that was minimized, without smoothing."""
        return self.trained.trained_loss

    def base(self) -> Trained:
        """Return the model at its optimum: removals are measured from it."""
        return converged(self.trained)

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the actual changes, [q, k]."""
        share = shares_a_factor(self.trained, where)
        order = np.concatenate([np.flatnonzero(share), np.flatnonzero(~share)])
        parts = []
        with progress(total=len(where), desc="retraining", unit="fit") as bar:
            for part in chain(
                _together(self.trained, queries, measure, where[share]),
                _one_by_one(self.trained, queries, measure, where[~share]),
            ):
                parts.append(part)
                bar.update(part.shape[1])
        values = torch.cat(parts, 1)[:, torch.from_numpy(np.argsort(order))]
        asked = queries, measure, where, values
        own = beside_own_fits(self.trained, self.base(), *asked) if self.trained.convex else None
        said = "" if own is None else own.words
        if own is not None and own.far:
            warn_user(said)
        return values, Diagnostics(notes=(*self.trained.notes, *filter(None, [said])))


@checked
def leave_one_out(
    objective: Trained,
    indices: Indices,
    queries: Data,
    *,
    measure: MeasureLike = "loss",
) -> Floats:
    """Remove each training example, retrain for real, and return what changed.

    m_q(θ̂₋ᵢ) − m_q(θ̂), both models at their minimum, to nine digits. The row is gone as the model's
    own fit sees it: of a scikit-learn pipeline the preprocessing, class weights and the divisor of
    a mean loss are those of the other rows, each refit on its own. Where only the example's weight
    goes, all removals are refitted together, by Newton steps that share one factor of H and correct
    it for the missing example; one that does not contract quickly is refitted with fresh Hessians.
    A training recorded by `whence.train` is repeated without each example instead, as it was run.

    Args:
        objective: R at θ̂, refitted first if the fit has not converged; or a recorded training.
        indices: Positions of the k examples in the training data.
        queries: (X, y) of q queries, or of one.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b]; or one
            number of all queries, as those of `whence.measures`.

    Returns:
        Actual changes, [q, k]; in nats for the loss.

    Raises:
        UnsupportedModel: If R is not known to be convex: record its training with `whence.train`.
        InvalidInput: If queries or indices cannot be used.

    Warns:
        NotConvergedWarning: If the fit given, or a refit, has not converged.

    Cost:
        One factor of H; then 2 to 4 passes over the data per removal, as matrix products. For a
        recorded training, a training per removal.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> actual = whence.leave_one_out(objective, [3, 7], (X[:1], y[:1]))
        >>> predicted = whence.influence(objective, (X[:1], y[:1]), order="newton", indices=[3, 7])
        >>> bool(abs(actual - predicted.values).max() < 1e-8)
        True
    """
    return removals(objective, indices, queries, measure)[0]


def removals(
    trained: Trained, indices: Indices, queries: Data, measure: MeasureLike
) -> tuple[Floats, str]:
    """Return actual changes, [q, k], and what is to be said of the estimator's own fits, or "".

    Args:
        trained: As of `leave_one_out`.
        indices: The same.
        queries: The same.
        measure: The same.
    """
    scores = LeaveOneOut().fit(trained).scores(queries, measure=measure, indices=indices)
    notes = () if scores.diagnostics is None else scores.diagnostics.notes
    said = " ".join(note for note in notes if note not in trained.notes)
    return np.asarray(scores.values, dtype=np.float64), said


@singledispatch
def shares_a_factor(trained: Trained, where: Positions) -> NDArray[np.bool_]:
    """Return which removals are refitted together, by Newton steps that share one factor of H.

    Args:
        trained: The model.
        where: Positions of the k removed examples.

    Returns:
        True where a convex objective loses the example's own weight alone, or with weights of
        others, but keeps its features and does not alone determine its prediction, [k].
    """
    return np.zeros(len(where), dtype=bool)


@shares_a_factor.register
def _(trained: Objective, where: Positions) -> NDArray[np.bool_]:
    statistics = trained.statistics
    if not trained.convex or (trained.hinged and statistics is not None and statistics.reweights):
        return np.zeros(len(where), dtype=bool)
    share = ~determines_itself(trained, where)
    return share if statistics is None else share & statistics.only_weights(where)


def outputs_without(
    trained: Trained, examples: Sequence[Examples], where: Positions
) -> Iterator[tuple[Positions, list[Tensor]]]:
    """Yield the outputs of examples without each training example, a few removals at a time.

    Args:
        trained: The model, at its optimum: as `converged` gives it.
        examples: What is predicted.
        where: Positions of the k removed examples.

    Yields:
        Which of the k removals, [m], and the outputs of each set of examples, [b, c, m].
    """
    share = shares_a_factor(trained, where)
    together, alone = np.flatnonzero(share), np.flatnonzero(~share)
    for part, outputs in _outputs_together(trained, examples, where[together]):
        yield together[part], outputs
    for at, fitted in zip(alone, refits_without(trained, _each(where[alone])), strict=True):
        yield np.array([at]), [fitted.outputs(each).unsqueeze(2) for each in examples]


@singledispatch
def _outputs_together(
    trained: Trained, examples: Sequence[Examples], where: Positions
) -> Iterator[tuple[slice, list[Tensor]]]:
    """Yield outputs without examples whose removals share a factor, and which of those it is."""
    return iter(())


@_outputs_together.register
def _(
    objective: Objective, examples: Sequence[Examples], where: Positions
) -> Iterator[tuple[slice, list[Tensor]]]:
    done = 0
    for deltas in _removals(objective, objective, where) if len(where) else ():
        part = slice(done, done + deltas.shape[1])
        yield part, [objective.outputs_at(each, deltas) for each in examples]
        done = part.stop


def refit_without(trained: Trained, where: NDArray[np.intp]) -> Trained:
    """Return the model fitted once without a set of examples.

    Args:
        trained: The model.
        where: Positions of the removed examples.

    Returns:
        The fitted model.
    """
    return trained.refit(weights_without(trained.weights, where))


def refits_without(trained: Trained, sets: Sequence[NDArray[np.intp]]) -> Iterator[Trained]:
    """Yield the models fitted without each of several sets of examples, in order.

    Args:
        trained: The model.
        sets: Positions of the removed examples, of each set.

    Yields:
        The fitted models. The weights of as many as fit in 32 MB, or are fitted at once, are held.
    """
    few = max(trained.together, _WEIGHTS // len(trained.weights))
    for part in tiles(len(sets), most=few, budget=few):
        rest = [weights_without(trained.weights, where) for where in sets[part]]
        yield from trained.refits(torch.stack(rest))


def _each(where: Positions) -> list[Positions]:
    """Return a set of one example for each position."""
    return [where[at : at + 1] for at in range(len(where))]


def _one_by_one(
    trained: Trained, queries: Examples, measure: Measure, where: Positions
) -> Iterator[Tensor]:
    """Yield the changes [q, 1] of removals, each a fit of its own; the full fit is repeated too."""
    if not len(where):
        return
    answers = _answers(trained, queries, [where[:0], *_each(where)])
    before = measure(next(answers), queries.targets)
    for outputs in answers:
        yield (measure(outputs, queries.targets) - before).unsqueeze(1)


@singledispatch
def _answers(trained: Trained, queries: Examples, sets: Sequence[Positions]) -> Iterator[Tensor]:
    """Yield the outputs of queries after refits without each of several sets of examples."""
    return (fitted.outputs(queries) for fitted in refits_without(trained, sets))


_answers.register(answers)


@singledispatch
def _together(
    trained: Trained, queries: Examples, measure: Measure, where: Positions
) -> Iterator[Tensor]:
    """Yield the changes [q, m] of removals that share a factor of H, block by block."""
    return iter(())


@_together.register
def _(
    objective: Objective, queries: Examples, measure: Measure, where: Positions
) -> Iterator[Tensor]:
    if not len(where):
        return
    base = minimum(objective)
    for deltas in _removals(base, _nearby(objective, base, len(where)), where):
        yield measure_changes(base, queries, measure, deltas)


def _nearby(objective: Objective, base: Objective, k: int) -> Objective:
    """Return the model whose curvature the refitting steps share: the user's fit where it is good.

    Its factor may exist already, and every step has the exact gradient.
    """
    if objective is base or objective.hinged:
        return base
    c = objective.outputs(objective.train.subset(np.arange(1))).shape[1]
    quality = fit_quality(objective, prepare(objective, k * c))
    return objective if quality.in_examples <= 1 else base


def _removals(objective: Objective, nearby: Objective, where: NDArray[np.intp]) -> Iterator[Tensor]:
    """Yield the parameter changes [p, m] of the removals, block by block."""
    if objective.hinged:
        yield fit_hinge(objective).without(where)
        return
    c = objective.outputs(objective.train.subset(where[:1])).shape[1]
    inverse = prepare(nearby, len(where) * c).inverse
    for tile in change_tiles(objective, len(where), c):
        yield _refit_together(objective, removal(objective, inverse, where[tile]), where[tile])


def _refit_together(
    objective: Objective, change: SingleChanges | Reweightings, where: NDArray[np.intp]
) -> Tensor:
    """Return the parameter changes of several removals, each to nine digits by √(∇ᵀ H⁻¹ ∇)."""
    deltas = change.newton()
    first = -(change.initial_gradient() * deltas).sum(0).clamp_max(0)
    enough = _CONVERGED * first.sqrt() + negligible(objective) ** 0.5
    active = torch.arange(len(where), device=deltas.device)
    previous = deltas.new_full((len(where),), torch.inf)
    alone: list[int] = []
    while len(active):
        part = change.select(active)
        left = part.gradient(deltas[:, active])
        step = part.solve(left)
        sizes = (left * step).sum(0).clamp_min(0).sqrt()
        far, contracts = sizes > enough[active], sizes < _CONTRACTION * previous
        alone += active[far & ~contracts].tolist()
        deltas[:, active] -= step
        active, previous = active[far & contracts], sizes[far & contracts]
    for column in alone:
        rest = weights_without(objective.weights, where[column : column + 1])
        fitted = objective.refit(rest)
        deltas[:, column] = fitted.params - objective.params
    return deltas
