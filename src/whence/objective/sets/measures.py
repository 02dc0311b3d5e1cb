"""Measures of a set of queries by name: means, accuracy, AUROC, gaps between groups, worst group.

`whence.measures` is this module. Each is passed as `measure=` to `whence.influence`,
`whence.group_effect`, `whence.removal_curve` and `whence.leave_one_out`.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.errors import InvalidInput, UnsupportedModel
from whence.objective.loss import Loss, measure_of
from whence.objective.measures import Measure
from whence.objective.sets.measure import OfSet as OfSet
from whence.objective.sets.measure import SetMeasure as SetMeasure


@final
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
            right = (outputs[:, 0] > 0) == _is_positive(targets, None)
        return right.to(outputs.dtype).mean()


@final
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
        scores = _scores(outputs, self.positive)
        positive = _is_positive(targets, self.positive)
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


class Grouped(SetMeasure):
    """A measure that compares groups of queries.

    Attributes:
        groups: The group of each query, [q], in any labels.
    """

    groups: Any

    @cached_property
    def coded(self) -> tuple[Tensor, list[Any]]:
        """The groups as numbers [q], and their names."""
        codes, names = pd.factorize(np.asarray(self.groups), sort=True)
        if codes.min(initial=0) < 0:
            raise InvalidInput("Expected a group for each query. Got a missing value.")
        if len(names) < 2:
            raise InvalidInput(f"Expected at least two groups. Got {list(names)}.")
        return torch.from_numpy(codes.astype(np.int64)), list(names)

    def subset(self, rows: NDArray[np.intp]) -> SetMeasure:
        """Return the measure of some of the queries, with their groups."""
        chosen: SetMeasure = replace(self, groups=np.asarray(self.groups)[rows])  # type: ignore[type-var]
        return chosen

    def members(self, outputs: Tensor, among: Tensor | None = None) -> list[Tensor]:
        """Return which queries belong to each group, of those that count.

        Args:
            outputs: [q, c].
            among: Which queries count, [q]; all if `None`.
        """
        codes, names = self.coded
        if len(codes) != len(outputs):
            raise InvalidInput(
                f"Expected the group of each of {len(outputs)} queries. Got {len(codes)} groups."
            )
        codes = codes.to(outputs.device)
        found = []
        for code, name in enumerate(names):
            members = codes == code
            members = members if among is None else members & among
            if not members.any():
                raise InvalidInput(
                    f"Expected queries that count in every group. Got none in group {name!r}."
                )
            found.append(members)
        return found


class _Gap(Grouped):
    """The difference between groups in the mean of some quantity.

    Attributes:
        between: Two groups: the first less the second. `None`: the largest less the smallest.
        positive: The position of the positive class; the second of two if `None`.
    """

    between: tuple[Any, Any] | None
    positive: int | None

    @abstractmethod
    def rates(self, outputs: Tensor, targets: Tensor, loss: Loss) -> tuple[Tensor, Tensor | None]:
        """Return what is compared, [q], and which queries count, [q] or `None`."""

    def value(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return the gap."""
        rates, among = self.rates(outputs, targets, loss)
        means = torch.stack([rates[rows].mean() for rows in self.members(outputs, among)])
        return difference(means, self.coded[1], self.between)


@final
@dataclass(frozen=True, eq=False)
class DemographicParity(_Gap):
    """The gap between groups in the mean predicted probability of the positive class.

    max_g E[p | g] − min_g E[p | g]; with `between=(a, b)` the signed E[p | a] − E[p | b]. Of a
    regression the mean prediction.

    Args:
        groups: The group of each query, [q].
        between: Two groups to compare, with a sign; the extremes if `None`.
        positive: The position of the positive class; the second of two if `None`.

    References:
        Dwork et al. (2012), section 3, on statistical parity; Agarwal et al. (2018), definition 1.

    Examples:
        >>> import torch, whence
        >>> gap = whence.measures.DemographicParity(["a", "b"])
        >>> gap.value(torch.tensor([[0.0], [40.0]]), torch.ones(2), whence.Logistic())
        tensor(0.5000)
    """

    groups: Any
    between: tuple[Any, Any] | None = None
    positive: int | None = None

    @property
    def name(self) -> str:
        """The gap."""
        return "demographic parity gap"

    def rates(self, outputs: Tensor, targets: Tensor, loss: Loss) -> tuple[Tensor, Tensor | None]:
        """Return the probabilities of the positive class."""
        return _probability(outputs, loss, self.positive), None


