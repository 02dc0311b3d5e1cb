"""The same answer wherever it is asked: locale, time zone, terminal, memory, copies, processes."""

from __future__ import annotations

import copy
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

import whence
from tests.fuzz import calls
from tests.threads import MODELS, queries
from whence.cli import main

_ASKED = ("explain", "train.csv", "-t", "y", "--row", "3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tables")
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X.iloc[:60, :3].assign(y=y[:60]).to_csv(root / "train.csv", index=False)
    return root


def printed(folder: Path, changes: dict[str, str], *before: str) -> str:
    """What is printed with variables changed, or taken out where the value is empty."""
    command = [*before, sys.executable, "-m", "whence", *_ASKED]
    environment = {name: value for name, value in {**os.environ, **changes}.items() if value}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, check=False, timeout=200
    )
    said = done.stderr.decode(errors="replace")
    assert done.returncode == 0, said
    assert "Traceback" not in said
    return done.stdout.decode(errors="replace")


def test_the_same_words_in_any_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another locale and time zone, a narrow terminal, and `ulimit -v` 8 GB, all in one process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["whence", *_ASKED])
    with pytest.raises(SystemExit):
        main()
    elsewhere = {"LC_ALL": "de_DE.UTF-8", "TZ": "Pacific/Chatham", "TERM": "dumb"}
    elsewhere |= {"COLUMNS": "20", "LINES": "4"}
    limited = "sh", "-c", 'ulimit -v 8000000; exec "$@"', "sh"
    assert printed(folder, elsewhere, *limited) == capsys.readouterr().out


# One process answers twice; whoever reads is gone before the second answer.
_TWICE = """
import runpy, sys

def answer(*words):
    sys.argv = ["whence", *words]
    try:
        runpy.run_module("whence", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        return stop.code

assert not answer(*ASKED)
print("answered", flush=True)
sys.stdin.readline()
sys.exit(answer("influence", "train.csv", "-t", "y", "--row", "3", "-k", "1"))
"""


def test_plain_ascii_no_home_and_a_reader_that_has_gone_give_no_traceback(folder: Path) -> None:
    poor = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    rich = {name: value for name, value in os.environ.items() if name[:4] not in ("HOME", "XDG_")}
    with subprocess.Popen(
        [sys.executable, "-c", f"ASKED = {_ASKED!r}\n{_TWICE}"],
        cwd=folder,
        env={**rich, **poor},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        answer = "".join(itertools.takewhile("answered\n".__ne__, process.stdout))
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        said = process.stderr.read()
    assert "The model says" in answer
    assert "Traceback" not in said
    assert "Error" not in said
    assert process.returncode == 1


# Copies


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_models_can_be_copied_and_pickled(kind: str, duplicate: Callable[[Any], Any]) -> None:
    model = MODELS[kind]()

    def losses(of: Any) -> Any:
        examples = of.examples(queries(kind))
        return of.loss(of.outputs(examples), examples.targets).numpy()

    np.testing.assert_array_equal(losses(duplicate(model)), losses(model))


def test_scores_and_explanations_can_be_pickled() -> None:
    found = calls.scores()
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.values, found.values)
    assert again.diagnostics == found.diagnostics
    explanation = whence.explain(calls.linear(), (calls.rows()[0][:1], calls.rows()[1][:1]), k=2)
    assert str(pickle.loads(pickle.dumps(explanation))) == str(explanation)


# Processes

