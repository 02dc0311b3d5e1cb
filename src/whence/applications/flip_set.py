"""Flip sets: a small set of training examples whose removal changes a prediction."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.applications.queries import Inputs, encoded
from whence.applications.retrainings import fewest, is_cheap, keeping_classes
from whence.applications.shown import indispensable, refits_preprocessing
from whence.arrays import Floats
from whence.checked import checked
from whence.errors import InvalidInput
from whence.methods.choose import chosen
from whence.methods.converged import converged
from whence.methods.leave_one_out import refit_without, refits_without
from whence.methods.method import Method
from whence.methods.model_quality import model_quality
from whence.methods.own_fits import warn_beside_own_fit
from whence.methods.sets import values_of
from whence.objective.losses import measure_of
from whence.objective.removed import weights_without
from whence.objective.trained import Data, Examples, Trained
from whence.pages import write
from whence.progress import progress
from whence.result import Card, Result
from whence.views.answer import class_names
from whence.views.made import Made
from whence.views.results import flip_page

_POINTS = 8  # of the course that a page draws
_REFINED = 30  # examples whose effects are refined
_RERANKED = 4  # examples of a set from which on its second half is ranked again


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class FlipSet(Result):
    """Training examples whose removal changes a prediction, found by `flip_set`.

    Args:
        positions: Their positions, the most supportive first, [m]; empty if none was found.
        ids: The user's names of them, [m].
        n: The number of training examples.
        outputs_before: The model's outputs of the query, [1, c].
        outputs_after: The same after retraining without the set, or the largest set tried, [1, c].
        tried: How many sets were retrained without.
        trained: The model.
        query: The one query.
        labeled: Whether its label is known; if not, it is what the model predicts.
    """

    positions: NDArray[np.intp]
    ids: NDArray[Any]
    n: int
    outputs_before: Tensor
    outputs_after: Tensor
    tried: int
    trained: Trained
    query: Examples
    labeled: bool

    @property
    def before(self) -> int:
        """The predicted class, as a position among the classes."""
        return _predicted(self.outputs_before)

    @property
    def after(self) -> int:
        """The predicted class after retraining; `before` if no set was found."""
        return _predicted(self.outputs_after)

    @property
    def lead_before(self) -> float:
        """Output of the predicted class less the largest other; log odds where binary."""
        return _ahead(self.outputs_before, self.before)

    @property
    def lead_after(self) -> float:
        """The same after retraining; negative where the prediction has changed."""
        return _ahead(self.outputs_after, self.before)

    @property
    def found(self) -> bool:
        """Whether removing the set flips the prediction, as retraining has shown."""
        return self.before != self.after

    @checked
    def report(
        self,
        path: str | os.PathLike[str],
        *,
        held_out: Data | None = None,
        image_shape: tuple[int, ...] | None = None,
        title: str = "How few training examples carry this answer?",
        about: Sequence[str] = (),
        command: str = "flip_set(objective, query).report(path)",
    ) -> Path:
        """Write the set, the answer with and without it, and the course between as one HTML page.

        Args:
            path: The file; an existing one is replaced, whole or not at all.
            held_out: (X, y) that the model was not fitted on, to say how good it is.
            image_shape: (h, w) or (h, w, 3) if a row is an image laid out flat.
            title: The heading.
            about: Which data and model these are, a sentence each; the first stands on top.
            command: What reproduces the page; shown at its end.

        Returns:
            The path.

        Raises:
            InvalidInput: If the path cannot be written.

        Cost:
            About nine retrainings.
        """
        m = len(self.positions)
        sizes = sorted({round(m * step / _POINTS) for step in range(1, _POINTS + 1)} - {0})
        refits = list(refits_without(self.trained, [self.positions[:size] for size in sizes]))
        leads = map(self._shown_lead, (self.trained, *refits))
        course = list(zip((0, *sizes), leads, strict=True))
        names = class_names(self.trained)
        said = f"Without {m:,} of {self.n:,} training examples the model says “{names[self.after]}”"
        page = flip_page(
            self.trained,
            refits[-1] if refits else self.trained,
            self.query,
            self.positions,
            course,
            said=f"{said} instead of “{names[self.before]}”."
            if self.found
            else "No set was found without which the model says something else.",
            labeled=self.labeled,
            tried=self.tried,
            quality=model_quality(self.trained, held_out),
            made=Made(title=title, about=tuple(about), command=command, image_shape=image_shape),
        )
        return write(page, path)

    def _shown_lead(self, model: Trained) -> float:
        """Return by how much the predicted class is ahead: in points, or of outputs."""
        outputs = model.outputs(self.query)
        shares = model.loss.probabilities(outputs)
        of = (_per_class(outputs) if shares is None else 100 * shares)[0]
        others = [c for c in range(len(of)) if c != self.before]
        rival = self.after if self.found else max(others, key=lambda c: float(of[c]))
        return float(of[self.before] - of[rival])

    def _fall(self) -> str:
        """Return how far the predicted class falls: its probability where there is one."""
        both = self.trained.loss.probabilities(torch.cat([self.outputs_before, self.outputs_after]))
        if both is None:
            return f"its lead falls from {self.lead_before:.3g} to {self.lead_after:.3g}"
        before, after = (f"{100 * share:.1f} %" for share in both[:, self.before].tolist())
        return f"P({class_names(self.trained)[self.before]}) falls from {before} to {after}"

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each example of the set: its id and position, in order of removal."""
        return pd.DataFrame({"id": self.ids, "position": self.positions})

    def card(self) -> Card:
        """Return the outcome, and the first of the set."""
        facts = {"retrained": f"{self.tried} times"}
        if not self.found:
            title = f"no set found whose removal flips the prediction ({self.tried} retrained)"
            if not self.tried:
                title = (
                    "no set tried: no single removal lowers the lead of the prediction. Another "
                    "method=, such as whence.KNNShapley() of neighbors, ranks examples otherwise"
                )
            return Card(title=title, facts=facts)
        names = class_names(self.trained)
        return Card(
            title=f"without {len(self.positions)} of {self.n} training examples "
            f"“{names[self.before]}” becomes “{names[self.after]}”: retrained, {self._fall()}",
            facts={"removed": f"{len(self.positions):,} of {self.n:,}", **facts},
            table=self.to_frame(),
        )