@final
@dataclass(frozen=True, eq=False)
class EqualOpportunity(_Gap):
    """The gap between groups in the mean probability of the positive class, of its own members.

    max_g E[p | g, y = 1] − min_g E[p | g, y = 1]. `outcome=0` takes the negative class instead: the
    gap in false positives.

    Args:
        groups: The group of each query, [q].
        between: Two groups to compare, with a sign; the extremes if `None`.
        positive: The position of the positive class; the second of two if `None`.
        outcome: 1 for queries of the positive class, 0 for the others.

    References:
        Hardt, Price & Srebro (2016), definition 2.2.

    Examples:
        >>> import torch, whence
        >>> gap = whence.measures.EqualOpportunity(["a", "b"])
        >>> gap.value(torch.tensor([[0.0], [40.0]]), torch.ones(2), whence.Logistic())
        tensor(0.5000)
    """

    groups: Any
    between: tuple[Any, Any] | None = None
    positive: int | None = None
    outcome: int = 1

    @property
    def name(self) -> str:
        """The gap."""
        return "equal opportunity gap" if self.outcome else "false positive gap"

    def rates(self, outputs: Tensor, targets: Tensor, loss: Loss) -> tuple[Tensor, Tensor | None]:
        """Return the probabilities of the positive class, and who has the outcome."""
        positive = _is_positive(targets, self.positive)
        among = positive if self.outcome else ~positive
        return _probability(outputs, loss, self.positive), among


@final
@dataclass(frozen=True, eq=False)
class Calibration(_Gap):
    """The gap between groups in calibration: in E[p − y | g], how far predictions are too high.

    Args:
        groups: The group of each query, [q].
        between: Two groups to compare, with a sign; the extremes if `None`.
        positive: The position of the positive class; the second of two if `None`.

    References:
        Kleinberg, Mullainathan & Raghavan (2017), section 1, calibration within groups, in the
        large.

    Examples:
        >>> import torch, whence
        >>> gap = whence.measures.Calibration(["a", "b"])
        >>> gap.value(torch.tensor([[0.0], [40.0]]), torch.ones(2), whence.Logistic())
        tensor(0.5000)
    """

    groups: Any
    between: tuple[Any, Any] | None = None
    positive: int | None = None

    @property
    def name(self) -> str:
        """The gap."""
        return "calibration gap"

    def rates(self, outputs: Tensor, targets: Tensor, loss: Loss) -> tuple[Tensor, Tensor | None]:
        """Return p − y."""
        p = _probability(outputs, loss, self.positive)
        if loss.probabilities(outputs) is None:
            return p - targets.reshape(p.shape), None
        return p - _is_positive(targets, self.positive).to(p.dtype), None


