"""What belongs to a model and is computed once: freed with the model, shared by all methods.

A cached value may refer to the model only through its twin, a shallow copy that the cache owns.
Nothing then refers back to the model, which is freed, with all that is cached for it, as soon as
the user lets go of it, without waiting for a garbage collection.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar, final

from whence.objective.trained import Trained

_T = TypeVar("_T")
_Model = TypeVar("_Model", bound=Trained)

_STORE = "_store"  # the attribute by which a twin finds what is cached for its model


@final
class _Store:
    """The values of one model, by key, and its twin."""

    def __init__(self, twin: Trained) -> None:
        self.twin: Trained | None = twin
        self.values: dict[Hashable, Any] = {}
        self.lock = threading.RLock()

    def clear(self) -> None:
        """Let go of all values, and of the twin."""
        self.values.clear()
        self.twin = None


@final
class Recent(Generic[_T]):
    """Values used lately, as many as a number of bytes allows; the oldest go first.

    A copy, and what is read from a pickle, begins empty.

    Args:
        most: Bytes that may be held.
    """

    def __init__(self, most: int) -> None:
        """Hold nothing yet."""
        self.most, self.held = most, 0
        self._values: dict[Hashable, tuple[_T, int]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Recent[_T]], tuple[int]]:
        """Return how to make an empty one."""
        return Recent, (self.most,)

    def get(self, key: Hashable, make: Callable[[], _T], size: Callable[[_T], int]) -> _T:
        """Return a value, made if it is not held.

        Args:
            key: What it is, with all that it depends on.
            make: Makes it.
            size: Its bytes.
        """
        with self._lock:
            found = self._values.pop(key, None)
            if found is not None:
                self._values[key] = found
                return found[0]
        value = make()
        bytes_of_it = size(value)
        with self._lock:
            if key not in self._values and bytes_of_it <= self.most:
                self._values[key] = value, bytes_of_it
                self.held += bytes_of_it
                while self.held > self.most:
                    _, gone = self._values.pop(next(iter(self._values)))
                    self.held -= gone
        return value


_STORES: weakref.WeakKeyDictionary[Trained, _Store] = weakref.WeakKeyDictionary()
_CREATING = threading.Lock()


def cached(model: _Model, key: Hashable, make: Callable[[_Model], _T]) -> _T:
    """Return a value that belongs to a model, computed once and freed with the model.

    Threads that ask for the same value wait for each other: it is computed once.

    Args:
        model: The model, or its twin.
        key: What the value is, with the options it depends on.
        make: Computes it from the twin of the model, to which the value may refer.

    Returns:
        The value.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> cached(objective, "n", lambda twin: len(twin.train))
        442
    """
    store = _store_of(model)
    with store.lock:
        if key not in store.values:
            twin: Any = store.twin or model
            store.values[key] = make(twin)
        value: _T = store.values[key]
    return value


def is_cached(model: Trained, key: Hashable) -> bool:
    """Return whether a value is cached for a model.

    Args:
        model: The model, or its twin.
        key: What the value is.
    """
    return key in _store_of(model).values


def first_time(model: Trained, key: Hashable) -> bool:
    """Return whether this is the first call for a model with this key.

    Args:
        model: The model, or its twin.
        key: What happens once, such as a warning.
    """
    store = _store_of(model)
    with store.lock:
        known = key in store.values
        store.values[key] = True
    return not known


def _store_of(model: Trained) -> _Store:
    """Return the store of a model, which its twin shares."""
    own: _Store | None = vars(model).get(_STORE)
    if own is not None:
        return own
    with _CREATING:
        store = _STORES.get(model)
        if store is None:
            twin = copy.copy(model)
            store = _STORES[model] = _Store(twin)
            vars(twin)[_STORE] = store
            weakref.finalize(model, store.clear)
    return store
