"""Extremes and quantiles of dense columns, as functions of which rows are there."""

from __future__ import annotations

import torch
from torch import Tensor


def extremes(x: Tensor, kept: Tensor) -> Tensor:
    """Return the largest number of each column, which falls to the second as its row goes.

    Linear in `kept`: a removal of the row that holds the extreme gives the extreme of the others,
    as exactly as a removal of any other row gives none; so does the addition of a row.

    Args:
        x: Columns, [n, d], missing cells as NaN.
        kept: 1 for each row that is there, 0 for one that may be added, [n].

    Returns:
        Maxima, [d].
    """
    there = (kept.detach() > 0).unsqueeze(1) & ~torch.isnan(x)
    numbers = torch.where(there, x, torch.full_like(x, -torch.inf))
    best, where = numbers.topk(min(2, len(x)), dim=0)
    fall = (best[0] - best[-1]).detach()
    fall = torch.where(torch.isfinite(fall), fall, torch.zeros_like(fall))
    change = kept - kept.detach()
    beyond = torch.where(there | torch.isnan(x), torch.zeros_like(x), x - best[0]).clamp_min(0)
    return best[0] + change[where[0]] * fall + change @ beyond.detach()


def quantile(x: Tensor, q: float, kept: Tensor) -> Tensor:
    """Return a quantile of each column, with what it is without each row, linear in `kept`.

    Args:
        x: Columns, [n, d], missing cells as NaN.
        q: In [0, 1].
        kept: 1 for each row that is there, [n].

    Returns:
        Quantiles, [d].
    """
    whole, there = x, (kept.detach() > 0).unsqueeze(1)
    x = torch.where(there, x, torch.full_like(x, torch.nan))
    order = x.argsort(dim=0)  # missing cells last
    ordered = x.gather(0, order)
    counts = (~torch.isnan(x)).sum(0)
    value = _between(ordered, q * (counts - 1).double(), counts)
    plain, ranks = ordered.detach(), torch.arange(len(x)).unsqueeze(1)
    # Without the row of rank r, what was at k + 1 moves to k for k >= r.
    place = q * (counts - 2).clamp_min(0).double()
    low = place.floor().long()
    high = (low + 1).minimum((counts - 2).clamp_min(0))
    last = len(x) - 1
    first, second = (
        plain.gather(0, (at + (ranks <= at).long()).clamp_max(last)) for at in (low, high)
    )
    without = first + (place - low) * (second - first)
    fall = value.detach() - without
    fall = torch.where((ranks < counts) & torch.isfinite(fall), fall, torch.zeros_like(fall))
    by_row = torch.zeros_like(fall).scatter(0, order, fall)
    # A row that may be added counts as the row in whose place it would be: the swap of a row for
    # an equal one then changes nothing.
    added = torch.nonzero(~there[:, 0]).flatten()
    rank = (plain.unsqueeze(0) < whole[added].detach().unsqueeze(1)).sum(1)
    like = fall.gather(0, rank.minimum((counts - 1).clamp_min(0)))
    by_row[added] = torch.where(torch.isnan(whole[added]), torch.zeros_like(like), like)
    return value + (kept - kept.detach()) @ by_row


def _between(ordered: Tensor, place: Tensor, counts: Tensor) -> Tensor:
    """Return the numbers at fractional places of sorted columns, [d]."""
    low = place.floor().long().clamp_min(0).unsqueeze(0)
    high = (low + 1).minimum((counts - 1).unsqueeze(0)).clamp_min(0)
    first, second = ordered.gather(0, low)[0], ordered.gather(0, high)[0]
    return first + (place - low[0]) * (second - first)
