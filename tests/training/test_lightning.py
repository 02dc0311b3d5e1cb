"""Trainings by Lightning, recorded by the callback: with one optimizer, and Muon beside AdamW."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import whence
from whence.errors import InvalidInput
from whence.linalg import OneSided

lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

_X, _Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
_LR = 0.01


class Net(lightning.LightningModule):  # type: ignore[name-defined, misc]
    def __init__(self, muon: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)
        self.net = torch.nn.Sequential(*layers)
        self.muon = muon
        self.automatic_optimization = not muon

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        x, y = batch
        loss = functional.cross_entropy(self.net(x), y)
        if self.muon:
            self.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
        return loss

    def configure_optimizers(self) -> Any:
        if not self.muon:
            return torch.optim.AdamW(self.parameters(), lr=_LR)
        matrices = [p for p in self.parameters() if p.ndim == 2]
        vectors = [p for p in self.parameters() if p.ndim == 1]
        return [torch.optim.Muon(matrices, lr=_LR), torch.optim.AdamW(vectors, lr=_LR)]


def trained(folder: Path, muon: bool, **options: Any) -> Any:
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(_X, _Y), batch_size=3)
    module = Net(muon)
    trainer = lightning.Trainer(
        max_epochs=options.pop("max_epochs", 2),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[whence.lightning_callback(folder, every=options.pop("every", None))],
        **options,
    )
    trainer.fit(module, data)
    objective = whence.from_torch(module.net.eval(), whence.CrossEntropy(), (_X, _Y))
    return whence.Run.from_trainer(folder, objective)


@pytest.mark.parametrize(("accumulated", "points", "steps"), [(1, 4, 8), (2, 4, 4)])
def test_a_training_is_recorded(tmp_path: Path, accumulated: int, points: int, steps: int) -> None:
    run = trained(tmp_path, False, accumulate_grad_batches=accumulated)
    path = run.path()
    assert len(path.points) == points
    assert sum(path.rates) == pytest.approx(_LR * steps)
    torch.testing.assert_close(path.points[-1], run.objective.params)
    scores = whence.TracIn(optimizer=True).fit(run).scores((_X[:2], _Y[:2]))
    assert np.isfinite(scores.values).all()


def test_muon_beside_adamw(tmp_path: Path) -> None:
    path = trained(tmp_path, True, every=4).path()
    assert path.scales is not None
    kinds = [type(block) is OneSided for block in path.scales[-1].blocks]
    assert kinds == [True, False, True, False]


def test_no_end_and_no_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="every >= 1"):
        whence.lightning_callback(tmp_path, every=0)
    with pytest.raises(InvalidInput, match="known number of steps"):
        trained(tmp_path, False, max_steps=-1, max_epochs=-1)
