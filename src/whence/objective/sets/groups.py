"""Measures of groups of queries: gaps between them, the worst of them, Cohen's d."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.checked import array, checked, shown, written
from whence.errors import InvalidInput, meant
from whence.objective.loss import Loss, measure_of
from whence.objective.sets.measure import OfSet as OfSet
from whence.objective.sets.measure import SetMeasure as SetMeasure
from whence.objective.sets.positive import is_positive, probability
from whence.rows import check_same_order

_MANY = 20  # groups; more of them that are no whole numbers are values of a quantity


@dataclass(frozen=True, eq=False, repr=False)
class Grouped(SetMeasure):
    """A measure that compares groups of queries.

    Args:
        groups: The group of each query, [q], in any labels.
    """

    groups: Any

    def __repr__(self) -> str:
        """Return the options, the groups of many queries by their type and shape."""
        return written(self)

    @cached_property
    def coded(self) -> tuple[Tensor, list[Any]]:
        """The groups as numbers [q], and their names."""
        groups = array("groups", self.groups)
        groups = groups[:, 0] if groups.ndim == 2 and groups.shape[1] == 1 else groups
        if groups.ndim != 1:
            raise InvalidInput(
                f"Expected groups as one label for each query. Got {shown(self.groups)}. Pass the "
                "column itself."
            )
        codes, names = pd.factorize(groups, sort=True)
        if groups.dtype.kind == "f" and len(names) > _MANY and (names % 1 != 0).any():
            raise InvalidInput(
                f"Expected groups as labels. Got a quantity of {len(names)} different values. Cut "
                "it into groups, as by pandas.qcut(values, 4)."
            )
        if (codes < 0).any():
            raise InvalidInput("Expected a group for each query. Got a missing value.")
        if len(names) < 2:
            raise InvalidInput(f"Expected at least two groups. Got {names.tolist()}.")
        return torch.from_numpy(codes.astype(np.int64)), names.tolist()

    def check_queries(self, ids: NDArray[Any]) -> None:
        """Raise where the groups have the index of the queries in another order."""
        check_same_order("groups", self.groups, ids)

    def subset(self, rows: NDArray[np.intp]) -> SetMeasure:
        """Return the measure of some of the queries, with their groups."""
        chosen: SetMeasure = replace(self, groups=np.asarray(self.groups)[rows])
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


@dataclass(frozen=True, eq=False, repr=False)
class _Between(Grouped):
    """A measure that compares the predictions of groups, perhaps of two that are named.

    Args:
        between: Two groups: the first less the second. `None`: the largest less the smallest.
        positive: The position of the positive class; the second of two if `None`.
    """

    between: tuple[Any, Any] | None = None
    positive: int | None = None


class _Gap(_Between):
    """The difference between groups in the mean of some quantity."""

    @abstractmethod
    def rates(self, outputs: Tensor, targets: Tensor, loss: Loss) -> tuple[Tensor, Tensor | None]:
        """Return what is compared, [q], and which queries count, [q] or `None`."""

    def value(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return the gap."""
        rates, among = self.rates(outputs, targets, loss)
        means = torch.stack([rates[rows].mean() for rows in self.members(outputs, among)])
        return difference(means, self.coded[1], self.between)


@final
@checked
@dataclass(frozen=True, eq=False, repr=False)
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

    @property
    def name(self) -> str:
        """The gap."""
        return "demographic parity gap"

    def rates(self, outputs: Tensor, targets: Tensor, loss: Loss) -> tuple[Tensor, Tensor | None]:
        """Return the probabilities of the positive class."""
        return probability(outputs, loss, self.positive), None


@final
@checked
@dataclass(frozen=True, eq=False, repr=False)
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

    outcome: int = 1

    @property
    def name(self) -> str:
        """The gap."""
        return "equal opportunity gap" if self.outcome else "false positive gap"

    def rates(self, outputs: Tensor, targets: Tensor, loss: Loss) -> tuple[Tensor, Tensor | None]:
        """Return the probabilities of the positive class, and who has the outcome."""
        positive = is_positive(targets, self.positive)
        among = positive if self.outcome else ~positive
        return probability(outputs, loss, self.positive), among


@final
@checked
@dataclass(frozen=True, eq=False, repr=False)
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

    @property
    def name(self) -> str:
        """The gap."""
        return "calibration gap"

    def rates(self, outputs: Tensor, targets: Tensor, loss: Loss) -> tuple[Tensor, Tensor | None]:
        """Return p − y."""
        p = probability(outputs, loss, self.positive)
        if loss.probabilities(outputs) is None:
            return p - targets.reshape(p.shape), None
        return p - is_positive(targets, self.positive).to(p.dtype), None


@final
@checked
@dataclass(frozen=True, eq=False, repr=False)
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
@checked
@dataclass(frozen=True, eq=False, repr=False)
class CohensD(_Between):
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

    @property
    def name(self) -> str:
        """Cohen's d."""
        return "Cohen's d"

    def value(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return d."""
        p, names = probability(outputs, loss, self.positive), self.coded[1]
        between = tuple(names) if self.between is None else tuple(self.between)
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


def _place(names: list[Any], name: object) -> int:
    """Return the position of a group."""
    if name not in names:
        near = meant(str(name), map(str, names))
        raise InvalidInput(f"Expected one of the groups {names}. Got {name!r}.{near}")
    return names.index(name)
