"""How a measure of a query is read: as a probability, a predicted number, a margin or a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.errors import InvalidInput, UnsupportedModel
from whence.methods.prediction import MeasureLike, measure_name
from whence.objective.losses import measure_of
from whence.objective.trained import Examples, Trained
from whence.pages import Color
from whence.pages.words import number, signed
from whence.views.answer import class_names, prediction_decimals, target_class
from whence.views.sequences import counted

_MOST_DECIMALS = 6
_PREDICTION = "the prediction"


@final
@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number about one query as people read it, and which way an example pushes it.

    Args:
        name: What it is, such as "P(survived)".
        phrases: Where an example pushes without which the quantity would be lower, and where one
            pushes without which it would be higher; each follows the word "push".
        colors: How the two are drawn.
        rising: Whether the quantity rises with the measure.
        percent: Whether it is a probability, in percent.
        least: The fewest decimals.
        most: The most decimals, or `None` for a number in a unit of the user's.
        read: From the measure to the quantity.
        second: What the measure itself is, where that is another number; else empty.
        explained: The class that it is about, as a position among the classes, or `None`.
    """

    name: str
    phrases: tuple[str, str]
    colors: tuple[Color, Color] = ("toward", "against")
    rising: bool
    percent: bool = False
    least: int = 3
    most: int | None = _MOST_DECIMALS
    read: Callable[[float], float] = float
    second: str = ""
    explained: int | None = None

    def raising_helps(self, value: float, target: Tensor | None) -> bool:
        """Return whether examples that push the quantity up push to the label of the query.

        Args:
            value: The measure of the query as it is.
            target: The query's target, or `None` where it is not known.

        Raises:
            InvalidInput: If nothing says what helps: no label, or a measure of the user's own.
        """
        if self.explained is not None or self.colors != ("up", "down"):
            return self.colors[0] == "toward"
        if not self.predicts or target is None:
            raise InvalidInput(
                "Expected a query with a label, and its loss, probability, margin or prediction as "
                f"the measure, to say what helps. Got {self.name}"
                f"{' of a query without a label' if target is None else ''}. Use .raising and "
                ".lowering."
            )
        return value < float(target.reshape(-1)[0])

    def decimals(self, changes: Iterable[float]) -> int:
        """Return how many decimals show the largest of some changes of the quantity."""
        largest = max((abs(change) for change in changes if math.isfinite(change)), default=0.0)
        if largest == 0:
            return self.least
        needed = math.ceil(math.log10(6 / largest))  # 0.6 as 0.6, and 0.2 as 0.20
        found = max(self.least, needed)
        return found if self.most is None else min(self.most, found)

    @property
    def predicts(self) -> bool:
        """Return whether it is the number that the model predicts."""
        return self.name == _PREDICTION

    def text(self, value: float, decimals: int) -> str:
        """Return a value of the quantity as it is shown."""
        return number(value, decimals) + (" %" if self.percent else "")

    def change(self, change: float, decimals: int) -> str:
        """Return a change of the quantity as it is shown, with its sign."""
        return signed(change, decimals) + (" points" if self.percent else "")


def default_measure(trained: Trained, query: Examples) -> str:
    """Return the measure that people read: what the model answers, not its loss in nats.

    Args:
        trained: The model.
        query: One query.

    Returns:
        "loss" where it is −log of the label's probability, and where there is nothing else;
        "probability" for other losses with probabilities; "margin" for other classifiers;
        "prediction" for a regression with one target.
    """
    outputs = trained.outputs(query)
    if counted(trained, query.targets[0]) is not None or outputs.ndim != 2:
        return "loss"
    if trained.loss.probabilities(outputs) is not None:
        return "loss" if _is_log_probability(trained, query) else "probability"
    if trained.classes or trained.loss.classifies:
        return "margin"
    return "prediction" if trained.loss.regresses and outputs.shape[1] == 1 else "loss"


