"""On a Ray cluster: the map over shards, and an index whose driver and worker are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whence
from tests.test_workers import spectrum, unusual_settings
from whence.index.damage import sha256
from whence.index.format import Manifest
from whence.methods.attribution import Attribution
from whence.methods.features import Block, FeatureMap
from whence.methods.method import Method
from whence.objective.measures import Measure
from whence.objective.trained import Examples, Trained
from whence.workers import map_shards

__all__ = ["unusual_settings"]  # a fixture, found by name

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray, at the end of its processes
ray = pytest.importorskip("ray")


@dataclass(frozen=True)
class Fragile(Method):
    """Gradients whose first computation of the 12th example ends its process."""

    fuse: str

    def attribution(self, trained: Trained) -> Attribution:
        raise AssertionError

    def feature_map(self, trained: Trained) -> FeatureMap:
        return Exploding(whence.Projected(moment="layers", size=4).feature_map(trained), self.fuse)


@dataclass(frozen=True, eq=False)
class Exploding(FeatureMap):
    inner: FeatureMap
    fuse: str

    @property
    def trained(self) -> Trained:  # type: ignore[override]
        return self.inner.trained

    @property
    def words(self) -> str:  # type: ignore[override]
        return self.inner.words

    @property
    def parts(self) -> tuple[tuple[Block, ...], ...]:
        return self.inner.parts

    @property
    def groups(self) -> tuple[slice, ...]:
        return self.inner.groups

    def rows(self, examples: Examples) -> Tensor:
        Path(f"{self.fuse}.{os.getpid()}").touch()
        if 12 in examples.ids and not Path(self.fuse).exists():
            Path(self.fuse).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner.rows(examples)

    def queries(self, examples: Examples, measure: Measure) -> Tensor:
        return self.inner.queries(examples, measure)


def made() -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, generator=generator)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, torch.arange(30) % 3))
    return objective, (x[:2] + 0.1, torch.arange(2))


KILLED = """
import os, signal, sys
from dataclasses import replace
import whence
from tests.test_cluster import Fragile, made
from whence.index.format import Manifest
real = Manifest.write
def write(self, folder):
    real(self, folder)
    if len(self.shards) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
Manifest.write = write
whence.Index.build(made()[0], sys.argv[1], method=Fragile(sys.argv[2]), shard_rows=5, workers=2,
                   backend="ray")
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster on this machine, which the first call on Ray has started.

    Beside the file of another that was killed, on which Ray by itself waits for minutes.
    """
    assert not ray.is_initialized()
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder.name)
        patch.delenv("RAY_ADDRESS", raising=False)
        stale = Path(folder.name, "ray", "ray_current_cluster")
        stale.parent.mkdir()
        stale.write_text("127.0.0.1:1")
        assert list(map_shards(abs, [-1], backend="ray")) == [1]
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.mark.usefixtures("cluster", "unusual_settings")
def test_results_are_those_of_this_process() -> None:
    theirs = list(map_shards(spectrum, range(4), workers=2, backend="ray"))
    for (_, mine, _), (_, other, _) in zip(map_shards(spectrum, range(4)), theirs, strict=True):
        assert torch.equal(mine, other)
        assert other.dtype == torch.float64


def wait_for_the_end(workers: set[int]) -> None:
    """Wait until Ray has ended the workers of a driver that was killed."""
    deadline = time.monotonic() + 60
    while any(Path("/proc", str(worker)).exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_build_on_a_cluster_survives_its_driver_and_a_worker(
    cluster: str, tmp_path: Path
) -> None:
    """The same bytes, and the same answers, as one undisturbed process."""
    objective, queries = made()
    method = Fragile(str(tmp_path / "fuse"))
    Path(method.fuse).touch()
    alone = whence.Index.build(objective, tmp_path / "alone", method=method, shard_rows=5)
    repository = Path(__file__).parents[1]
    paths = os.pathsep.join([str(repository), *filter(None, sys.path)])
    environment = {**os.environ, "RAY_ADDRESS": cluster, "PYTHONPATH": paths}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "index"), method.fuse]
    ended = subprocess.run(command, env=environment, cwd=repository)
    assert ended.returncode == -signal.SIGKILL
    began = {int(path.suffix[1:]) for path in tmp_path.glob("fuse.*")}
    wait_for_the_end(began - {os.getpid()})
    assert len(Manifest.read(tmp_path / "index").shards) == 2
    for later in sorted((tmp_path / "index").glob("rows-*"))[2:]:
        later.unlink()  # a worker may have been faster than the driver
    Path(method.fuse).unlink()
    index = whence.Index.build(
        objective, tmp_path / "index", method=method, shard_rows=5, workers=2, backend="ray"
    )
    assert Path(method.fuse).exists()  # a worker was killed, and Ray began its shard anew
    files = [
        {path.name: sha256(path) for path in sorted(each.path.iterdir())} for each in (index, alone)
    ]
    assert files[0] == files[1]
    hits = [each.query(queries, k=5) for each in (index, alone)]
    assert np.array_equal(hits[0].helpful.ids, hits[1].helpful.ids)
    assert np.array_equal(hits[0].helpful.values, hits[1].helpful.values)
