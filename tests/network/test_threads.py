"""One objective asked by many threads gives what one thread gets."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import whence
from whence.linalg import CG, Arnoldi, Cholesky
from whence.network.objective import ModuleObjective

_THREADS = 8


class Attending(nn.Module):
    """Attention, whose kernels are chosen for the process, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.project = nn.Linear(4, 12)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.stack([self.embed(x[:, :3]), self.embed(x[:, 3:])], 1)
        attended = scaled_dot_product_attention(*self.project(tokens).split(4, -1))
        return self.head(attended.mean(1))


def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(18, 6, generator=generator, dtype=torch.float64), torch.arange(18) % 3


def objective(model: nn.Module) -> ModuleObjective:
    return whence.from_torch(model, whence.CrossEntropy(), data(), l2=0.05)


ASKED: dict[str, Callable[[ModuleObjective, Any], Any]] = {
    "ekfac": lambda o, q: whence.influence(o, q, solver=whence.EKFAC()).values,
    "kfac": lambda o, q: whence.influence(o, q, solver=whence.KFAC()).values,
    "cg": lambda o, q: whence.influence(o, q, solver=CG(), damping=0.1).values,
    "arnoldi": lambda o, q: whence.influence(o, q, solver=Arnoldi(rank=5), damping=0.1).values,
    "cholesky": lambda o, q: whence.influence(o, q, solver=Cholesky(), damping=0.1).values,
    "projected": lambda o, q: whence.projected(o, q).values,
    "tracin": lambda o, q: whence.tracin(o, q).values,
    "inputs": lambda o, q: whence.perturbation(o, [1, 2], q, solver=whence.EKFAC()),
}


@pytest.fixture
def eager() -> Iterator[None]:
    """Let threads take turns fifty times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
@pytest.mark.parametrize("build", [layers, Attending])
def test_threads_get_what_one_thread_gets(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = build().double()
    x, y = data()
    queries = x[:3], y[:3]
    alone = {name: ask(objective(model), queries) for name, ask in ASKED.items()}
    shared, found = objective(model), dict[tuple[int, str], Any]()

    def work(seat: int) -> None:
        names = [*ASKED]
        for name in names[seat:] + names[:seat]:
            try:
                found[seat, name] = ASKED[name](shared, queries)
            except Exception as error:
                found[seat, name] = error

    threads = [threading.Thread(target=work, args=(seat,)) for seat in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == _THREADS * len(ASKED)
    for (_, name), values in found.items():
        assert not isinstance(values, Exception), (name, values)
        scale = np.abs(alone[name]).max()
        np.testing.assert_allclose(values, alone[name], rtol=0, atol=1e-9 * scale)


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_an_objective_can_be_copied_and_pickled(duplicate: Any) -> None:
    torch.manual_seed(0)
    original = objective(layers().double())
    x, y = data()
    expected = whence.influence(original, (x[:3], y[:3]), damping=0.1).values
    found = whence.influence(duplicate(original), (x[:3], y[:3]), damping=0.1).values
    np.testing.assert_array_equal(found, expected)