@final
@dataclass(frozen=True, eq=False)
class WorstGroup(Grouped):
    """The mean measure of the group that fares worst: the largest mean loss, else the smallest.

    Args:
        groups: The group of each query, [q].
        of: "loss", "margin" or "probability".

    References:
        Sagawa et al. (2020), equation 3.

    Examples:
        >>> import torch, whence
        >>> worst = whence.measures.WorstGroup(["a", "b"], of="margin")
        >>> worst.value(torch.tensor([[1.0], [3.0]]), torch.ones(2), whence.Logistic())
        tensor(1.)
    """

    groups: Any
    of: str = "loss"

    @property
    def name(self) -> str:
        """What is measured of the worst group."""
        return f"{self.of} of the worst group"

    def value(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return the mean of the worst group."""
        each = measure_of(loss, self.of)(outputs, targets)
        means = torch.stack([each[rows].mean() for rows in self.members(outputs)])
        return means.max() if self.of == "loss" else means.min()


@final
@dataclass(frozen=True, eq=False)
class CohensD(Grouped):
    """The difference of two groups' mean predictions in units of their pooled deviation.

    d = (p̄_a − p̄_b)/s, s² = ((q_a − 1) s_a² + (q_b − 1) s_b²)/(q_a + q_b − 2). A row can lower d by
    spreading the predictions too: read `DemographicParity` beside it.

    Args:
        groups: The group of each query, [q]: two, or name two by `between`.
        between: The two groups, the first less the second; sorted by name if `None`.
        positive: The position of the positive class; the second of two if `None`.

    References:
        Cohen (1988), section 2.5.

    Examples:
        >>> import torch, whence
        >>> d = whence.measures.CohensD(["a", "a", "b", "b"])
        >>> outputs = torch.tensor([[3.0], [1.0], [1.0], [-1.0]])
        >>> d.value(outputs, torch.ones(4), whence.SquaredError())
        tensor(1.4142)
    """

    groups: Any
    between: tuple[Any, Any] | None = None
    positive: int | None = None

    @property
    def name(self) -> str:
        """Cohen's d."""
        return "Cohen's d"

    def value(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return d."""
        p, names = _probability(outputs, loss, self.positive), self.coded[1]
        between = self.between or tuple(names)
        if len(between) != 2:
            raise InvalidInput(f"Expected two groups. Got {names}. Name two by between=(a, b).")
        members = self.members(outputs)
        a, b = (p[members[_place(names, name)]] for name in between)
        if min(len(a), len(b)) < 2:
            raise InvalidInput("Expected at least two queries in each group. Got one.")
        squares = (a - a.mean()).square().sum() + (b - b.mean()).square().sum()
        return (a.mean() - b.mean()) / (squares / (len(a) + len(b) - 2)).sqrt()


def difference(means: Tensor, names: list[Any], between: tuple[Any, Any] | None) -> Tensor:
    """Return how far groups are apart.

    Args:
        means: Of each group, [g].
        names: Of the groups.
        between: Two of them: the first less the second; the extremes if `None`.
    """
    if between is None:
        return means.max() - means.min()
    first, second = (_place(names, name) for name in between)
    return means[first] - means[second]


NAMED: dict[str, Callable[[], SetMeasure]] = {
    "accuracy": Accuracy,
    "auroc": AUROC,
    "mean loss": Mean,
}


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
    if isinstance(measure, SetMeasure):
        return measure
    if isinstance(measure, str):
        return NAMED[measure]() if measure in NAMED else None
    if isinstance(measure, Measure | type) or not callable(measure):
        return None
    f, y = outputs()
    if np.ndim(measure(f.detach(), y)):
        return None
    return OfSet(measure, smooth=_differentiable(measure, f, y))


def _differentiable(function: Callable[[Tensor, Tensor], Any], f: Tensor, y: Tensor) -> bool:
    """Return whether a function is one of torch operations on the outputs."""
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = function(f.detach().clone().requires_grad_(), y)
        except (RuntimeError, TypeError):  # numpy takes no tensor that requires a gradient
            return False
    return isinstance(found, Tensor) and found.requires_grad


def _place(names: list[Any], name: object) -> int:
    """Return the position of a group."""
    if name not in names:
        raise InvalidInput(f"Expected one of the groups {names}. Got {name!r}.")
    return names.index(name)


def _is_positive(targets: Tensor, positive: int | None) -> Tensor:
    """Return which targets are of the positive class, [q]."""
    flat = targets.reshape(len(targets), -1)[:, 0] if targets.ndim > 1 else targets
    if positive is not None:
        return flat == positive
    if len(np.unique(flat.detach().cpu().numpy())) > 2:
        raise InvalidInput(
            "Expected targets of two classes. Got more. Name the positive one by positive=, its "
            "position among objective.classes."
        )
    return flat == (1 if flat.min() >= 0 and flat.max() <= 1 else flat.max())


def _scores(outputs: Tensor, positive: int | None) -> Tensor:
    """Return what ranks queries: one output, or the log odds of the positive class, [q]."""
    if outputs.shape[1] == 1:
        return outputs[:, 0] if positive in (None, 1) else -outputs[:, 0]
    if positive is None and outputs.shape[1] > 2:
        raise InvalidInput(
            f"Expected positive=, the position of the positive class. Got {outputs.shape[1]} "
            "classes and no name."
        )
    at = 1 if positive is None else positive
    others = [c for c in range(outputs.shape[1]) if c != at]
    return outputs[:, at] - outputs[:, others].logsumexp(1)


def _probability(outputs: Tensor, loss: Loss, positive: int | None) -> Tensor:
    """Return the probability of the positive class, or what a regression predicts, [q]."""
    p = loss.probabilities(outputs)
    if p is not None:
        if positive is None and p.shape[1] > 2:
            raise InvalidInput(
                f"Expected positive=, the position of the positive class. Got {p.shape[1]} "
                "classes and no name."
            )
        return p[:, 1 if positive is None else positive]
    if loss.regresses:
        return loss.prediction(outputs, outputs)
    raise UnsupportedModel(
        "Expected a model with probabilities or predictions for a gap between groups. Got "
        f"{loss!r}. Pass a function of (outputs, targets) that returns one number."
    )
