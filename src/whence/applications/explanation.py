"""The result of `explain`: training examples, their effects, and the check by retraining."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from whence.applications.firmness import firmness
from whence.applications.shown import indispensable, shown_by
from whence.applications.stability import Stability
from whence.applications.together import Together, together
from whence.checked import checked
from whence.errors import InvalidInput, UnsupportedModel
from whence.evaluation.agreement import Agreement, agreement
from whence.methods.expected_removal import expected_removals
from whence.methods.leave_one_out import removals
from whence.methods.method import Method
from whence.methods.model_quality import ModelQuality, model_quality
from whence.methods.other_orders import chance_of
from whence.methods.prediction import MeasureLike, as_array
from whence.objective.losses import measure_of
from whence.objective.trained import Data, Examples, Trained
from whence.pages import write
from whence.result import Card, Result
from whence.scores import Diagnostics, Scores
from whence.views import printed
from whence.views.answer import words_of_two
from whence.views.explained import Display, Explained
from whence.views.explanation import explanation_page
from whence.views.quantity import Quantity, quantity_of
from whence.views.sequences import Decode

_LEAST_ERROR = 1e-3  # of the largest effect shown: what a refit of a library may itself be off
_PARTS = 10  # random parts of the data over which a removal's mean effect is taken
_VERIFIED = 20  # removals that a page of a convex model retrains


@dataclass(frozen=True)
class Effect:
    """What one training example does to the query.

    Args:
        id: The user's name of the example.
        position: Its position in the training data.
        effect: Predicted change of the query's measure if it is removed; nats for the loss.
        first: The same before it was refined: of all examples, by the method asked for.
    """

    id: Any
    position: int
    effect: float
    first: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Explanation(Result):
    """The training examples behind one prediction, those that push it either way.

    Args:
        trained: The model.
        query: The one query.
        labeled: Whether its label is known; if not, it is what the model predicts.
        method: What scores all training examples.
        scores: Scores of all training examples, [1, n].
        shown: Effects of the candidates, refined or by removal where that is quick, [1, m].
        sized: Whether the sizes of `shown` are to be trusted, and not only their order.
        k: How many examples are shown on each side.
        measure: What is predicted.
        reason: Why the method was chosen, where the user named none; empty for influence.
        against: The other answer, where scores are differences between two; else `None`.
    """

    trained: Trained
    query: Examples
    labeled: bool
    method: Method
    scores: Scores
    shown: Scores
    sized: bool
    k: int
    measure: MeasureLike
    reason: str = ""
    against: Examples | None = None

    @property
    def raising(self) -> tuple[Effect, ...]:
        """The examples that push the quantity up, at most k: without them it would be lower."""
        return self._side(1 if self.quantity.rising else -1)

    @property
    def lowering(self) -> tuple[Effect, ...]:
        """The examples that push the quantity down, at most k: without them it would be higher."""
        return self._side(-1 if self.quantity.rising else 1)

    @property
    def helpful(self) -> tuple[Effect, ...]:
        """The examples that push to the query's label, at most k, the strongest first."""
        return self.raising if self._raising_helps else self.lowering

    @property
    def harmful(self) -> tuple[Effect, ...]:
        """The examples that push away from the query's label, at most k, the strongest first."""
        return self.lowering if self._raising_helps else self.raising

    @cached_property
    def groups(self) -> tuple[Together, ...]:
        """Near-duplicates that do more together than one of them alone, the strongest first."""
        effects = [abs(one.effect) for one in (*self.raising, *self.lowering) if one.effect]
        every = len(self.scores.positions) == len(self.trained.train)
        if not effects or not every or self.against is not None:
            return ()
        asked = self.trained, self.query, self.measure, self.scores
        return together(*asked, least=min(effects))

    @cached_property
    def quantity(self) -> Quantity:
        """How the measure is read: its name, its unit, and which way an example pushes."""
        unit = self.method.fit(self.trained).unit
        return quantity_of(self.trained, self.query, self.measure, unit=unit, other=self.against)

    @property
    def diagnostics(self) -> Diagnostics | None:
        """How far the numbers can be trusted."""
        return self.shown.diagnostics

    @property
    def quality(self) -> ModelQuality | None:
        """How good the model is on what it has not seen, where that is quickly known."""
        return model_quality(self.trained)

    @cached_property
    def value(self) -> float:
        """The query's measure as it is, less that of the other answer if there is one."""
        measure, outputs = measure_of(self.trained.loss, self.measure), self.trained.outputs
        asked = (self.query,) if self.against is None else (self.query, self.against)
        numbers = [float(as_array(measure(outputs(each), each.targets))[0]) for each in asked]
        return numbers[0] - sum(numbers[1:])

    @checked
    def verify(self, k: int = _VERIFIED, *, subsets: int | None = None) -> Agreement:
        """Remove k examples one by one, retrain, and compare with what was predicted.

        Those that are shown come first, then the other candidates, then all others; the strongest
        of each first. Where a fit depends on the order of its examples, as in batches, fits in
        other orders say what of a change is chance, `.chance`. Where it jumps as one example goes,
        as of trees, the mean change over random parts of the data is compared too, `.expected`.
        `.own_fits` says where the estimator's own fits stop before the minimum of its retraining.

        Args:
            k: How many removals to retrain.
            subsets: Over how many random nine tenths of the data the mean change is taken; 0 for
                none. If `None`, 10 for a model that jumps and none for another.

        Returns:
            Predicted against actual changes, with R and slope.

        Raises:
            InvalidInput: If k < 1, or subsets = 1.
            UnsupportedModel: If the model cannot be trained again.

        Cost:
            k retrainings, k + 1 more for each subset, and five more in other orders.
        """
        if k < 1:
            raise InvalidInput(f"Expected k >= 1 removals to retrain. Got {k}.")
        where = self._strongest(k)
        actual, said = removals(self.trained, where, self.query, self.measure)
        if self.against is not None:
            actual = actual - removals(self.trained, where, self.against, self.measure)[0]
        ids, told = self.trained.train.ids[where], self._predicted(where).values.astype(np.float64)
        found = replace(agreement(told, actual, ids, where), own_fits=said)
        if self.against is not None:
            return found
        parts = (_PARTS if self.trained.jumps else 0) if subsets is None else subsets
        quantity = measure_of(self.trained.trained_loss, self.measure)
        found = replace(found, chance=chance_of(self.trained, self.query, quantity))
        removed = self.trained, where, self.query, quantity
        expected = expected_removals(*removed, subsets=parts) if parts else None
        return replace(found, expected=expected)

    def intervals(self) -> pd.DataFrame:
        """Return each shown effect with the interval in which a refit is expected.

        An effect is predicted twice: as it is shown, and by the next rougher order. What the last
        correction was worth bounds what is still left out as long as corrections shrink: effect ±
        |effect − rougher|, and never less than 0.1 % of the largest effect shown. Where the refined
        order finds the minimum itself, as of hinges and L1 penalties, only that is left.

        Returns:
            A frame with id, position, effect, low and high in the measure's unit, largest first.

        Raises:
            UnsupportedModel: If the effects shown are not refined: their size has no estimate.

        Cost:
            A Newton step per example shown.

        Examples:
            >>> import whence
            >>> from sklearn.datasets import load_iris
            >>> from sklearn.linear_model import LogisticRegression
            >>> X, y = load_iris(return_X_y=True)
            >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X[1:], y[1:])
            >>> objective = whence.from_sklearn(model, X[1:], y[1:])
            >>> found = whence.explain(objective, (X[:1], y[:1]), k=3).intervals()
            >>> bool((found["low"] < found["effect"]).all())
            True
        """
        exact = self._showing.fit(self.trained).exact
        rougher = self._showing.rougher() if self.sized else None
        if rougher is None and not exact:
            raise UnsupportedModel(
                "Expected refined effects, as of a convex model scored by whence.Influence. Got "
                f"{self.shown.method}. Ask explanation.verify() for the error of its scores."
            )
        frame = self.to_frame().rename(columns={"score": "effect"})[["id", "position", "effect"]]
        error = _LEAST_ERROR * frame["effect"].abs().max()
        if rougher is not None and not exact and len(frame):
            where = frame["position"].to_numpy(dtype=np.intp)
            fitted = rougher.fit(self.trained)
            before = fitted.scores(self.query, measure=self.measure, indices=where).values[0]
            error = np.maximum(np.abs(frame["effect"] - before), error)
        return frame.assign(low=frame["effect"] - error, high=frame["effect"] + error)

    @checked
    def report(
        self,
        path: str | os.PathLike[str],
        *,
        verify: int | None = None,
        verification: Agreement | None = None,
        stability: Stability | None = None,
        held_out: Data | None = None,
        image_shape: tuple[int, ...] | None = None,
        texts: Sequence[str] | None = None,
        query_text: str | None = None,
        decode: Decode | None = None,
        title: str | None = None,
        query_name: str | None = None,
        about: Sequence[str] = (),
        command: str = "explanation.report(path)",
    ) -> Path:
        """Write the explanation as one self-contained HTML page.

        Args:
            path: The file; an existing one is replaced, whole or not at all.
            verify: How many removals to retrain for the page; 0 retrains nothing. If `None`, 20 of
                a convex model and none of another.
            verification: A verification made before, instead of a new one.
            stability: What `whence.stability` found for this query alone, for the page to say.
            held_out: (X, y) that the model was not fitted on, to say how good it is. If `None`, a
                linear model is judged on training examples predicted without themselves.
            image_shape: (h, w) or (h, w, 3) if a row is an image laid out flat.
            texts: The training examples as texts, [n], where the rows are made from texts.
            query_text: The query as a text.
            decode: From a list of token numbers to text, such as a tokenizer's decode, where the
                inputs are tokens; the numbers are shown if `None`.
            title: The heading; made of the answer if `None`.
            query_name: What the query is called, such as "row 17".
            about: Which data and model these are, a sentence each; the first stands on top.
            command: What reproduces the page; shown at its end.

        Returns:
            The path.

        Raises:
            InvalidInput: If the path cannot be written, or image_shape or texts do not fit.
            UnsupportedModel: If verify > 0 and the model cannot be trained again.

        Cost:
            The retrainings; of a quick convex model twenty more, of the strongest together.
        """
        n = len(self.trained.train)
        if texts is not None and len(texts) != n:
            raise InvalidInput(f"Expected {n} texts, one per training example. Got {len(texts)}.")
        again = (_VERIFIED if self.trained.convex else 0) if verify is None else verify
        if self.against is not None:
            asked, words = words_of_two(self.trained, self.query, self.against, decode)
            title, about = title or asked, (*about, words)
        if verification is None and again:
            verification = self.verify(again)
        firm = firmness(self._parts(), self.scores) if again and self.against is None else None
        quality = model_quality(self.trained, held_out)
        display = Display(
            image_shape=image_shape,
            texts=texts,
            query_text=query_text,
            decode=decode,
            title=title,
            query_name=query_name,
            about=about,
            command=command,
            statuses=() if stability is None else stability.statuses(),
        )
        page = explanation_page(self._parts(), verification, firm, quality, display)
        return write(page, path)

    def to_frame(self) -> pd.DataFrame:
        """Return the shown examples, largest first: id, position, effect, first; or score alone."""
        effects = [asdict(effect) for effect in (*self.raising, *self.lowering)]
        frame = pd.DataFrame(effects, columns=["id", "position", "effect", "first"])
        frame = frame.sort_values("effect", ascending=False, kind="stable", ignore_index=True)
        unsized = frame.drop(columns="first").rename(columns={"effect": "score"})
        return frame if self.sized else unsized

    def __str__(self) -> str:
        """Return the examples with what the answer would be without each, in words."""
        return "\n".join([*self.lines(), *printed.positions(self._parts())])

    def lines(self) -> list[str]:
        """Return what `print` shows, without what tells the names of a table from positions."""
        return printed.lines(self._parts(), self.quality)

    def card(self) -> Card:
        """Return what the model says, and what the answer would be without each example."""
        parts, quantity = self._parts(), self.quantity
        decimals = printed.decimals_of(parts)
        return Card(
            title=printed.said(parts),
            facts={quantity.name: quantity.text(quantity.read(self.value), decimals)},
            table=pd.DataFrame(printed.rows(parts)),
            words=tuple(self.lines()[-1:] if self.quality is not None else ()),
        )

    def _predicted(self, where: NDArray[np.intp]) -> Scores:
        """Return the effects of some examples: those that are shown, or predicted like them."""
        if np.isin(where, self.shown.positions).all():
            return self.shown.at(where)
        fitted = self._showing.fit(self.trained)
        return fitted.scores(self.query, measure=self.measure, indices=where)

    @property
    def _raising_helps(self) -> bool:
        """Whether examples that push the quantity up push to the label."""
        target = self.query.targets[0] if self.labeled else None
        return self.quantity.raising_helps(self.value, target)

    @property
    def _showing(self) -> Method:
        """The method whose scores are shown."""
        return shown_by(self.method, self.trained)

    def _parts(self) -> Explained:
        """Return what the page shows of this."""
        words = f"{self.shown.method}."
        if self.shown.method != self.scores.method:
            words = f"Effects: {words} Candidates: {self.scores.method}."
        return Explained(
            trained=self.trained,
            query=self.query,
            labeled=self.labeled,
            measure=self.measure,
            quantity=self.quantity,
            value=self.value,
            method=self.method,
            attribution=self.method.fit(self.trained),
            raising=tuple((effect.position, effect.effect) for effect in self.raising),
            lowering=tuple((effect.position, effect.effect) for effect in self.lowering),
            sized=self.sized,
            exact=self._showing.fit(self.trained).exact,
            diagnostics=self.diagnostics,
            words=f"{words} {self.reason}".rstrip(),
            reason=self.reason,
            groups=tuple((group.positions, group.effect) for group in self.groups),
        )

    def _strongest(self, k: int) -> NDArray[np.intp]:
        """Return positions of k examples: those shown, other candidates, all that may go."""
        shown = sorted((*self.raising, *self.lowering), key=lambda e: -abs(e.effect))
        others = self.shown.largest(len(self.shown.positions)).positions[0]
        needed = indispensable(self.trained)
        most = min(len(self.scores.positions), k + len(needed))
        rest = self.scores.largest(most).positions[0]
        rest = rest[~np.isin(rest, needed)]
        order = dict.fromkeys([*(e.position for e in shown), *others.tolist(), *rest.tolist()])
        return np.array(list(order)[:k], dtype=np.intp)

    def _side(self, sign: int) -> tuple[Effect, ...]:
        """Return the examples whose sign × effect is negative, the most negative first.

        Where another neighbor takes over the vote, nothing changes: the score tells the side.
        """
        effects, where = self.shown.values[0], self.shown.positions
        first = self.scores.at(where).values[0]
        side = np.where((effects == 0) & self.trained.instant, first, effects)
        order = np.lexsort((sign * first, sign * effects))
        order = order[sign * side[order] < 0][: self.k]
        names = self.shown.train_ids[order].tolist()
        return tuple(
            Effect(id=name, position=int(where[i]), effect=float(effects[i]), first=float(first[i]))
            for name, i in zip(names, order, strict=True)
        )
