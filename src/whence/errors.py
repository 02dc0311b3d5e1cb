"""What can go wrong, and what to catch.

```
WhenceError
├── InvalidInput         (ValueError)         data, labels, shapes or options that cannot be used
├── NotFitted            (ValueError)         a model that has not been trained yet
├── UnsupportedModel     (TypeError)          a model, loss or measure without an exact treatment
├── IncompleteCoverage   (ValueError)         a selected parameter that no gradient rule reaches
├── NotDeterministic     (ValueError)         a model or data that answer differently asked twice
├── NotPositiveDefinite  (ArithmeticError)    a flat or negative direction without damping
├── Diverged             (ArithmeticError)    an iteration whose iterates grow without bound
├── DataMissing          (FileNotFoundError)  a data set neither here nor to be downloaded
├── CorruptFile          (OSError)            a file cut short or changed since it was written
├── NotWritten           (OSError)            a file that the disk or its permissions refuse
└── MissingDependency    (ImportError)        an optional extra that is not installed

NotConvergedWarning      (UserWarning)        the answer comes, and says how far from converged
```

Every message says what was expected, what came ("Got …"), and what to do.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)
_NAMED = 5  # names that a sentence lists


class WhenceError(Exception):
    """The root of every error that whence raises on purpose."""


class InvalidInput(WhenceError, ValueError):
    """Data, labels, shapes or options cannot be used as given."""


class NotFitted(WhenceError, ValueError):
    """The estimator or model has not been trained yet."""


class UnsupportedModel(WhenceError, TypeError):
    """The model, loss, measure or optimizer cannot be treated exactly."""


class IncompleteCoverage(WhenceError, ValueError):
    """A selected parameter is reached by no gradient rule."""


class NotDeterministic(WhenceError, ValueError):
    """The model or its data answers differently when asked twice."""


class NotPositiveDefinite(WhenceError, ArithmeticError):
    """The curvature has a flat or negative direction and the damping does not remove it.

    Attributes:
        sufficient_damping: The smallest damping known to make the matrix positive definite,
            or `None` where the failing computation could not tell.
    """

    def __init__(self, message: str, *, sufficient_damping: float | None = None) -> None:
        """Store the message and, where known, the damping that would suffice."""
        super().__init__(message)
        self.sufficient_damping = sufficient_damping


class Diverged(WhenceError, ArithmeticError):
    """An iteration grew without bound instead of converging."""


class DataMissing(WhenceError, FileNotFoundError):
    """A data set is neither on this machine nor to be downloaded."""


class CorruptFile(WhenceError, OSError):
    """A file is cut short, or is not what was written."""


class NotWritten(WhenceError, OSError):
    """A file could not be written; what was there before is unchanged."""


class MissingDependency(WhenceError, ImportError):
    """An optional extra is needed and not installed."""


class NotConvergedWarning(UserWarning):
    """The result is returned but the fit or the solve behind it has not converged."""


def warn_user(message: str) -> None:
    """Warn that something has not converged, at the line of the user's that led to it.

    Args:
        message: What was expected, what came, and what to do.

    Warns:
        NotConvergedWarning: With the message.
    """
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, NotConvergedWarning, stacklevel=level)


def with_article(noun: str) -> str:
    """Return a noun with its article, for messages.

    Args:
        noun: Of one letter at least.

    Examples:
        >>> with_article("index"), with_article("Tensor")
        ('an index', 'a Tensor')
    """
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def listed(names: Sequence[object]) -> str:
    """Return names in a row, the first five of them, for messages.

    Args:
        names: The names.

    Examples:
        >>> listed([3, 4]), listed(list("abcdefg"))
        ('3, 4', 'a, b, c, d, e and 2 more')
    """
    shown, more = ", ".join(map(str, names[:_NAMED])), len(names) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def closest(typed: str, known: Iterable[str]) -> str | None:
    """Return the name that was probably meant, for messages; `None` where none is spelled alike.

    Args:
        typed: What came, in letters of either case.
        known: The names that there are.

    Examples:
        >>> closest("Speces", ["species", "island"]), closest("mass", ["species", "island"])
        ('species', None)
    """
    alike = {name.lower(): name for name in sorted(known)}
    near = difflib.get_close_matches(typed.lower(), alike, n=1, cutoff=0.7)
    return alike[near[0]] if near else None


def meant(typed: str, known: Iterable[str]) -> str:
    """Return a question after a message that names what was probably meant, or nothing.

    Args:
        typed: What came.
        known: The names that there are.

    Examples:
        >>> meant("Speces", ["species", "island"])
        " Did you mean 'species'?"
    """
    near = closest(typed, known)
    return f" Did you mean {near!r}?" if near else ""
