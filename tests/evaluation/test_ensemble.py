"""Retraining ensembles: their subsets, their files, and what kills, cuts and mix-ups do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.damage import assert_noticed
from whence.errors import CorruptFile, InvalidInput
from whence.evaluation import (
    RetrainingEnsemble,
    Together,
    lds,
    load_ensemble,
    noise_ceiling,
    retraining_ensemble,
)

N = 10
PINNED = [[1, 2, 3, 6, 8], [1, 4, 5, 7, 9]]
VALUES = torch.linspace(-1, 2, 2 * N).reshape(2, N).double().sin()


def outcome(weights: Tensor, seed: int) -> Tensor:
    """Return each query's weighted mean of values, moved by the seed: a stand-in for training."""
    return VALUES @ weights.double() / N + 0.01 * seed


@dataclass
class Counting:
    """A retraining that remembers which members it was asked for, and fails at one if told to."""

    fail_at: int | None = None
    calls: list[tuple[tuple[float, ...], int]] = field(default_factory=list)

    def __call__(self, weights: Tensor, seed: int) -> Tensor:
        """Train one member."""
        if len(self.calls) == self.fail_at:
            raise ArithmeticError("the power went out")
        self.calls.append((tuple(weights.tolist()), seed))
        return outcome(weights, seed)


def make(directory: Path, retrain: Any = outcome, **changes: Any) -> RetrainingEnsemble:
    """Return an ensemble of 4 subsets and 2 seeds, with what the test changes."""
    arguments: dict[str, Any] = {"n": N, "subsets": 4, "seeds": 2, "fingerprint": "data"} | changes
    return retraining_ensemble(retrain, directory=directory, **arguments)


def assert_same(one: RetrainingEnsemble, other: RetrainingEnsemble) -> None:
    """Two ensembles agree bit for bit."""
    assert torch.equal(one.masks, other.masks)
    assert torch.equal(one.outcomes, other.outcomes)
    assert (one.seeds, one.fingerprint) == (other.seeds, other.fingerprint)


def files(directory: Path) -> set[str]:
    """Return the names of all files in an ensemble."""
    return {path.name for path in directory.rglob("*") if path.is_file()}


def test_outcomes_are_those_of_the_masks(tmp_path: Path) -> None:
    """Entry [i, j, q] is query q after training on subset j with seed i; each trained once."""
    counting = Counting()
    ensemble = make(tmp_path, counting, seeds=[7, 3])
    assert ensemble.masks.shape == (4, N)
    assert ensemble.masks.dtype == torch.bool
    assert (ensemble.masks.sum(1) == N // 2).all()
    assert ensemble.seeds == (7, 3)
    for i, seed in enumerate(ensemble.seeds):
        for j, mask in enumerate(ensemble.masks):
            assert torch.equal(ensemble.outcomes[i, j], outcome(mask.float(), seed))
    assert len(counting.calls) == len(set(counting.calls)) == 8
    assert_same(load_ensemble(tmp_path, fingerprint="data"), ensemble)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), fraction=st.floats(0.06, 0.94))
def test_subsets_have_their_size_and_do_not_depend_on_their_number(
    tmp_path_factory: pytest.TempPathFactory, seed: int, fraction: float
) -> None:
    """Subset j keeps round(fraction · n) examples, and is the same in a larger ensemble."""
    small, large = (
        make(tmp_path_factory.mktemp("ensemble"), subsets=m, seeds=1, seed=seed, fraction=fraction)
        for m in (2, 5)
    )
    assert (large.masks.sum(1) == round(fraction * N)).all()
    assert torch.equal(small.masks, large.masks[:2])


def test_subsets_are_pinned_and_even(tmp_path: Path) -> None:
    """An ensemble begun today can be finished with another version: these masks must never change.

    And each example is kept by about half of 400 subsets (within five standard deviations).
    """
    ensemble = make(tmp_path, subsets=400, seeds=1)
    kept = [mask.nonzero().flatten().tolist() for mask in ensemble.masks[:2]]
    assert kept == PINNED
    assert ((ensemble.masks.sum(0) - 200).abs() < 5 * 10).all()
    assert not torch.equal(ensemble.masks[:4], make(tmp_path / "other", seed=1).masks)