_LONG: dict[str, str] = {
    "training": "whence.train(calls.layers().double(), whence.CrossEntropy(), data, "
    "whence.Recipe(learning_rate=0.01, batch_size=6, epochs=10**6))",
    "stochastic solve": "whence.influence(calls.network(), data, damping=0.1, "
    "solver=whence.LiSSA(depth=10**7))",
    "refits of an ensemble": "whence.Retrained(fits=10**5).fit(calls.linear()).scores(data)",
    "evaluation": "whence.evaluate(calls.linear(), data, subsets=10**5)",
    "attack": "whence.attacks.attack(calls.frozen()[0], (calls.frozen()[1][:1], data[1][:1]), "
    "steps=10**6)",
    "leave-one-out": "whence.leave_one_out(perceptron, range(2000), many[:2])",
    "leave-one-out of a linear model": "whence.leave_one_out(linear, range(60000), few)",
    "removal curve": "whence.removal_curve(trees, few, fractions=np.linspace(0.1, 0.9, 600))",
    "retrainings of boosted trees": "whence.Boosting(ensemble=10**4).fit(trees).scores(few)",
    "label errors": "whence.find_label_errors(trees, method=whence.Retrained(fits=10**5))",
    "flip set": "whence.flip_set(perceptron, one, method=whence.LeaveOneOut())",
    "index": "whence.Index.build(spread, FOLDER / 'built', shard_rows=2)",
    "index in two processes": "whence.Index.build(spread, FOLDER / 'two', shard_rows=2, workers=2)",
    "index query": "[asked.query(data) for _ in range(10**6)]",
    "stability": "whence.stability(run, data, seeds=range(10**5))",
    "report": "whence.report(linear, many, FOLDER / 'page.html')",
}
_ELSEWHERE = """
import functools, multiprocessing, os, signal, sys, tempfile
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from tests.fuzz import calls
import whence

print = functools.partial(print, flush=True)
x, y = calls.rows()
data = torch.as_tensor(x), torch.as_tensor(y)
calls.linear(), calls.frozen()
expected = whence.influence(calls.network(), data, solver=whence.EKFAC()).values
if os.fork() == 0:
    found = whence.influence(calls.network(), data, solver=whence.EKFAC()).values
    os._exit(0 if np.array_equal(found, expected) else 1)
print("forked", os.waitstatus_to_exitcode(os.wait()[1]))
rows = np.random.default_rng(0).normal(size=(60_000, 8))
labels = (rows[:, 0] + rows[:, 1] * rows[:, 2] > 0).astype(int)
many, few, one = ((rows[:k], labels[:k]) for k in (2000, 8, 1))
linear = whence.from_sklearn(LogisticRegression().fit(rows, labels), rows, labels)
perceptron = MLPClassifier((30,), max_iter=20, random_state=0).fit(*many)
perceptron = whence.from_sklearn(perceptron, *many)
trees = whence.from_sklearn(HistGradientBoostingClassifier(max_iter=10).fit(*many), *many)
narrow = torch.nn.Linear(8, 2).double()
spread = whence.from_torch(narrow, whence.CrossEntropy(), (torch.as_tensor(rows), labels))
asked, run = calls.index(), calls.run()
FOLDER = Path(tempfile.mkdtemp())
for name, call in CALLS.items():
    print("ready")
    try:
        eval(call)
        print(name, "ended by itself")
    except KeyboardInterrupt:
        print(name, "stopped", *FOLDER.rglob(".whence-*"), *multiprocessing.active_children())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_gets_the_same_and_ctrl_c_ends_every_long_call(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    paths = os.pathsep.join([str(root / "src"), str(root)])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"}
    said_beside = tmp_path / "stderr"
    with (
        said_beside.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", f"CALLS = {_LONG!r}\n{_ELSEWHERE}"],
            cwd=root,
            env={**environment, "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        late = threading.Timer(200, process.kill)
        late.start()
        assert process.stdout.readline() == "forked 0\n"
        for name in _LONG:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            # Python drops an interrupt that comes within a destructor: a user presses again.
            again = threading.Timer(20, process.send_signal, [signal.SIGINT])
            again.start()
            # An attack that is interrupted after its first step returns what there is.
            stopped = {"stopped", "ended by itself"} if name == "attack" else {"stopped"}
            said = process.stdout.readline()
            again.cancel()
            assert said in {f"{name} {end}\n" for end in stopped}, said_beside.read_text()
        late.cancel()
    # Python's server of processes has one of its own where it is stopped before a worker is made.
    tracebacks = said_beside.read_text().split("Traceback ")[1:]
    assert not [each for each in tracebacks if "multiprocessing/forkserver.py" not in each]