@checked
def flip_set(
    objective: Trained,
    query: Data | Inputs,
    *,
    largest: int | None = None,
    method: Method | None = None,
) -> FlipSet:
    """Find a small set of training examples whose removal flips a prediction, by retraining.

    Examples are ranked by how much of the predicted class's lead is gone without them. The first
    m of the ranking are removed for real: m grows from the predicted number until the prediction
    flips, then is bisected. Where a dozen refits take seconds, the effects of the first 30 are
    refined, and the rest is ranked again without those that are gone: without half of the set, and
    where no prefix flips. A smaller set may exist.

    Args:
        objective: A classifier that can be fitted again: convex, or a recorded training.
        query: x or (x, y) of one query; y may be any class, the prediction is what is flipped.
        method: What ranks the examples; `whence.Influence` if `None`.
        largest: Give up above this many examples, >= 1; half of them if `None`.

    Returns:
        The set, and what retraining without it predicts.

    Raises:
        InvalidInput: If it is not one query, or the model has no classes.
        UnsupportedModel: If the objective cannot be retrained.

    Cost:
        A few solves, 30 refined effects each, and about ten retrainings from θ̂.

    References:
        Yang, Jain & Wallace (2023), "How many and which training points would need to be removed
        to flip this prediction?", algorithm 1.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_breast_cancer
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.preprocessing import scale
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> X = scale(X)
        >>> model = LogisticRegression(tol=1e-8).fit(X[100:], y[100:])
        >>> found = whence.flip_set(whence.from_sklearn(model, X[100:], y[100:]), (X[13], y[13]))
        >>> found.found, found.lead_after < 0
        (True, True)
    """
    base = converged(objective)
    queries, labeled = encoded(base, query)
    n = len(base.train)
    largest = n // 2 if largest is None else largest
    if not (base.classes or base.loss.classifies):
        raise InvalidInput(
            "Expected a model that says one of several labels, as a flip set turns one into "
            "another. Got one that predicts a quantity. whence.explain says which examples push it "
            "up and down."
        )
    if len(queries) != 1 or largest < 1:
        raise InvalidInput(
            "Expected one query, and largest >= 1. "
            f"Got {len(queries)} queries and largest={largest}."
        )
    outputs = base.outputs(queries)
    before, runner_up = _ordered(outputs)[:2].tolist()

    def lead(of: Tensor, targets: Tensor) -> Tensor:
        columns = _per_class(of)
        return columns[:, before] - columns[:, runner_up]

    ranked_by, most = chosen(base, method), min(largest, n - 1)
    with progress(total=None, desc="removing together", unit="fit") as bar:
        search = _Search(base, queries, ranked_by, lead, before, most, bar.update)
        found = search.found()
    removed = found if search.flips(found) else found[:0]
    after = search.outputs(found)
    if len(removed):
        value = partial(values_of, queries=queries, measure=lead, loss=base.loss)
        moved = lead(after, queries.targets) - value(base)
        rest = weights_without(base.weights, removed)
        warn_beside_own_fit(objective, base, queries, value, moved, objective, rest)
    return FlipSet(
        positions=removed,
        ids=base.train.ids[removed],
        n=n,
        outputs_before=outputs,
        outputs_after=after,
        tried=search.tried,
        trained=base,
        query=queries,
        labeled=labeled,
    )