def test_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Members finished before a failure are kept, and only the others are trained."""
    first = Counting(fail_at=3)
    with pytest.raises(ArithmeticError, match="power"):
        make(tmp_path, first)
    with pytest.raises(
        InvalidInput, match="Expected 8 members in .* Got 3; run retraining_ensemble"
    ):
        load_ensemble(tmp_path)
    second = Counting()
    ensemble = make(tmp_path, second)
    assert len(second.calls) == 5
    assert not set(first.calls) & set(second.calls)
    assert_same(ensemble, make(tmp_path / "undisturbed"))
    third = Counting()
    assert_same(make(tmp_path, third), ensemble)
    assert not third.calls


def test_ensemble_grows(tmp_path: Path) -> None:
    """More subsets or seeds train only what is new; fewer return only what is asked."""
    small = make(tmp_path)
    counting = Counting()
    large = make(tmp_path, counting, subsets=6, seeds=3)
    assert len(counting.calls) == 6 * 3 - 4 * 2
    assert torch.equal(large.outcomes[:2, :4], small.outcomes)
    assert_same(make(tmp_path), small)
    assert_same(load_ensemble(tmp_path), large)


SCRIPT = """
import os, sys, time
from pathlib import Path
import torch
from whence.evaluation import retraining_ensemble
sys.path.insert(0, {root!r})
from tests.evaluation.test_ensemble import N, outcome

def slow(weights, seed):
    Path({pids!r}, str(os.getpid())).touch()
    time.sleep(0.2)
    return outcome(weights, seed)

if __name__ == "__main__":
    directory, workers = {ensemble!r}, {workers}
    retraining_ensemble(
        slow, N, subsets=40, seeds=2, fingerprint="data", directory=directory, workers=workers
    )
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """After kill -9 no worker is left, and the result is that of one undisturbed process.

    One that works alone is killed by `python -m tests.crash`.
    """
    workers = 2
    ensemble, pids = tmp_path / "ensemble", tmp_path / "pids"
    pids.mkdir()
    script = tmp_path / "script.py"
    root = str(Path(__file__).parents[2])
    script.write_text(
        SCRIPT.format(root=root, pids=str(pids), ensemble=str(ensemble), workers=workers)
    )
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600  # on a busy machine too
    while len(list(ensemble.glob("members/*.npz"))) < 5 or len(list(pids.iterdir())) < workers:
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline, "the run did not begin"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while any(alive(int(path.name)) for path in pids.iterdir()):
        assert time.monotonic() < deadline, "a worker outlived the run"
        time.sleep(0.01)

    finished = len(list(ensemble.glob("members/*.npz")))
    assert 5 <= finished < 80
    counting = Counting()
    resumed = make(ensemble, counting, subsets=40)
    assert len(counting.calls) == 80 - finished
    assert_same(resumed, make(tmp_path / "undisturbed", subsets=40))
    assert not [name for name in files(ensemble) if name.endswith(".tmp")]


