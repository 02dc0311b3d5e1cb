"""What a loss is, and the measures that a user names by a word."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whence.errors import InvalidInput, UnsupportedModel, meant
from whence.objective.measures import CallableMeasure, Measure


@final
@dataclass(frozen=True, eq=False)
class Hinges:
    """A loss that is linear in pieces, as hinges: ℓ = Σ factor · max(0, sign (corner − f)).

    Args:
        signs: ±1 of each hinge, [c, m]; m is b for one hinge per example, 2b for two, those of all
            examples one after the other.
        corners: Where each hinge ends, [c, m].
        factors: Its weight, [c, m].
    """

    signs: Tensor
    corners: Tensor
    factors: Tensor


OF_ALL = ("accuracy", "auroc", "mean loss")  # names of measures of all queries together

NO_CLASSES = (
    "Expected a classifier for measure='{}'. Got a loss without class probabilities. "
    "Use measure='loss' or a function of (outputs, targets)."
)


class Loss(Measure):
    """A loss ℓ(f, y) per example, twice differentiable in the outputs where it is used.

    Attributes:
        quadratic: Whether ℓ is a quadratic function of the outputs.
        classifies: Whether targets are labels of classes.
        regresses: Whether targets are quantities, which `prediction` says in their unit.
        unit: The unit of ℓ: "nats" for −log of the probability of a class, else what ℓ is.
    """

    quadratic: ClassVar[bool] = False
    classifies: ClassVar[bool] = False
    regresses: ClassVar[bool] = False
    unit: ClassVar[str] = ""

    def probabilities(self, outputs: Tensor) -> Tensor | None:
        """Return the probability of each class, [b, c], two for a binary model; `None` if none."""
        return None

    def softmax(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """Return the probabilities of a softmax in the shape of `outputs`; `None` if it is none.

        They are zero at positions without a loss.
        """
        return None

    @property
    def known_dispersion(self) -> bool:
        """Whether the mean of a target determines its variance, as of classes and of counts."""
        return False

    @property
    def hinged(self) -> bool:
        """Whether this is the true hinge, of one output or of each: linear in pieces."""
        return False

    def hinges(self, targets: Tensor, c: int) -> Hinges | None:
        """Return the loss as hinges of c outputs, where it is `hinged`; else `None`."""
        return None

    def smoothed(self, temperature: float, spread: float = 1.0) -> Loss:
        """Return the loss to differentiate: itself, or where it is `hinged` its smooth form.

        Args:
            temperature: t > 0, in units of the margin, or of `spread`.
            spread: The standard deviation of the targets of a regression.
        """
        return self

    def least(self, targets: Tensor) -> Tensor:
        """Return the least that ℓ can be for each target, whatever the outputs, [b]: zero."""
        return torch.zeros(len(targets), dtype=torch.float64, device=targets.device)

    @abstractmethod
    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return ∂²ℓ/∂f² · u for tangents u of shape [*outputs.shape, k]."""

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return how clearly the target wins, [b]: the log odds of the true class, or y·f."""
        raise UnsupportedModel(NO_CLASSES.format("margin"))

    def probability(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the probability given to the target, [b]."""
        raise UnsupportedModel(NO_CLASSES.format("probability"))

    def prediction(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return what a regression predicts, in the unit of the targets, [b]."""
        raise UnsupportedModel(
            "Expected a regression with one target for measure='prediction'. Got a loss of another "
            "kind. Use measure='probability', 'margin' or 'loss'."
        )

    @abstractmethod
    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise `InvalidInput` where the targets do not fit the outputs."""


def output_hessian(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the matrices ∂²ℓ/∂f² of each example.

    Args:
        loss: The loss.
        outputs: Outputs, [b, c].
        targets: Targets, [b].

    Returns:
        Symmetric matrices, [b, c, c].
    """
    b, c = outputs.shape
    eye = torch.eye(c, dtype=outputs.dtype, device=outputs.device)
    return loss.hvp(outputs, targets, eye.expand(b, c, c))


def gradient_by_scale(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return ∂²ℓ/∂f² f: what a relative error of the outputs, as rounding is, does to ∂ℓ/∂f.

    Args:
        loss: The loss.
        outputs: Outputs f, [b, ...].
        targets: Targets.

    Returns:
        The derivative of ∂ℓ/∂f at s f in s, at s = 1, in the shape of the outputs.
    """
    return loss.hvp(outputs, targets, outputs.unsqueeze(-1)).squeeze(-1)


def measure_of(loss: Loss, measure: object) -> Measure:
    """Return the measure that a user's `measure=` names.

    Args:
        loss: The loss of the model.
        measure: "loss", "margin", "probability", "prediction", or a function (outputs, targets)
            -> [b].

    Returns:
        A `Measure`.

    Raises:
        InvalidInput: If the name is not one of the four.

    Examples:
        >>> import torch
        >>> from whence.objective.losses import Logistic
        >>> probability = measure_of(Logistic(), "probability")
        >>> probability(torch.tensor([[0.0]]), torch.tensor([1.0]))
        tensor([0.5000])
    """
    if isinstance(measure, Measure):
        return measure
    if callable(measure) and not isinstance(measure, type):
        return CallableMeasure(measure)
    if measure == "loss":
        return loss
    if measure == "margin":
        return CallableMeasure(loss.margin)
    if measure == "probability":
        return CallableMeasure(loss.probability)
    if measure == "prediction":
        return CallableMeasure(loss.prediction)
    got, remedy = repr(measure), _remedy(measure)
    if inspect.isclass(measure):
        got, remedy = f"the class {measure.__name__}", f" Write {measure.__name__}()."
    raise InvalidInput(
        "Expected measure to be 'loss', 'margin', 'probability', 'prediction' or a function of "
        f"(outputs, targets). Got {got}.{remedy}"
    )


def _remedy(measure: object) -> str:
    """Return what `measure=` may have meant, where it is no measure of each query."""
    if hasattr(measure, "check_queries") or str(measure) in OF_ALL:
        return (
            " It is a measure of a set of queries, which whence.influence, whence.group_effect and "
            "whence.removal_curve take."
        )
    known = ["loss", "margin", "probability", "prediction", *OF_ALL]
    return (
        f"{meant(str(measure), known)} Of all queries together there are "
        f"{', '.join(map(repr, OF_ALL))} and those of whence.measures, for whence.influence, "
        "whence.group_effect and whence.removal_curve."
    )
