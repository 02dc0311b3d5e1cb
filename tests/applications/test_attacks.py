"""Attacks on a small frozen network: within the budget, and verified by training from nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import whence
from tests.damage import assert_noticed
from whence.errors import CorruptFile, InvalidInput, UnsupportedModel
from whence.linear.objective import LinearObjective
from whence.objective.objective import Objective


@pytest.fixture(scope="module")
def audited() -> tuple[LinearObjective, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(3), nn.Flatten()
    )
    network = network.double().requires_grad_(False)
    images = torch.rand(80, 1, 8, 8, dtype=torch.float64) * 2 - 1
    y = (images[:, 0, :4].mean((1, 2)) > images[:, 0, 4:].mean((1, 2))).long()
    top = LogisticRegression(C=1000, tol=1e-10, max_iter=5000).fit(network(images[:60]), y[:60])
    objective = whence.from_frozen(network, top, images[:60], y[:60])
    queries = objective.examples((images[60:], y[60:]))
    sizes = objective.outputs(queries)[:, 0].abs()
    right = (objective.outputs(queries)[:, 0] > 0) == (y[60:] == 1)
    sizes[~right] = torch.inf
    at = 60 + int(sizes.argmin())
    return objective, (images[at : at + 1], y[at : at + 1])


def test_one_image_flips_the_least_certain_query(
    audited: tuple[LinearObjective, tuple[Tensor, Tensor]],
) -> None:
    objective, query = audited
    attack = whence.attacks.attack(objective, query, n_images=2, budget=0.2, steps=60)
    assert attack.flipped.all()
    assert attack.verify().all()
    assert attack.losses[-1] > attack.losses[0]
    assert attack.largest_change <= 0.2 + 1e-12
    unchanged = np.setdiff1d(np.arange(60), attack.positions)
    assert torch.equal(attack.poisoned.train.inputs[unchanged], objective.train.inputs[unchanged])
    assert "1 of 1 predictions flipped by 2" in str(attack)
    untrained = replace(attack, poisoned=attack.poisoned.at(objective.params))
    assert untrained.verify().all()  # whatever parameters it was left with


def test_inputs_that_raise_the_loss_are_changed(
    audited: tuple[LinearObjective, tuple[Tensor, Tensor]],
) -> None:
    objective, query = audited
    chosen = whence.attacks.strongest(objective, query, 4)
    alone = whence.leave_one_out(objective, chosen, query)
    assert (alone < 0).all()
    moves = np.abs(whence.perturbation(objective, chosen, query)).reshape(4, -1).sum(1)
    assert (np.diff(moves) <= 0).all()


def test_steps_fall_from_the_budget_to_a_tenth_of_it(
    audited: tuple[LinearObjective, tuple[Tensor, Tensor]],
) -> None:
    objective, query = audited
    one = whence.attacks.attack(objective, query, steps=1, budget=0.02)
    assert one.largest_change == pytest.approx(0.02)
    two = whence.attacks.attack(objective, query, steps=2, budget=0.02)
    same = whence.attacks.attack(objective, query, steps=1, budget=0.02, step_size=0.002, start=one)
    torch.testing.assert_close(two.inputs, same.inputs)


def test_momentum_adds_up_directions(
    audited: tuple[LinearObjective, tuple[Tensor, Tensor]],
) -> None:
    objective, _ = audited
    query = objective.train.inputs[:1], objective.train.targets[:1].long().clamp_min(0)
    options = {"budget": 2.0, "step_size": 0.3, "momentum": 0.9}
    one = whence.attacks.attack(objective, query, steps=1, **options)
    two = whence.attacks.attack(objective, query, steps=2, positions=one.positions, **options)
    directions = [
        whence.perturbation(model, one.positions, query) for model in (one.clean, one.poisoned)
    ]
    first, second = (each / np.abs(each).max() for each in directions)
    velocity = torch.from_numpy(0.9 * first + second)
    turned = torch.from_numpy(np.sign(first) != np.sign(second))
    assert (turned & (velocity.sign() == torch.from_numpy(np.sign(first)))).any()
    expected = (one.inputs + 0.3 * velocity.sign()).clamp(-1, 1)
    torch.testing.assert_close(two.inputs, expected)


def test_rounding_to_8_bits_undoes_the_default_budget(
    audited: tuple[LinearObjective, tuple[Tensor, Tensor]],
) -> None:
    objective, query = audited
    levels = ((objective.train.inputs + 1) * 127.5).round()
    stored = levels / 127.5 - 1
    data = stored, objective.train.targets.long()
    network = objective.inputs.frozen.extractor  # type: ignore[attr-defined]
    top = LogisticRegression(C=1000, tol=1e-10, max_iter=5000).fit(network(stored), data[1])
    attack = whence.attacks.attack(whence.from_frozen(network, top, *data), query, steps=3)
    assert attack.losses[-1] > attack.losses[0]
    assert torch.equal(((attack.inputs + 1) * 127.5).round(), levels[attack.positions])


def test_going_on_equals_one_go(
    audited: tuple[LinearObjective, tuple[Tensor, Tensor]],
) -> None:
    objective, query = audited
    options = {"budget": 0.01, "step_size": 0.002}
    whole = whence.attacks.attack(objective, query, steps=6, **options)
    half = whence.attacks.attack(objective, query, steps=3, **options)
    rest = whence.attacks.attack(objective, query, steps=3, start=half, **options)
    np.testing.assert_allclose(rest.losses, whole.losses, rtol=1e-9)
    torch.testing.assert_close(rest.inputs, whole.inputs)


def test_a_saved_attack_goes_on_and_is_checked(
    audited: tuple[LinearObjective, tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    objective, query = audited
    path = tmp_path / "attack.npz"
    attack = whence.attacks.attack(objective, query, budget=0.1, steps=2)
    (tmp_path / ".whence-0123.tmp").write_bytes(b"half")
    attack.save(path)
    again = whence.attacks.resume(objective, query, path)
    assert torch.equal(again.inputs, attack.inputs)
    assert again.losses == attack.losses
    assert [each.name for each in tmp_path.iterdir()] == ["attack.npz"]

    def resume() -> None:
        whence.attacks.resume(objective, query, path)

    assert_noticed(path, resume, flips=50, cuts=[0, 100])
    for other in ((-query[0], query[1]), (query[0], 1 - query[1])):
        with pytest.raises(CorruptFile, match="to belong to the attack"):
            whence.attacks.resume(objective, other, path)
    with pytest.raises(InvalidInput, match="Got no file"):
        whence.attacks.resume(objective, query, tmp_path / "absent.npz")


def test_refusals(audited: tuple[LinearObjective, tuple[Tensor, Tensor]]) -> None:
    objective, query = audited
    with pytest.raises(InvalidInput, match="Got 0"):
        whence.attacks.attack(objective, query, n_images=0)
    with pytest.raises(InvalidInput, match="momentum in"):
        whence.attacks.attack(objective, query, momentum=1.0)
    with pytest.raises(InvalidInput, match="without method="):
        whence.attacks.attack(objective, query, method=whence.Influence(), damping=0.0)
    images = query[0].expand(4, 1, 8, 8).clone()
    module = whence.from_torch(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double(),
        whence.CrossEntropy(),
        (images, torch.tensor([0, 1, 0, 1])),
    )
    with pytest.raises(UnsupportedModel, match="from_frozen"):
        whence.attacks.attack(module, query)


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")  # 150 epochs
def test_a_model_trained_end_to_end_is_attacked_through_its_own_training() -> None:
    torch.manual_seed(0)
    images = torch.rand(24, 1, 4, 4, dtype=torch.float64) * 2 - 1
    y = (images[:, 0, :2].mean((1, 2)) > images[:, 0, 2:].mean((1, 2))).long()
    start = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    recipe = whence.Recipe(
        learning_rate=0.5, batch_size=20, epochs=60, weight_decay=0.01, dtype=torch.float64
    )

    def retrain(inputs: Tensor) -> Objective:
        run = whence.train(start, whence.CrossEntropy(), (inputs, y[:20]), recipe)
        return whence.from_torch(run.model, whence.CrossEntropy(), (inputs, y[:20]), l2=0.01)

    objective = retrain(images[:20])
    query = images[20:], y[20:]
    options = {"n_images": 2, "budget": 0.3, "step_size": 0.1, "retrain": retrain}
    attack = whence.attacks.attack(objective, query, steps=4, damping=1e-3, **options)
    assert attack.losses[-1] > attack.losses[0]
    trained = retrain(attack.poisoned.train.inputs)  # type: ignore[attr-defined]
    loss = trained.loss(trained.outputs(trained.examples(query)), query[1]).mean()
    np.testing.assert_allclose(float(loss), attack.losses[-1], rtol=1e-9)
    np.testing.assert_array_equal(attack.verify(), attack.flipped)
    assert attack.training.method(None) == whence.Influence()
    assert attack.training.method(whence.TracIn()) == whence.TracIn()


def test_the_report_shows_what_changed_and_checks_it(
    audited: tuple[LinearObjective, tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    objective, query = audited
    attack = whence.attacks.attack(objective, query, n_images=2, budget=0.2, steps=60)
    html = attack.report(tmp_path / "attack.html", title="<script>").read_text()
    assert "1 of 1 queries flip after training from nothing" in html
    assert html.count("changed, labeled") == 2
    assert "&lt;script&gt;" in html
