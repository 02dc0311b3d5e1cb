"""Names that were changed: the old ones work for two minor releases, with a warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping


def old_names(module: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Return a module's `__getattr__` that finds public names by their old ones.

    Args:
        module: `__name__` of the module.
        names: The new name of each old one.

    Returns:
        A function that takes a name and returns what it stands for now.
    """

    def find(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(
            f"{module}.{name} is called {names[name]} now. The old name goes in version 0.3.",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(sys.modules[module], names[name])

    return find