class _Search:
    """A search for few examples whose removal flips a prediction, each set refitted once.

    Args:
        trained: The model, at its optimum.
        query: One query.
        method: What ranks the examples.
        lead: How far the predicted class leads the runner-up, by which examples are ranked.
        before: That class.
        largest: The most examples to remove.
        done: Called after each refit.
    """

    def __init__(
        self,
        trained: Trained,
        query: Examples,
        method: Method,
        lead: Callable[[Tensor, Tensor], Tensor],
        before: int,
        largest: int,
        done: Callable[[], object],
    ) -> None:
        self.trained, self.query, self.method = trained, query, method
        self.lead, self.before, self.largest, self.done = lead, before, largest, done
        self.cheap = is_cheap(trained)
        self._outputs: dict[bytes, Tensor] = {}

    @property
    def tried(self) -> int:
        """How many sets were removed."""
        return len(self._outputs)

    def found(self) -> NDArray[np.intp]:
        """Return the smallest set found, or one that does not flip the prediction."""
        best = self._prefix(np.empty(0, dtype=np.intp))
        while self.cheap and not self.flips(best) and len(best) < self.largest:
            longer = self._prefix(best)  # what the removed held in its place may push now
            if len(longer) == len(best):
                break
            best = longer
        if self.cheap and self.flips(best) and len(best) >= _RERANKED:
            other = self._prefix(best[: len(best) // 2])
            if self.flips(other) and len(other) < len(best):
                best = other
        return best

    def flips(self, where: NDArray[np.intp]) -> bool:
        """Return whether the prediction flips without some examples, by refitting."""
        return _predicted(self.outputs(where)) != self.before

    def outputs(self, where: NDArray[np.intp]) -> Tensor:
        """Return the query's outputs of the model fitted again without some examples, [1, c]."""
        if not len(where):
            return self.trained.outputs(self.query)
        key = np.sort(where).tobytes()
        if key not in self._outputs:
            self._outputs[key] = refit_without(self.trained, where).outputs(self.query)
            self.done()
        return self._outputs[key]

    def _prefix(self, gone: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the shortest prefix that flips of a ranking that begins with some examples.

        The others are ranked by the model without these. Where no prefix flips the prediction, it
        is the whole ranking.
        """
        model = refit_without(self.trained, gone) if len(gone) else self.trained
        effects = self._effects(model)
        effects[gone] = 0
        order = np.argsort(effects, kind="stable")
        order = order[effects[order] < 0][: self.largest - len(gone)]
        ranking = np.concatenate([gone, order])
        ranking = ranking[: keeping_classes(self.trained, ranking)]
        low, last = len(gone), len(ranking)
        lead = float(self.lead(model.outputs(self.query), self.query.targets)[0])
        enough = np.flatnonzero(lead + np.cumsum(effects[order]) <= 0)
        guess = low + int(enough[0]) + 1 if len(enough) else last
        return ranking[: fewest(low, guess, last, lambda m: self.flips(ranking[:m]))]

    def _effects(self, model: Trained) -> Floats:
        """Return what each removal does to the lead: refined for the first where cheap, [n]."""
        fitted = self.method.fit(model)
        scores = fitted.scores_to_rank(self.query, self.lead)
        quantity = measure_of(fitted.loss, self.lead)
        values = np.array(fitted.ranking_values(self.query, quantity, scores.values)[0])
        needed = indispensable(model)
        values[needed] = 0  # not to be removed
        finer = self.method.refined() if self.cheap and not refits_preprocessing(model) else None
        if finer is not None:
            first = np.setdiff1d(np.argsort(values, kind="stable")[:_REFINED], needed)
            refined = finer.fit(model).scores(self.query, measure=self.lead, indices=first)
            values[first] = refined.values[0]
        return values


def _per_class(outputs: Tensor) -> Tensor:
    """Return an output for each class, [b, c]: of one output, half the log odds either way."""
    return torch.cat([-outputs, outputs], 1) / 2 if outputs.shape[1] == 1 else outputs


def _predicted(outputs: Tensor) -> int:
    """Return the most likely class of one query."""
    return int(_ordered(outputs)[0])


def _ordered(outputs: Tensor) -> Tensor:
    """Return the classes of one query, the most likely first."""
    return _per_class(outputs)[0].argsort(descending=True)


def _ahead(outputs: Tensor, label: int) -> float:
    """Return how far a class leads all others for one query; negative where it does not."""
    of = _per_class(outputs)[0]
    others = of[torch.arange(len(of), device=of.device) != label]
    return float(of[label] - others.max())
