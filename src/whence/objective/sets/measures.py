"""Measures of a set of queries by name: means, accuracy, AUROC, gaps between groups, worst group.

`whence.measures` is this module. Each is passed as `measure=` to `whence.influence`,
`whence.group_effect`, `whence.removal_curve` and `whence.leave_one_out`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from whence.checked import checked, said
from whence.errors import InvalidInput
from whence.objective.loss import OF_ALL, Loss, measure_of
from whence.objective.measures import Measure
from whence.objective.sets.groups import Calibration as Calibration
from whence.objective.sets.groups import CohensD as CohensD
from whence.objective.sets.groups import DemographicParity as DemographicParity
from whence.objective.sets.groups import EqualOpportunity as EqualOpportunity
from whence.objective.sets.groups import Grouped as Grouped
from whence.objective.sets.groups import WorstGroup as WorstGroup
from whence.objective.sets.measure import OfSet as OfSet
from whence.objective.sets.measure import SetMeasure as SetMeasure
from whence.objective.sets.positive import is_positive, scores_of


@final
@checked
@dataclass(frozen=True)
class Mean(SetMeasure):
    """The mean of a measure of each query: (1/q) Σ_q m(f_q, y_q).

    Args:
        of: "loss", "margin" (how clearly queries are read right), "probability" or "prediction".

    Examples:
        >>> import torch, whence
        >>> mean = whence.measures.Mean("margin")
        >>> mean.value(torch.tensor([[1.0], [3.0]]), torch.ones(2), whence.Logistic())
        tensor(2.)
    """

    of: str = "loss"

    @property
    def name(self) -> str:
        """The mean of what."""
        return f"mean {self.of}"

    def value(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return the mean."""
        return measure_of(loss, self.of)(outputs, targets).mean()


@final
@checked
@dataclass(frozen=True)
class Accuracy(SetMeasure):
    """The share of queries whose class is predicted right; evaluated at predicted outputs.

    Examples:
        >>> import torch, whence
        >>> outputs, y = torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 0.0])
        >>> whence.measures.Accuracy().value(outputs, y, whence.Logistic())
        tensor(0.5000)
    """

    smooth: bool = False

    @property
    def name(self) -> str:
        """Accuracy."""
        return "accuracy"

    def value(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return the share."""
        if outputs.shape[1] > 1:
            right = outputs.argmax(1) == targets
        else:
            right = (outputs[:, 0] > 0) == is_positive(targets, None)
        return right.to(outputs.dtype).mean()


@final
@checked
@dataclass(frozen=True)
class AUROC(SetMeasure):
    """The probability that a positive query is ranked above a negative one, a tie counting a half.

    A rank statistic: evaluated at predicted outputs.

    Args:
        positive: The position of the positive class among the model's classes; the second of two
            if `None`. Of a regression on two values, the larger.

    References:
        Hanley & McNeil (1982); Mann & Whitney (1947).

    Examples:
        >>> import torch, whence
        >>> outputs, y = torch.tensor([[1.0], [3.0], [2.0]]), torch.tensor([0.0, 1.0, 1.0])
        >>> whence.measures.AUROC().value(outputs, y, whence.Logistic())
        tensor(1.)
    """

    positive: int | None = None
    smooth: bool = False

    @property
    def name(self) -> str:
        """AUROC."""
        return "AUROC"

    def value(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return the share of pairs in order."""
        scores = scores_of(outputs, self.positive)
        positive = is_positive(targets, self.positive)
        above, below = scores[positive], scores[~positive].contiguous()
        if not len(above) or not len(below):
            raise InvalidInput(
                "Expected queries of the positive class and others for an AUROC. Got "
                f"{len(above)} positive and {len(below)} others."
            )
        ordered = below.sort().values
        wins = torch.searchsorted(ordered, above.contiguous())
        ties = torch.searchsorted(ordered, above.contiguous(), right=True)
        return (wins + ties).to(scores.dtype).mean() / (2 * len(ordered))


NAMED: dict[str, Callable[[], SetMeasure]] = dict(zip(OF_ALL, (Accuracy, AUROC, Mean), strict=True))


def set_measure_of(
    measure: object, outputs: Callable[[], tuple[Tensor, Tensor]]
) -> SetMeasure | None:
    """Return the measure of a set that a user's `measure=` is, or `None` where it is of each query.

    Args:
        measure: As users pass it. A function is of a set where it returns one number, [].
        outputs: Gives outputs and targets of the queries, for a function to be tried on.

    Returns:
        The measure.
    """
    return _of_set(measure, outputs)


_Outputs: TypeAlias = Callable[[], tuple[Tensor, Tensor]]


@singledispatch
def _of_set(measure: object, outputs: _Outputs) -> SetMeasure | None:
    """Return the measure of a set that a function is, if it returns one number."""
    if not callable(measure):
        return None
    f, y = outputs()
    with said("a measure that takes (outputs, targets)"):
        found = measure(f.detach(), y)
    if np.ndim(found):
        return None
    return OfSet(measure, smooth=_differentiable(measure, f, y))


@_of_set.register(SetMeasure)
def _as_it_is(measure: SetMeasure, outputs: _Outputs) -> SetMeasure | None:
    return measure


@_of_set.register(str)
def _by_name(measure: str, outputs: _Outputs) -> SetMeasure | None:
    return NAMED[measure]() if measure in NAMED else None


@_of_set.register(Measure)
@_of_set.register(type)
def _of_each(measure: object, outputs: _Outputs) -> SetMeasure | None:
    return None


def _differentiable(function: Callable[[Tensor, Tensor], Any], f: Tensor, y: Tensor) -> bool:
    """Return whether a function is one of torch operations on the outputs."""
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = function(f.detach().clone().requires_grad_(), y)
        except (RuntimeError, TypeError):  # numpy takes no tensor that requires a gradient
            return False
    return isinstance(found, Tensor) and found.requires_grad
