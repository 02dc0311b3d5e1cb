"""Training-set attacks: small changes of few training inputs that flip a prediction.

An audit. The changes stay below half a gray level: stored in 8 bits, the poisoned image is the
original. Whoever trains on floating-point pixels of unknown origin should know what that can do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.applications.cell_changes import CellChanges as CellChanges
from whence.applications.cell_changes import change_cells as change_cells
from whence.applications.label_flips import LabelFlips as LabelFlips
from whence.applications.label_flips import flip_labels as flip_labels
from whence.applications.poisoning import (
    Retrain,
    Training,
    inputs_of,
    mean_loss,
    predicted,
    seeing,
    step_sizes,
    strongest,
    training_of,
)
from whence.checked import checked
from whence.checked import positions as checked_positions
from whence.errors import InvalidInput, UnsupportedModel
from whence.linalg.solver import Solver
from whence.methods.changes import perturbation
from whence.methods.choose import chosen
from whence.methods.method import Method
from whence.objective.objective import Objective
from whence.objective.trained import Data, Examples
from whence.pages import write
from whence.progress import progress
from whence.renamed import old_names
from whence.result import Card, Result
from whence.storage import clear_leftovers, digest, read_arrays, write_arrays
from whence.views.attack import attack_page
from whence.views.made import Made

HALF_A_GRAY_LEVEL = 0.499 / 127.5  # for pixels in [-1, 1]; just inside, so that rounding undoes it


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Attack(Result):
    """A training set with some inputs changed, and what that did; made by `attack`.

    Args:
        clean: The objective before.
        poisoned: The objective with the changed inputs, retrained.
        queries: The queries.
        positions: The changed training examples, [m].
        inputs: Their inputs now, [m, ...].
        losses: The mean loss of the queries after each step, the clean one first.
        flipped: Which queries are now predicted otherwise, [q].
        training: How the model is trained on changed inputs.
    """

    clean: Objective
    poisoned: Objective
    queries: Examples
    positions: NDArray[np.intp]
    inputs: Tensor
    losses: tuple[float, ...]
    flipped: NDArray[np.bool_]
    training: Training

    @property
    def original(self) -> Tensor:
        """The changed inputs as they were, [m, ...]."""
        return inputs_of(self.clean)[torch.as_tensor(self.positions)]

    @property
    def largest_change(self) -> float:
        """The largest change of any pixel, in units of the inputs."""
        return float((self.inputs - self.original).abs().max())

    def card(self) -> Card:
        """Return the outcome in a sentence."""
        steps = len(self.losses) - 1
        return Card(
            title=f"{int(self.flipped.sum())} of {len(self.flipped)} predictions flipped by "
            f"{len(self.positions)} changed training inputs, no pixel by more than "
            f"{self.largest_change:.2g}; mean loss {self.losses[0]:.3f} -> {self.losses[-1]:.3f} "
            f"in {steps} step{'s' * (steps != 1)}"
        )

    def verify(self) -> NDArray[np.bool_]:
        """Train again from nothing on the poisoned inputs, and return which queries flip, [q]."""
        fresh = self.training.from_nothing(self.poisoned)
        flipped: NDArray[np.bool_] = predicted(fresh, self.queries) != predicted(
            self.clean, self.queries
        )
        return flipped

    @checked
    def report(
        self,
        path: str | os.PathLike[str],
        *,
        title: str = "How little flips the prediction?",
        command: str = "whence.attacks.attack(objective, queries).report(path)",
    ) -> Path:
        """Train from nothing to check, and write the outcome as one self-contained HTML page.

        Args:
            path: The file; an existing one is replaced, whole or not at all.
            title: The heading.
            command: What reproduces the page; shown at its end.

        Returns:
            The path.

        Raises:
            InvalidInput: If the path cannot be written.
        """
        page = attack_page(
            self.clean,
            self.poisoned,
            self.queries,
            self.positions,
            original=self.original,
            changed=self.inputs,
            losses=self.losses,
            flipped=self.flipped,
            held=self.verify(),
            said=f"{self}.".replace("->", "→"),
            made=Made(title=title, command=command),
        )
        return write(page, path)

    @checked
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the changed inputs to a file, whole or not at all; `resume` goes on from it.

        Args:
            path: The file, an archive of arrays; an existing one is replaced.

        Raises:
            NotWritten: If the disk is full, or the folder absent or read-only.
        """
        clear_leftovers(Path(path).resolve().parent)
        write_arrays(
            Path(path),
            _owner(self.clean, self.queries),
            positions=self.positions,
            inputs=self.inputs.numpy(),
            losses=np.array(self.losses),
        )