def alive(pid: int) -> bool:
    """Return whether a process is there and not merely waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    return state not in "ZX"


def test_together_trains_stacks(tmp_path: Path) -> None:
    """Several members at once give the ensemble of one at a time, in stacks of the size asked."""
    sizes = []

    def stack(weights: Tensor, seeds: Sequence[int]) -> Tensor:
        """Train k members."""
        sizes.append((len(weights), len(seeds)))
        return torch.stack([outcome(w, s) for w, s in zip(weights, seeds, strict=True)])

    ensemble = make(tmp_path / "together", Together(stack, size=3))
    assert sizes == [(3, 3), (3, 3), (2, 2)]
    assert_same(ensemble, make(tmp_path / "one"))
    with pytest.raises(InvalidInput, match=r"outcomes \[k, q\] for k = 3 members. Got \[2\]"):
        make(tmp_path / "wrong", Together(lambda weights, seeds: outcome(weights[0], 0), size=3))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fingerprint": "other"}, "to have fingerprint 'other'. Got fingerprint 'data'"),
        ({"n": 12}, "to have n 12. Got n 10"),
        ({"fraction": 0.8}, "to have fraction 0.8. Got fraction 0.5"),
        ({"seed": 1}, "to have seed 1. Got seed 0"),
    ],
)
def test_ensemble_of_something_else_is_refused(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    """A directory holds one ensemble; another is refused in one sentence, before any training."""
    make(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    counting = Counting()
    with pytest.raises(InvalidInput, match=sentence):
        make(tmp_path, counting, **change)
    assert not counting.calls
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_load_refuses_what_is_not_the_ensemble_expected(tmp_path: Path) -> None:
    """No ensemble, and an ensemble of other data."""
    with pytest.raises(InvalidInput, match="Got no manifest.json"):
        load_ensemble(tmp_path)
    make(tmp_path)
    with pytest.raises(InvalidInput, match="fingerprint 'mine'. Got fingerprint 'data'"):
        load_ensemble(tmp_path, fingerprint="mine")


def test_damaged_member_is_named_and_trained_again(tmp_path: Path) -> None:
    """Every bit flipped and every length cut to is noticed, and the member replaced."""
    ensemble = make(tmp_path)
    path = tmp_path / "members" / "00002-1.npz"
    assert_noticed(path, lambda: load_ensemble(tmp_path), flips=50, cuts=range(0, 500, 50))
    root = tmp_path / "one"
    make(root, subsets=1, seeds=1)
    assert_noticed(root / "members" / "00000-0.npz", lambda: load_ensemble(root), flips=2000)
    assert_noticed(root / "manifest.json", lambda: load_ensemble(root))
    path.write_bytes(path.read_bytes()[:-1])
    counting = Counting()
    with pytest.warns(UserWarning, match="1 members .* trained again: .*00002-1.npz"):
        assert_same(make(tmp_path, counting), ensemble)
    assert counting.calls == [(tuple(ensemble.masks[2].float().tolist()), 1)]
    assert_same(load_ensemble(tmp_path), ensemble)


def test_members_that_changed_places_are_trained_again(tmp_path: Path) -> None:
    """A member under the name of another is not that other one."""
    ensemble = make(tmp_path)
    one, other = (tmp_path / "members" / name for name in ("00000-0.npz", "00001-0.npz"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    with pytest.raises(CorruptFile, match=r"2 members .*'00000-0.npz', '00001-0.npz'"):
        load_ensemble(tmp_path)
    with pytest.warns(UserWarning, match="2 members"):
        assert_same(make(tmp_path), ensemble)


def test_member_of_another_ensemble_is_not_believed(tmp_path: Path) -> None:
    """A member copied from elsewhere is trained again."""
    ensemble, other = (
        make(tmp_path / "ensemble"),
        make(tmp_path / "other", fingerprint="other", seed=5),
    )
    assert not torch.equal(ensemble.outcomes, other.outcomes)
    name = "members/00000-0.npz"
    (tmp_path / "ensemble" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.warns(UserWarning, match="of another ensemble"):
        assert_same(make(tmp_path / "ensemble"), ensemble)


def test_leftovers_of_a_killed_write_are_cleared(tmp_path: Path) -> None:
    """Temporary files of the ensemble go, without being read; those of others stay."""
    ensemble = make(tmp_path)
    for leftover in ("members/.whence-0123.tmp", ".whence-4567.tmp", "mine.tmp"):
        (tmp_path / leftover).write_bytes(b"half")
    (tmp_path / "members" / "00001-0.npz").unlink()
    assert_same(make(tmp_path), ensemble)
    assert {name for name in files(tmp_path) if name.endswith(".tmp")} == {"mine.tmp"}


def test_what_a_killed_worker_half_wrote_is_cleared(tmp_path: Path) -> None:
    """One that is killed while others go on, as on a Ray cluster, which begins its member anew."""

    def leaving(weights: Tensor, seed: int) -> Tensor:
        (tmp_path / "members" / ".whence-0123.tmp").write_bytes(b"half")
        return outcome(weights, seed)

    make(tmp_path, leaving)
    assert not [name for name in files(tmp_path) if name.endswith(".tmp")]


def test_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    """One process at a time fills an ensemble; a complete one may be asked for again meanwhile."""
    ensemble = make(tmp_path)

    def reading(weights: Tensor, seed: int) -> Tensor:
        """Train, while others ask for the ensemble."""
        assert_same(make(tmp_path), ensemble)
        assert_same(load_ensemble(tmp_path / "complete"), ensemble)
        with pytest.raises(InvalidInput, match="no other process to write in"):
            make(tmp_path, subsets=5)
        return outcome(weights, seed)

    make(tmp_path / "complete")
    grown = make(tmp_path, reading, subsets=5)
    assert torch.equal(grown.outcomes[:, :4], ensemble.outcomes)
    assert_same(make(tmp_path), ensemble)


@pytest.mark.parametrize("content", [b"", b'{"format": 2, "n"', b"[1]", b'{"format": 2}', b"\xff"])
def test_broken_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    """A manifest that says nothing is no licence to train over what is there."""
    make(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    for again in (make, load_ensemble):
        with pytest.raises(CorruptFile, match="manifest.json"):
            again(tmp_path)


def test_ensemble_of_an_earlier_format_is_refused(tmp_path: Path) -> None:
    """Its members cannot be checked for damage."""
    (tmp_path / "manifest.json").write_text('{"format": 1, "n": 10}')
    with pytest.raises(InvalidInput, match="format 2 .* format 1. Choose another directory"):
        make(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 1}, "n ≥ 2 examples"),
        ({"subsets": 0}, "at least one subset"),
        ({"seeds": 0}, "one seed"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"fraction": 1.0}, "Expected a fraction between 0 and 1"),
        ({"fraction": 0.01}, "keeps an example and leaves one out"),
        ({"workers": 0}, "workers must be at least 1"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """What describes no ensemble is refused."""
    with pytest.raises(InvalidInput, match=message):
        make(tmp_path, **change)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.tensor([1.0, torch.nan]), "outcomes of subset 0, seed 0 must be finite. Got 1 of 2"),
        (torch.tensor(1.0), r"outcomes of subset 0, seed 0 must have shape \[q\]"),
        ("low", "outcomes of subset 0, seed 0 must be numbers"),
    ],
)
def test_outcomes_that_are_none(tmp_path: Path, returned: Any, message: str) -> None:
    """A diverged training is named, and nothing of it is written."""
    with pytest.raises(InvalidInput, match=message):
        make(tmp_path, lambda weights, seed: returned)
    assert files(tmp_path) == {"manifest.json"}


def test_trainings_that_disagree_about_the_queries(tmp_path: Path) -> None:
    """All members answer about the same queries."""
    with pytest.raises(InvalidInput, match=r"same number of queries .* Got \[1, 2\]"):
        make(tmp_path, lambda weights, seed: torch.zeros(1 + seed))


def test_progress_is_silent_when_not_on_a_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Logs stay readable."""
    make(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_ensemble_feeds_lds(tmp_path: Path) -> None:
    """From retraining to score: exact scores reach 1, and seeds that only shift leave ceiling 1."""
    ensemble = make(tmp_path, subsets=12, seeds=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = lds(-VALUES / N, ensemble.masks, ensemble.outcomes, resamples=20)
    assert result.mean == pytest.approx(1.0)
    assert noise_ceiling(ensemble.outcomes).mean == pytest.approx(1.0)
