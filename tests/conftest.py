"""What all tests share."""

from __future__ import annotations

import functools
import gc
import os
from pathlib import Path

# Before torch is imported, here and in the processes that tests start: on the small products of
# tests a second thread gains nothing, and on a busy machine the two wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import typer.main
from hypothesis import HealthCheck, settings

from tests.fitted import binary, fitted, multinomial, ridge

# What collecting the tests imports and builds lives until the end: looking for garbage among it is
# a quarter of the time that collecting takes.
gc.disable()

__all__ = ["binary", "fitted", "multinomial", "ridge"]  # fixtures, found by name

# How long an example takes says how busy the machine is, and nothing about the code. The examples
# are the same in every run, so that a change is judged and not chance; `make properties` draws new
# ones.
settings.register_profile("new", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("whence", settings.get_profile("new"), derandomize=True)
settings.load_profile("whence")

# The command line is the same in each of the hundreds of calls that tests make of it.
typer.main.get_command = functools.cache(typer.main.get_command)

_REPOSITORY = Path(__file__).parent.parent


def pytest_collection_finish() -> None:
    """From here on, look for garbage among what the tests themselves make."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def whence_data() -> Path:
    """The folder of real data sets, from WHENCE_DATA or beside the repository."""
    given = os.environ.get("WHENCE_DATA")
    folder = Path(given) if given else _REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder}: set WHENCE_DATA to the folder that holds them")
    return folder
