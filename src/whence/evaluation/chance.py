"""How far retrainings differ by chance alone, beside the changes that they are to show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from whence.checked import Float

_PART = 0.1  # of the size of retrained changes, from which chance is worth a sentence
_MOST = 0.5  # from which chance alone makes such changes


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Chance:
    """Outcomes of fits to the same training examples in other orders.

    A fit in batches puts every example into another batch when one is removed. So does another
    order of the same examples, whose effect should be none.

    Args:
        outcomes: The measure of each of q queries in r fits, [r, q].

    Examples:
        >>> chance = Chance(outcomes=np.array([[0.1], [0.3], [0.2]]))
        >>> round(chance.share(np.array([[0.2, -0.2]])), 6)
        0.5
    """

    outcomes: Float

    @property
    def spread(self) -> float:
        """The standard deviation of the outcomes, the root mean square over queries."""
        return float(np.sqrt(self.outcomes.var(axis=0, ddof=1).mean()))

    def share(self, actual: Float) -> float:
        """Return the spread over the root mean square of retrained changes; 0 where none differ.

        Args:
            actual: [q, k].
        """
        size = float(np.sqrt(np.square(actual).mean()))
        if not self.spread:
            return 0.0
        return self.spread / size if size else float("inf")

    def said(self, actual: Float) -> str:
        """Return what of retrained changes is chance, a sentence; empty where little is.

        Args:
            actual: [q, k].
        """
        share = self.share(actual)
        if share < _PART:
            return ""
        what = "a part of them is chance, which lowers R"
        if share >= _MOST:
            what = "chance alone makes changes of that size, so that R says little of the scores"
        return (
            f"Fits to the same examples in {len(self.outcomes)} other orders differ by {share:.2g} "
            f"times the size of these changes: {what}."
        )