def quantity_of(
    trained: Trained,
    query: Examples,
    measure: MeasureLike,
    *,
    unit: str = "",
    other: Examples | None = None,
) -> Quantity:
    """Return how a measure of one query is read.

    Args:
        trained: The model.
        query: One query, whose target is the class or number that the measure is about.
        measure: What was predicted.
        unit: What follows the measure's name where scores are in another unit than its own.
        other: Another answer to the same question, where it is the difference between the two.

    Returns:
        The quantity.
    """
    name = measure_name(measure)
    names = class_names(trained)
    label = target_class(query.targets[0]) if names else None
    toward, against = _phrases(names, label)
    falling = name == "loss"
    if unit:  # relative scores: neither a probability nor nats
        return _measure_itself(name, unit)
    if other is not None:
        classes = [] if label is None else [label, target_class(other.targets[0])]
        answers = tuple(names[c] for c in classes) if len(set(classes)) == 2 else ()
        return _difference(name, trained.loss.unit, answers, label)
    if name == "prediction":
        return Quantity(
            name=_PREDICTION,
            phrases=("it up", "it down"),
            colors=("up", "down"),
            rising=True,
            least=prediction_decimals(trained),
            most=None,
        )
    if label is not None and name in ("loss", "margin", "probability"):
        read = _probability_from(trained, query, name)
        if read is not None:
            return Quantity(
                name=f"P({names[label]})",
                phrases=(toward, against),
                rising=not falling,
                percent=True,
                least=1,
                read=read,
                second={"loss": "loss, in nats", "margin": "log odds"}.get(name, ""),
                explained=label,
            )
        if name == "margin":
            return Quantity(
                name=f"the margin of {names[label]}",
                phrases=(toward, against),
                rising=True,
                explained=label,
            )
    if not falling:
        return _measure_itself(name)
    if counted(trained, query.targets[0]) is not None:
        toward, against = "to this text", "away from this text"
    elif label is None:
        toward, against = "the loss down", "the loss up"
    loss = f"the loss ({trained.loss.unit})" if trained.loss.unit else "the loss"
    return Quantity(
        name=loss,
        phrases=(against, toward),
        colors=("against", "toward"),
        rising=True,
        explained=label,
    )


def quantities_of(
    trained: Trained, queries: Examples, measure: MeasureLike, *, unit: str = ""
) -> list[Quantity]:
    """Return how a measure of each query is read: one quantity for all queries of a label.

    Args:
        trained: The model.
        queries: The q queries.
        measure: What was predicted.
        unit: What follows the measure's name where scores are in another unit than its own.
    """
    classified = bool(class_names(trained))
    by_label: dict[int, Quantity] = {}
    found = []
    for q, target in enumerate(queries.targets):
        label = target_class(target) if classified else 0
        if label not in by_label:
            one = queries.subset(np.array([q]))
            by_label[label] = quantity_of(trained, one, measure, unit=unit)
        found.append(by_label[label])
    return found


def _difference(name: str, unit: str, answers: tuple[str, ...], explained: int | None) -> Quantity:
    """Return the difference of a measure between two answers, by name if they are classes."""
    this, that = (f"“{answer}”" for answer in answers) if answers else ("", "")
    less = f"of {this} less that of {that}" if answers else "less that of the other answer"
    if name not in ("loss", "margin", "probability"):
        return _measure_itself(f"{name} {less}")
    phrases = (f"to {this}", f"to {that}") if answers else ("to this answer", "to the other answer")
    colors: tuple[Color, Color] = ("toward", "against")
    falling = name == "loss"
    shown = f"{name} ({unit})" if falling and unit else name
    return Quantity(
        name=f"the {shown} {less}",
        phrases=phrases[::-1] if falling else phrases,
        colors=colors[::-1] if falling else colors,
        rising=True,
        explained=explained,
    )


def _measure_itself(name: str, unit: str = "") -> Quantity:
    """Return a quantity that is a measure whose meaning is the user's."""
    return Quantity(
        name=f"the {name}{unit}",
        phrases=(f"the {name} up", f"the {name} down"),
        colors=("up", "down"),
        rising=True,
    )


def _phrases(names: tuple[str, ...], label: int | None) -> tuple[str, str]:
    """Return where examples push that raise the probability of a class, and that lower it."""
    if label is None:
        return "it up", "it down"
    if len(names) == 2:
        return f"to “{names[label]}”", f"to “{names[1 - label]}”"
    return f"to “{names[label]}”", f"away from “{names[label]}”"


def _probability_from(
    trained: Trained, query: Examples, name: str
) -> Callable[[float], float] | None:
    """Return the way from a measure to the label's probability in percent, where there is one."""
    try:
        probability = measure_of(trained.loss, "probability")
        probability(trained.outputs(query), query.targets)
    except UnsupportedModel:
        return None
    if name == "probability":
        return _percent
    if not _is_log_probability(trained, query):
        return None
    return _of_loss if name == "loss" else _of_log_odds


def _is_log_probability(trained: Trained, query: Examples) -> bool:
    """Return whether the loss is −log of the probability that the model gives to the label."""
    outputs = trained.outputs(query)
    loss = trained.loss(outputs, query.targets)
    probability = trained.loss.probability(outputs, query.targets)
    return torch.allclose(torch.exp(-loss), probability, rtol=1e-4, atol=1e-12)


def _percent(probability: float) -> float:
    """Return a probability in percent."""
    return 100 * probability


def _of_loss(loss: float) -> float:
    """Return the probability e^−ℓ, in percent."""
    return 100 * math.exp(-max(loss, 0.0))


def _of_log_odds(odds: float) -> float:
    """Return the probability σ(odds), in percent."""
    return 100 / (1 + math.exp(-odds)) if odds > -700 else 0.0