@checked
def attack(
    objective: Objective,
    queries: Data,
    *,
    n_images: int = 1,
    steps: int = 100,
    step_size: float | None = None,
    momentum: float = 0.0,
    budget: float = HALF_A_GRAY_LEVEL,
    limits: tuple[float, float] = (-1.0, 1.0),
    positions: Any = None,
    retrain: Retrain | None = None,
    method: Method | None = None,
    solver: Solver | None = None,
    damping: float | None = None,
    start: Attack | None = None,
) -> Attack:
    """Change a few training inputs, invisibly, until the predictions of some queries flip.

    x̃ := Π(x̃ + α sign(∂m/∂x̃)), with the derivative of the queries' mean loss through retraining;
    after each step the features are made anew and the top layer is retrained, or the whole model is
    by `retrain`. Π keeps every pixel within the budget of the original and within the limits.

    Args:
        objective: R at θ̂ with inputs as a tensor: from `whence.from_frozen`, or with `retrain` from
            `whence.from_torch`.
        queries: (inputs, y) of the queries whose loss is to rise.
        n_images: How many training inputs to change, >= 1.
        steps: At most this many; it ends when all queries have flipped.
        step_size: α > 0, in units of the inputs; from the budget down to a tenth of it, by the same
            factor at each step, if `None`: the first steps reach the corners of the box, the last
            choose among them. The paper's is 0.02.
        momentum: μ in [0, 1): the sign is taken of v := μ v + ∂m/∂x̃ / max |∂m/∂x̃|.
        budget: The largest change of a pixel, > 0, in units of the inputs.
        limits: The range of the inputs.
        positions: Which training inputs to change; the n_images `strongest` if `None`.
        retrain: From all training inputs, [n, ...], to the objective trained on them, the same for
            the same inputs: how a model is trained end to end. `None`: the top layer alone.
        method: What follows changes of inputs through retraining; `whence.Influence` if `None`.
        solver: What inverts the curvature of a model trained end to end; by cost if `None`.
        damping: λ >= 0 added to its curvature; chosen by rule if `None`.
        start: An attack to go on from, such as an interrupted one.

    Returns:
        The attack, with the poisoned objective. An interruption by the keyboard returns what there
        is. The same arguments give the same attack.

    Raises:
        UnsupportedModel: If the objective cannot be retrained, or its inputs cannot be changed.
        InvalidInput: If an option is out of range.

    Cost:
        Per step a forward and a backward pass of the changed inputs through the network, and a
        retraining of the top layer from where it was; with `retrain`, one solve and one training.

    References:
        Koh & Liang (2017), section 5.2.

    Examples:
        >>> import torch, whence
        >>> from sklearn.linear_model import LogisticRegression
        >>> _ = torch.manual_seed(0)
        >>> images = torch.rand(30, 1, 4, 4, dtype=torch.float64) * 2 - 1
        >>> y = (images.mean((1, 2, 3)) > 0).long()
        >>> top = LogisticRegression(tol=1e-10).fit(images.flatten(1), y)
        >>> objective = whence.from_frozen(torch.nn.Flatten(), top, images, y)
        >>> attack = whence.attacks.attack(objective, (images[:1], y[:1]), steps=3, budget=0.1)
        >>> attack.losses[-1] > attack.losses[0]
        True
    """
    sizes = step_sizes(n_images, steps, step_size, budget, momentum)
    if start is None:
        training = training_of(objective, retrain)
        if positions is None:
            where = strongest(training.clean, queries, n_images, method=method)
        else:
            where = checked_positions("positions", positions, len(objective.weights))
        start = _unchanged(training, queries, where)
    training, clean, encoded, where = start.training, start.clean, start.queries, start.positions
    asked = solver is not None or damping is not None
    follows = chosen(clean, method, solver, damping) if asked else training.method(method)
    moving, current, losses = start.inputs, start.poisoned, start.losses
    rows = torch.as_tensor(where)
    original = inputs_of(clean)[rows]
    low = (original - budget).clamp_min(limits[0])
    high = (original + budget).clamp_max(limits[1])
    before = predicted(clean, encoded)
    inputs = inputs_of(clean).clone()
    inputs[rows] = moving
    current = seeing(current, inputs)
    velocity = torch.zeros_like(moving)
    with progress(total=steps, desc="attack", unit="step") as bar:
        try:
            for size in sizes:
                if (predicted(current, encoded) != before).all():
                    break
                rise = torch.from_numpy(perturbation(current, where, encoded, method=follows))
                velocity = momentum * velocity + (rise / (rise.abs().max() or 1)).to(moving)
                moved = (moving + size * velocity.sign()).clamp(low, high)
                changed = training.on(inputs, rows, moved, current)
                inputs[rows] = moved  # in place: a copy of every image at each step costs more
                moving, current = moved, seeing(changed, inputs)
                losses = (*losses, mean_loss(current, encoded))
                bar.update()
        except KeyboardInterrupt:
            inputs[rows] = moving
    flipped = predicted(current, encoded) != before
    return replace(start, poisoned=current, inputs=moving, losses=losses, flipped=flipped)


