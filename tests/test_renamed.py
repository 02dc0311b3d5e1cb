"""Old public names: they are the new ones, and say so."""

from __future__ import annotations

from types import ModuleType

import pytest

import whence

_OLD = [
    (whence.attacks, "craft", "attack"),
    (whence.evaluation, "Bank", "RetrainingEnsemble"),
    (whence.evaluation, "subset_bank", "retraining_ensemble"),
    (whence.evaluation, "load_bank", "load_ensemble"),
]


@pytest.mark.parametrize(("module", "old", "new"), _OLD, ids=[old for _, old, _ in _OLD])
def test_old_names_are_the_new_ones_and_warn(module: ModuleType, old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is called {new} now"):
        assert getattr(module, old) is getattr(module, new)


def test_other_names_are_no_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = whence.attacks.nothing
