"""Two revisions in turns: `python -m benchmarks.pair REVISION` times the working tree beside it.

Each case runs in a process of its own, the two revisions alternating, on two threads. It keeps the
seconds of each run and how far the scores differ, in `results/pair.json`. Data: MNIST from
`WHENCE_DATA` for the first two models, random tokens for the third.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_ROOT = Path(__file__).parent.parent
_RESULTS = _ROOT / "benchmarks" / "results" / "pair.json"
CASES = (
    "softmax, 100 queries",
    "MLP, EKFAC",
    "MLP, KFAC",
    "GPT, EKFAC",
    "GPT, projected",
)
_CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from {0} import child; child(*sys.argv[2:])"


def digits(n: int) -> tuple[Any, Any]:
    """Return the first digits of MNIST as rows in [0, 1], with their labels."""
    from experiments import datasets

    mnist = datasets.mnist()
    return np.asarray(mnist.x_train[:n]), np.asarray(mnist.y_train[:n])


def softmax() -> Any:
    """Return all influences on 100 queries of softmax regression on 55,000 digits."""
    from sklearn.linear_model import LogisticRegression

    import whence

    x, y = digits(55_000)
    model = LogisticRegression(C=1 / (0.01 * len(y)), fit_intercept=False)
    model.classes_ = np.arange(10)
    model.coef_ = 0.01 * np.random.default_rng(0).normal(size=(10, x.shape[1]))
    model.intercept_, model.n_features_in_ = np.zeros(10), x.shape[1]
    objective = whence.from_sklearn(model, x, y)
    return lambda: whence.influence(objective, (x[:100], y[:100])).values


def mlp(solver: str) -> Any:
    """Return influence in an MLP on 5,000 digits, 200 queries."""
    import torch

    import whence

    torch.manual_seed(0)
    x, y = digits(5_000)
    data = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.int64)
    layers = [784, 256, 128, 10]
    parts: list[Any] = []
    for a, b in itertools.pairwise(layers):
        parts += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    model = torch.nn.Sequential(*parts[:-1])
    objective = whence.from_torch(model, whence.CrossEntropy(), data, l2=1e-3)
    options = {"solver": getattr(whence, solver)(), "damping": 1e-2}
    return lambda: whence.influence(objective, (data[0][:200], data[1][:200]), **options).values


def gpt(method: str) -> Any:
    """Return influence in a small GPT on 500 sequences of 128 random tokens, 20 queries."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    import whence

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=256,
        n_positions=128,
        n_embd=128,
        n_layer=4,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    tokens = torch.randint(256, (500, 128))
    model = GPT2LMHeadModel(config).eval()
    data = [{"input_ids": row, "labels": row} for row in tokens]
    objective = whence.from_transformers(model, data)
    queries = objective.train.subset(np.arange(20))
    if method == "projected":
        return lambda: whence.projected(objective, queries).values
    return lambda: whence.influence(objective, queries, solver=whence.EKFAC(), damping=1e-2).values


def child(case: str, where: str) -> None:
    """Time one case, write its scores, and print the seconds."""
    warnings.simplefilter("ignore")
    made: dict[str, Callable[[], Callable[[], Any]]] = {
        CASES[0]: softmax,
        CASES[1]: lambda: mlp("EKFAC"),
        CASES[2]: lambda: mlp("KFAC"),
        CASES[3]: lambda: gpt("EKFAC"),
        CASES[4]: lambda: gpt("projected"),
    }
    ask = made[case]()
    start = time.perf_counter()
    values = ask()
    print(time.perf_counter() - start)
    np.save(where, values)


def timed(source: Path, case: str, where: Path) -> float:
    """Return the seconds of one run of a case with the code of a checkout."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(_ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", _CHILD.format("benchmarks.pair")]
    done = subprocess.run(
        [*command, str(source / "src"), case, str(where)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=_ROOT,
    )
    if done.returncode:
        raise RuntimeError(f"{case} with {source}: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def main() -> None:
    """Time all cases, print a line each, and keep the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pair", description=__doc__)
    parser.add_argument("revision")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", nargs="*", default=CASES)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        git = ["git", "-C", str(_ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(before), asked.revision], check=True)
        try:
            for case in asked.cases:
                seconds: dict[str, list[float]] = {"before": [], "after": []}
                for _ in range(asked.repeats):
                    for name, source in (("before", before), ("after", _ROOT)):
                        where = Path(folder) / f"{name}.npy"
                        seconds[name].append(round(timed(source, case, where), 3))
                old, new = (np.load(Path(folder) / f"{name}.npy") for name in seconds)
                difference = float(np.linalg.norm(new - old) / np.linalg.norm(old))
                ratio = float(np.median(seconds["after"]) / np.median(seconds["before"]))
                row = {"case": case, **seconds, "ratio": ratio, "difference": difference}
                rows.append(row)
                print(f"{case}: {seconds}, ratio {ratio:.2f}, scores differ by {difference:.1e}")
        finally:
            subprocess.run([*git, "remove", "--force", str(before)], check=True)
    _RESULTS.write_text(json.dumps({"before": asked.revision, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