def _unchanged(training: Training, queries: Data, where: NDArray[np.intp]) -> Attack:
    """Return an attack that has made no step."""
    clean, encoded = training.clean, training.encode(queries)
    return Attack(
        clean=clean,
        poisoned=clean,
        queries=encoded,
        positions=where,
        inputs=inputs_of(clean)[torch.as_tensor(where)].clone(),
        losses=(mean_loss(clean, encoded),),
        flipped=np.zeros(len(encoded), dtype=np.bool_),
        training=training,
    )


@checked
def resume(
    objective: Objective,
    queries: Data,
    path: str | os.PathLike[str],
    *,
    retrain: Retrain | None = None,
) -> Attack:
    """Read an attack that was saved, to go on from: `attack(objective, queries, start=...)`.

    Args:
        objective: R at θ̂, the clean one.
        queries: (inputs, y), as they were.
        path: Where `attack.save` wrote it.
        retrain: As for `attack`.

    Returns:
        The attack, its model trained on the changed inputs.

    Raises:
        CorruptFile: If the file is cut short or changed, or is not of this attack: of other
            training examples or queries.
        InvalidInput: If there is no file.

    Cost:
        One retraining.

    Examples:
        >>> import tempfile, torch, whence
        >>> from sklearn.linear_model import LogisticRegression
        >>> _ = torch.manual_seed(0)
        >>> images = torch.rand(30, 1, 4, 4, dtype=torch.float64) * 2 - 1
        >>> y = (images.mean((1, 2, 3)) > 0).long()
        >>> top = LogisticRegression(tol=1e-10).fit(images.flatten(1), y)
        >>> objective = whence.from_frozen(torch.nn.Flatten(), top, images, y)
        >>> query = images[:1], y[:1]
        >>> attack = whence.attacks.attack(objective, query, steps=2, budget=0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     attack.save(folder + "/attack.npz")
        ...     start = whence.attacks.resume(objective, query, folder + "/attack.npz")
        >>> len(whence.attacks.attack(objective, query, steps=2, budget=0.1, start=start).losses)
        5
    """
    training = training_of(objective, retrain)
    clean = training.clean
    encoded = training.encode(queries)
    try:
        saved = read_arrays(Path(path), _owner(clean, encoded))
    except FileNotFoundError as error:
        raise InvalidInput(
            f"Expected a saved attack in {path}. Got no file. Write it with attack.save(path)."
        ) from error
    where = saved["positions"].astype(np.intp)
    rows, moved = torch.from_numpy(where), torch.from_numpy(saved["inputs"]).to(inputs_of(clean))
    changed = training.on(inputs_of(clean), rows, moved, clean)
    poisoned = seeing(changed, inputs_of(clean).index_copy(0, rows, moved))
    return Attack(
        clean=clean,
        poisoned=poisoned,
        queries=encoded,
        positions=where,
        inputs=moved,
        losses=tuple(saved["losses"].tolist()),
        flipped=predicted(poisoned, encoded) != predicted(clean, encoded),
        training=training,
    )


@checked
def as_predicted(objective: Objective, queries: Any) -> Any:
    """Return queries labeled by what the model says of them: raising that loss turns what it says.

    Args:
        objective: R at θ̂ of a classifier, from `whence.from_frozen` or `whence.from_torch`.
        queries: (inputs, y); y may be any class.

    Returns:
        (inputs, y) for `attack`.

    Raises:
        UnsupportedModel: If the model is no classifier.

    Examples:
        >>> import torch, whence
        >>> from sklearn.linear_model import LogisticRegression
        >>> images = torch.linspace(-1, 1, 160).reshape(10, 1, 4, 4)
        >>> y = torch.arange(10) // 5
        >>> top = LogisticRegression(tol=1e-10).fit(images.flatten(1), y)
        >>> objective = whence.from_frozen(torch.nn.Flatten(), top, images, y)
        >>> whence.attacks.as_predicted(objective, (images[:1], [1]))[1]
        array([0])
    """
    if not objective.classes:
        raise UnsupportedModel(
            "Expected a classifier with named classes. Got a model without. Pass classes=."
        )
    encoded = objective.examples(queries)
    said = predicted(objective, encoded)
    by_name = objective.linear  # a module takes them by number
    return encoded.inputs, np.asarray(objective.classes)[said] if by_name else said


def _owner(clean: Objective, queries: Examples) -> str:
    """Return what a saved attack belongs to: the clean training examples, and the queries."""
    train = clean.train
    parts = (train.inputs, train.targets, queries.inputs, queries.targets)
    return f"the attack {digest(*(torch.as_tensor(part) for part in parts))}"


__getattr__ = old_names(__name__, {"craft": "attack"})
