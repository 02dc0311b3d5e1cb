"""How answers are printed: notes, JSON, and what the model says of a query."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import sys
from collections.abc import Iterable
from dataclasses import asdict
from functools import singledispatch
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from whence.applications.explanation import Explanation
    from whence.cli.sources import Chosen
    from whence.objective.trained import Trained
    from whence.sources.entry import Source


def typed() -> str:
    """Return what the user typed, so that a page says what makes it again."""
    return shlex.join(["whence", *sys.argv[1:]])


def say(notes: tuple[str, ...]) -> None:
    """Print what was done to the data, apart from the answer."""
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def judged(found: Source) -> dict[str, Any]:
    """Return how good the model is on what it has not seen, for JSON."""
    from whence.methods.model_quality import model_quality

    quality = model_quality(found.objective)
    return {"model": found.words, "quality": None if quality is None else asdict(quality)}


def judgement(found: Source) -> tuple[str, ...]:
    """Return how good the model is on what it has not seen, in a sentence; none if not known."""
    from whence.methods.model_quality import model_quality
    from whence.views.answer import class_names, target_decimals
    from whence.views.statuses import quality_sentence

    model, quality = found.objective, model_quality(found.objective)
    if quality is None:
        return ()
    return (quality_sentence(quality, class_names(model), target_decimals(model)),)


def told(source: Chosen, found: Source) -> tuple[str, ...]:
    """Return which data a page is about and what was done to them, a sentence each."""
    where, n = Path(source.where), len(found.objective.train)
    about = f"{where.name}: {found.words}, fitted on {n:,} examples."
    if where.is_file():
        digest = hashlib.sha256(where.read_bytes()).hexdigest()
        return about, f"{where.name} has the SHA-256 digest {digest}.", *found.notes
    return about, *found.notes


def wrote(path: Path | None) -> None:
    """Print where the page is, if there is one."""
    if path is not None:
        typer.echo(f"wrote {path}: open it in a browser")


def print_json(content: dict[str, Any]) -> None:
    """Print plain JSON; frames become lists of records, and NaN and infinity null."""
    typer.echo(json.dumps(_plain(content), indent=1, allow_nan=False))


def said(found: Source) -> dict[str, Any]:
    """Return what the model says of the one query, for JSON.

    Args:
        found: The model, with one query.

    Returns:
        "query", its name; "prediction", the class or the number; "probability", what the model
        gives to that class; "label", what the data say. `None` where there is no such thing: a
        sequence of tokens has no one prediction, a regression no probability.
    """
    from whence.views.answer import class_names, class_of
    from whence.views.sequences import counted

    objective = found.objective
    queries = objective.examples(found.queries)
    outputs, target = objective.outputs(queries)[0], queries.targets[0]
    prediction: Any = None
    probability: float | None = None
    if counted(objective, target) is not None:
        pass
    elif class_names(objective):
        best = class_of(outputs)
        prediction = objective.classes[best] if objective.classes else best
        shares = objective.loss.probabilities(outputs[None])
        probability = None if shares is None else float(shares[0, best])
    elif objective.loss.regresses and len(outputs) == 1:
        prediction = _number(objective.loss.prediction(outputs[None], queries.targets))
    else:
        prediction = _number(outputs)
    return {
        "query": found.names[0],
        "prediction": prediction,
        "probability": probability,
        "label": label_of(objective, target) if found.labeled else None,
    }


def label_of(objective: Trained, target: Tensor) -> Any:
    """Return a target as the user's data have it; `None` for a sequence of tokens."""
    from whence.views.answer import target_class
    from whence.views.sequences import counted

    if counted(objective, target) is not None:
        return None
    if objective.classes:
        return objective.classes[target_class(target)]
    return _number(target)


def explained(explanation: Explanation) -> list[dict[str, Any]]:
    """Return the helpful and harmful examples of an explanation as records, for JSON."""
    return scored(
        explanation.trained,
        (
            (effect.position, {"score": effect.effect, "first": effect.first})
            for effect in (*explanation.raising, *explanation.lowering)
        ),
    )


def grouped(explanation: Explanation) -> list[dict[str, Any]]:
    """Return near-duplicates that do more together than one of them alone, for JSON."""
    return [
        {"ids": group.ids, "effect": group.effect, "alone": group.alone}
        for group in explanation.groups
    ]


def scored(
    objective: Trained, scores: Iterable[tuple[int, dict[str, float]]]
) -> list[dict[str, Any]]:
    """Return scores of training examples as records, the largest first.

    Args:
        objective: The model with its training data.
        scores: Positions in the training data, each with what is known of it: "score", and more.

    Returns:
        Records with the id, the label and what is known.
    """
    train = objective.train
    records = [
        {"id": train.ids[at], "label": label_of(objective, train.targets[at]), **values}
        for at, values in dict(scores).items()
    ]
    return sorted(records, key=lambda record: record["score"], reverse=True)


def _number(values: Tensor) -> Any:
    """Return one number, or a list of several."""
    numbers = values.detach().reshape(-1).tolist()
    return numbers[0] if len(numbers) == 1 else numbers


@singledispatch
def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if hasattr(value, "to_dict"):
        present = value.astype(object).where(value.notna(), None)
        return _plain(present.to_dict(orient="records"))
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)


@_plain.register(str)
@_plain.register(int)
@_plain.register(NoneType)
def _as_it_is(value: Any) -> Any:
    return value


@_plain.register
def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@_plain.register(list)
@_plain.register(tuple)
def _listed(value: Any) -> list[Any]:
    return [_plain(each) for each in value]


@_plain.register(dict)
def _named(value: dict[Any, Any]) -> dict[str, Any]:
    return {str(key): _plain(each) for key, each in value.items()}
