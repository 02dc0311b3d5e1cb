"""Everything that writes, stopped at random points, and the same command again: `make crash`.

Each point forks a process that works in an empty folder and stops it: by a signal at a random time
or inside a write, by a disk that is full or fails, by a read-only folder, by a second writer. Then
each file must be one that an undisturbed run wrote under that name; the same command must finish
without writing again what was there; and the final files must be those of an undisturbed run, byte
for byte. The counts go into the page docs/explanation/reliability.md.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import mmap
import multiprocessing
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ["OMP_NUM_THREADS"] = "1"  # a process with threads of OpenMP cannot be forked

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from tqdm import tqdm

import whence
from benchmarks.between import between
from experiments.koh_liang_2017.resume import each
from tests.pages.pages import explanation
from whence import workers
from whence.errors import InvalidInput, NotWritten
from whence.evaluation import retraining_ensemble
from whence.pages import write
from whence.storage import clear_leftovers, read_arrays, write_arrays

START, END = "<!-- make crash -->", "<!-- end -->"
START_INDEX = "<!-- make crash-index -->"
FINISHED, NOT_WRITTEN, REFUSED, INTERRUPTED, RAW = 0, 3, 4, 130, 99


# What is stopped. Each is one command: it does what is left to do in a folder.


def outcome(weights: Tensor, seed: int) -> Tensor:
    time.sleep(0.003)
    return torch.linspace(-1, 2, 40).reshape(4, 10).double().sin() @ weights.double() + seed


def ensemble(folder: Path) -> None:
    retraining_ensemble(outcome, 10, subsets=6, seeds=2, fingerprint="crash", directory=folder)


def _run(folder: Path) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x = torch.randn(21, 4, generator=torch.Generator().manual_seed(1))
    recipe = whence.Recipe(learning_rate=0.05, batch_size=6, epochs=8, momentum=0.9)
    data = x, torch.arange(21) % 3
    return whence.train(model, whence.CrossEntropy(), data, recipe, directory=folder)


def training(folder: Path) -> None:
    _run(folder)


def metagradient(folder: Path) -> None:
    clear_leftovers(folder)
    if not (folder / "run" / "scores.npz").exists():
        run = _run(folder / "run")
        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
        scores = whence.metagradient(run, (x, torch.arange(3)))
        clear_leftovers(folder / "run")
        write_arrays(folder / "run" / "scores.npz", "crash", values=scores.values)
    clear_leftovers(folder / "run")


def recorded(folder: Path) -> None:
    """As `Trainer` does: the callback at each step, then a checkpoint of its own, as of step 3."""
    from transformers import TrainerState

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    x, y = torch.randn(21, 4, generator=torch.Generator().manual_seed(1)), torch.arange(21) % 3
    state, kept = TrainerState(max_steps=10), folder / "resumed.npz"
    clear_leftovers(folder)
    if kept.exists():
        arrays = {name: torch.from_numpy(a) for name, a in read_arrays(kept, "crash").items()}
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()  # makes its state, which the next lines replace
        for at, p in enumerate(model.parameters()):
            p.data.copy_(arrays[f"{at}.param"])
            for name, value in optimizer.state[p].items():
                value.copy_(arrays[f"{at}.{name}"])
        state.global_step = int(arrays["step"])
    if state.global_step == state.max_steps:
        return
    callback = whence.trainer_callback(folder / "recorded", every=3)
    with patch("uuid.uuid4", lambda: uuid.UUID(int=0)):  # a training is named at random
        callback.on_train_begin(None, state, None, model=model, optimizer=optimizer)
    while state.global_step < state.max_steps:
        time.sleep(0.003)
        callback.on_step_begin(None, state, None, model=model, optimizer=optimizer)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        state.global_step += 1
        callback.on_step_end(None, state, None, model=model, optimizer=optimizer)
        if state.global_step % 3 == 0 or state.global_step == state.max_steps:
            found = {"step": np.asarray(state.global_step)}
            for at, p in enumerate(model.parameters()):
                found[f"{at}.param"] = p.detach().numpy()
                found |= {f"{at}.{name}": v.numpy() for name, v in optimizer.state[p].items()}
            write_arrays(kept, "crash", **found)


def saved_curvature(folder: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = torch.randn(21, 4, generator=torch.Generator().manual_seed(3)), torch.arange(21) % 3
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    for name, solver in {"ekfac": whence.EKFAC(), "kfac": whence.KFAC()}.items():
        time.sleep(0.01)
        saved = whence.SavedCurvature(folder / f"{name}.safetensors", solver)
        whence.influence(objective, (x[:1], y[:1]), solver=saved)


def audited() -> tuple[Any, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(30, 1, 4, 4, dtype=torch.float64, generator=generator) * 2 - 1
    y = (images.mean((1, 2, 3)) > 0).long()
    top = LogisticRegression(tol=1e-10).fit(images.flatten(1), y)
    return whence.from_frozen(nn.Flatten(), top, images, y), (images[:1], y[:1])


def attack(folder: Path) -> None:
    objective, query = audited()
    path = folder / "attack.npz"
    for _ in range(5):  # as the command line does: from the file, a step, to the file
        clear_leftovers(folder)
        begun = whence.attacks.resume(objective, query, path) if path.exists() else None
        done = len(begun.losses) - 1 if begun else 0
        if done < 4:
            found = whence.attacks.attack(objective, query, steps=1, budget=0.01, start=begun)
            if len(found.losses) - 1 > done:
                found.save(path)


def page(folder: Path) -> None:
    for title in ("First", "Second", "Third"):
        write(explanation(title=title), folder / "page.html")


def experiment(folder: Path) -> None:
    def item(key: str) -> dict[str, Any]:
        time.sleep(0.005)
        return {"value": float(np.sin(int(key)))}

    each("items", [str(key) for key in range(8)], item, settings="crash", folder=folder)


def _index(folder: Path, count: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x = torch.randn(31, 4, generator=torch.Generator().manual_seed(3))
    y = torch.arange(31) % 3
    objective = whence.from_torch(model, whence.CrossEntropy(), (x[:21], y[:21]))
    found = whence.Index.build(objective, folder, rows="int8", shard_rows=4, workers=count)
    found.append((x[21:], y[21:]), workers=count)
    found.remove([3, 25])


def index(folder: Path) -> None:
    _index(folder, 1)


def index_3_workers(folder: Path) -> None:
    _index(folder, 3)


WORKS: tuple[Callable[[Path], None], ...] = (
    ensemble,
    training,
    metagradient,
    recorded,
    saved_curvature,
    attack,
    page,
    experiment,
    index,
    index_3_workers,
)
KILLED = "SIGKILL at a random time", "SIGKILL inside a write"


# A process that does the work, and what it meets


@dataclass(frozen=True)
class Trap:
    """What happens at one of the calls that a process makes to write files.

    Args:
        at: The number of the call.
        raises: The error that it and later calls fail with; `None` to be killed.
        late: Whether the call is made first; of a write, half of it is made in any case.
    """

    at: int
    raises: int | None
    late: bool = False


CALLS = ("open", "write", "fsync", "replace")
REAL = {name: getattr(os, name) for name in CALLS}
COUNTS = mmap.mmap(-1, 16)  # calls, and files that got their name; shared with the processes


def counts() -> tuple[int, int]:
    calls, renamed = struct.unpack("qq", COUNTS[:16])
    return calls, renamed


def watched(name: str, trap: Trap | None) -> Callable[..., Any]:
    """Return a call of the operating system that counts itself, and springs a trap."""
    real = getattr(os, name)

    def call(*arguments: Any, **options: Any) -> Any:
        if name == "open" and not arguments[1] & os.O_CREAT:
            return real(*arguments, **options)
        calls, renamed = counts()
        COUNTS[:16] = struct.pack("qq", calls + 1, renamed)
        if trap is not None and calls >= trap.at:
            if trap.late:
                real(*arguments, **options)
            elif name == "write":
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            if trap.raises is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(trap.raises, os.strerror(trap.raises or 0))
        result = real(*arguments, **options)
        if name == "replace":
            calls, renamed = counts()
            COUNTS[:16] = struct.pack("qq", calls, renamed + 1)
        return result

    return call


def as_if_spawned() -> None:
    """Make a forked worker what a fresh process is: it holds no lock, and meets no trap."""
    for name, real in REAL.items():
        setattr(os, name, real)
    for held in Path("/proc/self/fd").iterdir():
        if held.is_dir():  # a claim holds its folder open
            os.close(int(held.name))


def start(work: Callable[[Path], None], folder: Path, trap: Trap | None = None) -> int:
    """Return the process that does the work."""
    # Ctrl-C waits until the process has its own handlers, lest it goes on as its parent.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    process = os.fork()
    if process:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return process
    code = RAW
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's & takes away
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        for name in CALLS:
            setattr(os, name, watched(name, trap))
        # Workers are forks, in place of an `import torch` for each.
        os.register_at_fork(after_in_child=as_if_spawned)
        workers.get_context = lambda _: multiprocessing.get_context("fork")
        work(folder)
        code = FINISHED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except NotWritten:
        code = NOT_WRITTEN
    except InvalidInput as error:
        code = REFUSED if "no other process" in str(error) else RAW
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end(process: int) -> int:
    """Return how a process ended: its exit status, or minus its signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def contents(folder: Path) -> dict[str, str]:
    """Return the digests of the files with a name of their own."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".whence-")
    }


def leftovers(folder: Path) -> int:
    return len(list(folder.rglob(".whence-*")))


# The undisturbed run


@dataclass(frozen=True)
class Undisturbed:
    """What a work does when nothing happens: its files at every moment, its calls, its seconds."""

    written: set[tuple[str, str]]
    final: dict[str, str]
    calls: int
    renamed: int
    seconds: float

    @classmethod
    def of(cls, work: Callable[[Path], None], folder: Path, log: Path) -> Undisturbed:
        """Do the work, with a line in the log for each file that gets its name."""

        def logged(inside: Path) -> None:
            replace = os.replace

            def logging(source: Path, target: Path) -> None:
                sha = hashlib.sha256(Path(source).read_bytes()).hexdigest()
                with log.open("a") as file:
                    file.write(f"{Path(target).relative_to(inside)} {sha}\n")
                replace(source, target)

            os.replace = logging  # type: ignore[assignment]
            work(inside)

        COUNTS[:16] = bytes(16)
        began = time.monotonic()
        assert end(start(logged, folder)) == FINISHED
        seconds = time.monotonic() - began
        lines = [line.split(" ") for line in log.read_text().splitlines()]
        final = contents(folder)
        # Workers write shards, which never change, and no lines.
        written = {(name, sha) for name, sha in lines} | {*final.items()}
        return cls(written, final, *counts(), seconds)


# Points


@dataclass
class Campaign:
    """Counts of what happened, and sentences of what must not."""

    points: Counter[tuple[str, str]] = field(default_factory=Counter)
    stopped: Counter[str] = field(default_factory=Counter)
    cleared: int = 0
    files: int = 0
    broken: list[str] = field(default_factory=list)


@dataclass
class Point:
    """One folder in which one thing happens."""

    campaign: Campaign
    fault: str
    work: Callable[[Path], None]
    normal: Undisturbed
    folder: Path
    drawn: random.Random

    def complain(self, what: str) -> None:
        self.campaign.broken.append(f"{self.work.__name__}, {self.fault}: {what}")

    def stopped(self, *processes: int, allowed: tuple[int, ...]) -> None:
        """Wait for processes that something happens to, and check what they leave."""
        codes = [end(process) for process in processes]
        if not set(codes) <= {FINISHED, *allowed}:
            self.complain(f"ended with {codes}")
        self.campaign.stopped[self.fault] += any(code != FINISHED for code in codes)
        foreign = set(contents(self.folder).items()) - self.normal.written
        if foreign:
            self.complain(f"half-written: {sorted(foreign)}")
        self.campaign.files += len(contents(self.folder))
        self.campaign.cleared += leftovers(self.folder)

    def at_a_time(self, number: int) -> None:
        """Send a signal at a random time."""
        process = start(self.work, self.folder)
        time.sleep(self.drawn.uniform(0, 1.1 * self.normal.seconds))
        os.kill(process, number)
        self.stopped(process, allowed=(-number, INTERRUPTED))

    def at_a_call(self, raises: int | None) -> None:
        """Fail or be killed at a random call of those that write."""
        trap = Trap(self.drawn.randrange(self.normal.calls), raises, self.drawn.random() < 0.5)
        process = start(self.work, self.folder, trap)
        self.stopped(process, allowed=(NOT_WRITTEN,) if raises else (-signal.SIGKILL,))

    def again(self, *, counted: bool = True) -> None:
        """Give the same command again, and compare with an undisturbed run."""
        renamed = counts()[1]
        COUNTS[:16] = bytes(16)
        code = end(start(self.work, self.folder))
        if code != FINISHED:
            self.complain(f"the same command ended with {code}")
        if contents(self.folder) != self.normal.final:
            self.complain("other final bytes")
        if leftovers(self.folder):
            self.complain("a temporary file is left")
        # A page is written anew; a metagradient is lost where it was finished and not yet saved;
        # a recorded training that stopped before its own checkpoint repeats the steps before it.
        again = {"page": 3, "metagradient": self.normal.renamed, "recorded": 2}
        most = again.get(self.work.__name__, 0)
        if counted and renamed + counts()[1] > self.normal.renamed + most:
            self.complain(f"{renamed} files written, {counts()[1]} again")


def killed(point: Point) -> None:
    point.at_a_time(signal.SIGKILL)
    point.again()


def killed_writing(point: Point) -> None:
    point.at_a_call(None)
    point.again()


def interrupted(point: Point) -> None:
    point.at_a_time(signal.SIGINT)
    point.again()


def terminated(point: Point) -> None:
    point.at_a_time(signal.SIGTERM)
    point.again()


def full(point: Point) -> None:
    point.at_a_call(errno.ENOSPC)
    point.again()


def failing(point: Point) -> None:
    point.at_a_call(errno.EIO)
    point.again()


def really_full(point: Point) -> None:
    with mounted(point.folder, pages=point.drawn.randint(1, 4 * len(point.normal.final) + 4)):
        point.stopped(start(point.work, point.folder), allowed=(NOT_WRITTEN,))
        mount("remount,size=64m", point.folder)
        point.again()


def read_only(point: Point) -> None:
    with mounted(point.folder, pages=10_000):
        point.at_a_time(signal.SIGKILL)
        mount("remount,ro", point.folder)
        point.stopped(start(point.work, point.folder), allowed=(NOT_WRITTEN,))
        mount("remount,rw", point.folder)
        point.again()


def two_writers(point: Point) -> None:
    first = start(point.work, point.folder)
    time.sleep(point.drawn.uniform(0, point.normal.seconds))
    point.stopped(first, start(point.work, point.folder), allowed=(REFUSED,))
    point.again(counted=False)


def clock_set_back(point: Point) -> None:
    point.at_a_time(signal.SIGKILL)
    for path in point.folder.rglob("*"):
        os.utime(path, (2**32, 2**32))  # its files come from the year 2106
    point.again()


FAULTS: dict[str, Callable[[Point], None]] = {
    KILLED[0]: killed,
    KILLED[1]: killed_writing,
    "SIGINT (Ctrl-C)": interrupted,
    "SIGTERM": terminated,
    "no space left (ENOSPC)": full,
    "failing disk (EIO)": failing,
    "a file system that is full": really_full,
    "a folder that became read-only": read_only,
    "two writers": two_writers,
    "SIGKILL, then the clock set back": clock_set_back,
}
NEED_MOUNT = (really_full, read_only)


def mounting() -> list[str]:
    """Return what stands before a command that mounts, as any user may; nothing where none may.

    It also tells the command by a variable, which it inherits, whether to try.
    """
    inside = ["unshare", "--map-root-user", "--mount"]
    trial = [*inside, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tempfile.gettempdir()]
    able = sys.platform == "linux" and not subprocess.run(trial, check=False).returncode
    os.environ["WHENCE_MOUNTS"] = "yes" if able else ""
    return inside if able else []


def mount(options: str, folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


@contextmanager
def mounted(folder: Path, pages: int) -> Iterator[None]:
    """Put a small file system in place of a folder."""
    mount(f"size={pages * 4096}", folder)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def table(campaign: Campaign, options: argparse.Namespace) -> str:
    """Return the counts as Markdown."""
    names = [work.__name__ for work in WORKS if any(w == work.__name__ for _, w in campaign.points)]
    lines = [
        f"{sum(campaign.points.values())} points, seed {options.seed}; Python "
        f"{sys.version.split()[0]}, torch {torch.__version__}, {sys.platform}.",
        "",
        f"| what happens | {' | '.join(names)} | stopped before the end |",
        "|---|" + "---:|" * (len(names) + 1),
    ]
    for fault in dict.fromkeys(fault for fault, _ in campaign.points):
        cells = [str(campaign.points[fault, name] or "–") for name in names]
        lines.append(f"| {fault} | {' | '.join(cells)} | {campaign.stopped[fault]} |")
    lines += [
        "",
        f"Files compared after the stops: {campaign.files}. Temporary files that dead processes "
        f"left, and the next command cleared: {campaign.cleared}. "
        f"Violations: {len(campaign.broken)}.",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600, help="stop earlier after these")
    parser.add_argument("--index", action="store_true", help="kill the index alone, nothing else")
    parser.add_argument("--only", nargs="+", help="names of what is stopped, nothing else")
    parser.add_argument("--page", type=Path, help="put the counts into this page")
    options = parser.parse_args()
    works = [work for work in WORKS if not options.index or "index" in work.__name__]
    works = [work for work in works if work.__name__ in (options.only or work.__name__)]
    if "WHENCE_MOUNTS" not in os.environ and not options.index and (before := mounting()):
        os.execvp(before[0], [*before, sys.executable, "-m", "tests.crash", *sys.argv[1:]])
    faults = {
        name: fault
        for name, fault in FAULTS.items()
        if (os.environ.get("WHENCE_MOUNTS") or fault not in NEED_MOUNT)
        and (name in KILLED or not options.index)
    }
    drawn, campaign = random.Random(options.seed), Campaign()
    # Its own lock lies in memory that processes share: one killed inside of it would stop all.
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0  # no second thread where processes are forked
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as scratch:
        normal = {}
        for work in works:
            if work is not index_3_workers:  # its imports are those of the index with one
                warm = Path(scratch) / f"warm-{work.__name__}"
                warm.mkdir()
                work(warm)  # in this process, so that those it forks need not import again
            folder = Path(scratch) / work.__name__
            folder.mkdir()
            normal[work] = Undisturbed.of(work, folder, Path(scratch) / "log")
            (Path(scratch) / "log").unlink()
        # Each fault in turn, each with another work: a short run has all of both.
        pairs = [
            (fault, works[(at + turn) % len(works)])
            for turn in range(len(works))
            for at, fault in enumerate(faults)
        ]
        for number in range(options.points):
            if time.monotonic() > end:
                break
            fault, work = pairs[number % len(pairs)]
            folder = Path(scratch) / str(number)
            folder.mkdir()
            COUNTS[:16] = bytes(16)
            point = Point(campaign, fault, work, normal[work], folder, drawn)
            faults[fault](point)
            campaign.points[fault, work.__name__] += 1
            shutil.rmtree(folder)
    print(table(campaign, options))
    for sentence in campaign.broken:
        print(sentence, file=sys.stderr)
    if options.page:
        text = options.page.read_text(encoding="utf-8")
        start = START_INDEX if options.index else START
        written = between(text, start, END, f"\n{table(campaign, options)}\n")
        options.page.write_text(written, encoding="utf-8")
    return bool(campaign.broken)


if __name__ == "__main__":
    sys.exit(main())
