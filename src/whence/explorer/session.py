"""One exploration: a model, its predictions, and the steps that were taken on its data."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whence.arrays import Floats
from whence.errors import InvalidInput, WhenceError
from whence.explorer.steps import Step
from whence.methods.choose import chosen
from whence.methods.method import Method
from whence.methods.model_quality import ModelQuality, model_quality
from whence.methods.prediction import MeasureLike
from whence.objective.cache import cached
from whence.objective.losses import measure_of
from whence.objective.trained import Examples, Trained
from whence.views.answer import class_names, label_of, predicted_labels, said_of
from whence.views.quantity import Quantity, default_measure, quantities_of

_CHUNK = 4  # predictions that are scored together: whoever asks meanwhile waits for one chunk
_NUMBERS = 2e8  # scores of predictions by training rows that are held: 0.8 GB in float32


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """What is explored.

    Args:
        trained: The model as it was fitted.
        queries: The predictions that are looked at.
        names: What they are called, one each.
        labeled: Whether their labels are known.
        about: Which data and model these are, a sentence each.
        origin: Python lines that make `model` and `queries` again.
        command: What opens the explorer again.
        method: What scores training examples; the model's default if `None`.
    """

    trained: Trained
    queries: Examples
    names: tuple[str, ...]
    labeled: bool
    about: tuple[str, ...]
    origin: str
    command: str
    method: Method | None = None

    def __post_init__(self) -> None:
        q, n = len(self.queries), len(self.trained.train)
        if not q or q * n > _NUMBERS:
            raise InvalidInput(
                f"Expected between 1 and {int(_NUMBERS // n):,} predictions of a model of {n:,} "
                f"examples. Got {q:,}. Ask about another number of rows."
            )


@dataclass(frozen=True, kw_only=True)
class Done:
    """A step that was taken, and what came of it.

    Args:
        step: The step.
        query: Position of the prediction that was looked at.
        words: What was done.
        before: What the model said of that prediction before.
        after: What it says after retraining.
        accuracy: How good the model was on the predictions before and after, in words.
    """

    step: Step
    query: int
    words: str
    before: str
    after: str
    accuracy: tuple[str, str]


@dataclass(frozen=True, eq=False, kw_only=True)
class State:
    """The model after some steps.

    Args:
        subject: What is explored.
        model: The model as it is now.
        done: The steps that led to it, the first one first.
    """

    subject: Subject
    model: Trained
    done: tuple[Done, ...] = ()

    def query(self, at: int) -> Examples:
        """Return one of the predictions.

        Args:
            at: Its position.

        Raises:
            InvalidInput: If there is none.
        """
        q = len(self.subject.queries)
        if not 0 <= at < q:
            raise InvalidInput(f"Expected a prediction from 0 to {q - 1}. Got {at}.")
        return self.subject.queries.subset(np.array([at]))

    @property
    def measure(self) -> MeasureLike:
        """What is scored: what the model answers."""
        return default_measure(self.subject.trained, self.query(0))

    @property
    def quality(self) -> ModelQuality | None:
        """How good the model is on the predictions, where their labels are known."""
        if not self.subject.labeled:
            return None
        return model_quality(self.model, self.subject.queries)

    @property
    def accuracy(self) -> str:
        """The same in words; empty where it is not known."""
        quality = self.quality
        if quality is None:
            return ""
        if quality.accuracy is not None:
            return f"accuracy {quality.accuracy:.1%} on {quality.n:,} held-out rows"
        return f"error {quality.error:.4g} on {quality.n:,} held-out rows"

    def scores(self) -> Floats:
        """Return what each training example does to each prediction, [q, n], to first order."""
        return np.concatenate([self.chunk(at) for at in range(self.chunks)])

    @property
    def chunks(self) -> int:
        """How many chunks of predictions are scored one after the other."""
        return -(-len(self.subject.queries) // _CHUNK)

    def chunk(self, at: int) -> Floats:
        """Return the scores of the predictions of one chunk, computed once."""
        key = self.subject, "scores", at
        found: Floats = cached(self.model, key, partial(_scores, state=self, chunk=at))
        return found

    def values(self) -> Floats:
        """Return the measure of each prediction, [q]."""
        queries, model = self.subject.queries, self.model
        measure = measure_of(model.loss, self.measure)
        return np.asarray(measure(model.outputs(queries), queries.targets).cpu().double().numpy())

    def quantities(self) -> list[Quantity]:
        """Return how the measure of each prediction is read."""
        key = self.subject, "quantities"
        queries, measure = self.subject.queries, self.measure
        found: list[Quantity] = cached(
            self.model, key, lambda model: quantities_of(model, queries, measure)
        )
        return found

    def predicted(self) -> list[str]:
        """Return what the model says of each prediction."""
        queries, model = self.subject.queries, self.model
        outputs = model.outputs(queries)
        if class_names(model):
            return predicted_labels(model, outputs)
        if outputs.ndim == 2 and model.loss.regresses and outputs.shape[1] == 1:
            said = model.loss.prediction(outputs, queries.targets)
            return [label_of(model, value) for value in said]
        return [""] * len(queries)

    def residuals(self) -> Floats | None:
        """Return predicted less actual numbers of a regression, [q]; `None` of other models."""
        queries, model = self.subject.queries, self.model
        outputs = model.outputs(queries)
        single = outputs.ndim == 2 and outputs.shape[1] == 1
        if class_names(model) or not self.subject.labeled or not model.loss.regresses or not single:
            return None
        said = model.loss.prediction(outputs, queries.targets).double()
        return np.asarray((said.reshape(-1) - queries.targets.reshape(-1).double()).cpu().numpy())

    def changes(self, at: int) -> Floats:
        """Return by how much the answer would rise without each example, to first order, [n]."""
        quantity = self.quantities()[at]
        scores: Floats = self.chunk(at // _CHUNK)[at % _CHUNK]
        return scores if quantity.rising else -scores

    def removed(self) -> NDArray[np.bool_]:
        """Return which training examples are not in the fit, [n]."""
        return np.asarray((self.model.weights == 0).cpu().numpy(), dtype=np.bool_)

    def after(self, step: Step, query: int) -> State:
        """Return the state after a step, the model retrained for real.

        Args:
            step: The step.
            query: Position of the prediction that is looked at.
        """
        model = step.apply(self.model)
        after = replace(self, model=model)
        done = Done(
            step=step,
            query=query,
            words=step.words(self.model),
            before=said_of(self.model, self.query(query)),
            after=said_of(model, self.query(query)),
            accuracy=(self.accuracy, after.accuracy),
        )
        return replace(after, done=(*self.done, done))


class Session:
    """The states of one exploration, the last of them current; safe between threads.

    A prediction that is asked about is scored at once, the others in the background.

    Args:
        subject: What is explored.
    """

    def __init__(self, subject: Subject) -> None:
        self._states = [State(subject=subject, model=subject.trained)]
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._scoring: threading.Thread | None = None

    def score(self) -> None:
        """Score the predictions of the current state in the background."""
        self._scoring = threading.Thread(target=self._score, args=(self.state,), daemon=True)
        self._scoring.start()

    def close(self) -> None:
        """Stop what runs in the background."""
        self._closed.set()
        if self._scoring is not None:
            self._scoring.join()

    def _score(self, state: State) -> None:
        """Score chunk by chunk, as long as the state is the current one."""
        with suppress(WhenceError):  # it is raised again when the scores are asked for
            for at in range(state.chunks):
                if self._closed.is_set() or state is not self.state:
                    return
                state.chunk(at)

    @property
    def state(self) -> State:
        """The current state."""
        return self._states[-1]

    def take(self, steps: Sequence[Step], query: int) -> State:
        """Take some steps: all of them, or none if one fails.

        Args:
            steps: The steps.
            query: Position of the prediction that is looked at.

        Returns:
            The state before them.
        """
        with self._lock:
            before = self.state
            states = [before]
            for step in steps:
                states.append(states[-1].after(step, query))
            self._states += states[1:]
            return before

    def undo(self) -> State:
        """Go back by one step, if there is one; return the state before."""
        with self._lock:
            before = self.state
            if len(self._states) > 1:
                self._states.pop()
            return before


def _scores(model: Trained, *, state: State, chunk: int) -> Any:
    """Return the scores of some predictions on all training examples, in float32."""
    found = chosen(model, state.subject.method).fit(model)
    queries = state.subject.queries
    where = np.arange(len(queries))[_CHUNK * chunk : _CHUNK * (chunk + 1)]
    scores = found.scores_to_rank(queries.subset(where), state.measure)
    return np.asarray(scores.values, dtype=np.float32)
