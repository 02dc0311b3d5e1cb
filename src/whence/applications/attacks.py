"""Training-set attacks on one's own model: how small a change of how few images flips a prediction?

An audit. The changes stay below half a gray level: stored in 8 bits, the poisoned image is the
original. Whoever trains on floating-point pixels of unknown origin should know what that can do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from whence.errors import InvalidInput, UnsupportedModel
from whence.fitting.newton import newton
from whence.linalg.cg import CG
from whence.linalg.operator import LinearOperator
from whence.linalg.solver import Solver
from whence.linear.features import DenseFeatures
from whence.linear.objective import LinearExamples, LinearObjective
from whence.methods.changes import perturbation
from whence.methods.influence import chosen, inverse_of
from whence.methods.method import Method
from whence.network.examples import ModuleExamples
from whence.network.objective import ModuleObjective
from whence.objective.objective import Objective
from whence.objective.trained import Data
from whence.pages import write
from whence.result import Card, Result
from whence.storage import clear_leftovers, digest, read_arrays, write_arrays
from whence.views.answer import class_of
from whence.views.attack import attack_page

HALF_A_GRAY_LEVEL = 0.499 / 127.5  # for pixels in [-1, 1]; just inside, so that rounding undoes it

_CONVERGED = 1e-9  # gradient norm of the model between two steps
_CANDIDATES = 32  # training inputs whose derivative is taken to choose among them

Retrain: TypeAlias = Callable[[Tensor], Objective]
_Examples: TypeAlias = LinearExamples | ModuleExamples


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Attack(Result):
    """A training set with some inputs changed, and what that did; made by `craft`.

    Args:
        clean: The objective before.
        poisoned: The objective with the changed inputs, retrained.
        queries: The queries.
        positions: The changed training examples, [m].
        inputs: Their inputs now, [m, ...].
        losses: The mean loss of the queries after each step, the clean one first.
        flipped: Which queries are now predicted otherwise, [q].
        retrain: What trained the model on changed inputs; `None` for a top layer.
    """

    clean: Objective
    poisoned: Objective
    queries: _Examples
    positions: NDArray[np.intp]
    inputs: Tensor
    losses: tuple[float, ...]
    flipped: NDArray[np.bool_]
    retrain: Retrain | None = None

    @property
    def original(self) -> Tensor:
        """The changed inputs as they were, [m, ...]."""
        return _inputs(self.clean)[torch.as_tensor(self.positions)]

    @property
    def largest_change(self) -> float:
        """The largest change of any pixel, in units of the inputs."""
        return float((self.inputs - self.original).abs().max())

    def card(self) -> Card:
        """Return the outcome in a sentence."""
        return Card(title=str(self))

    def verify(self) -> NDArray[np.bool_]:
        """Train again from nothing on the poisoned inputs, and return which queries flip, [q]."""
        if self.retrain is not None:
            fresh = self.retrain(_inputs(self.poisoned))
        else:
            assert isinstance(self.poisoned, LinearObjective)
            fresh = _refitted(self.poisoned.at(torch.zeros_like(self.poisoned.params)))
        flipped: NDArray[np.bool_] = _predicted(fresh, self.queries) != _predicted(
            self.clean, self.queries
        )
        return flipped

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        title: str = "How little flips the prediction?",
        command: str = "whence.attacks.craft(objective, queries).report(path)",
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
            title=title,
            command=command,
        )
        return write(page, path)

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

    def __str__(self) -> str:
        """Return the outcome in a sentence."""
        return (
            f"{int(self.flipped.sum())} of {len(self.flipped)} predictions flipped by "
            f"{len(self.positions)} changed training inputs, no pixel by more than "
            f"{self.largest_change:.2g}; mean loss {self.losses[0]:.3f} -> {self.losses[-1]:.3f} "
            f"in {len(self.losses) - 1} step{'s' * (len(self.losses) != 2)}"
        )


def craft(
    objective: Objective,
    queries: Data,
    *,
    n_images: int = 1,
    steps: int = 100,
    step_size: float = 0.02,
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
        step_size: α > 0, in units of the inputs.
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
        >>> attack = whence.attacks.craft(objective, (images[:1], y[:1]), steps=3, budget=0.1)
        >>> attack.losses[-1] > attack.losses[0]
        True
    """
    if n_images < 1 or steps < 1 or not step_size > 0 or not budget > 0:
        raise InvalidInput(
            f"Expected n_images, steps >= 1 and step_size, budget > 0. Got {n_images}, {steps}, "
            f"{step_size}, {budget}."
        )
    retrain = start.retrain if start else retrain
    clean = start.clean if start else _attackable(objective, retrain)
    asked = start.queries if start else _asked(clean, queries)
    options: dict[str, Any] = {"method": method, "solver": solver, "damping": damping}
    inverse = None
    if isinstance(clean, LinearObjective) and method is None:
        inverse = inverse_of(clean)
        options = {"solver": CG(rtol=1e-6, preconditioner=inverse)}
    if start is not None:
        where, moving, current, losses = start.positions, start.inputs, start.poisoned, start.losses
    else:
        where = (
            strongest(clean, queries, n_images, method=method)
            if positions is None
            else np.atleast_1d(np.asarray(positions, dtype=np.intp))
        )
        moving = _inputs(clean)[torch.as_tensor(where)].clone()
        current, losses = clean, (_loss(clean, asked),)
    rows = torch.as_tensor(where)
    original = _inputs(clean)[rows]
    low = (original - budget).clamp_min(limits[0])
    high = (original + budget).clamp_max(limits[1])
    before = _predicted(clean, asked)
    inputs = _inputs(clean).clone()
    inputs[rows] = moving
    current = _seeing(current, inputs)
    with tqdm(total=steps, desc="attack", unit="step", disable=None) as progress:
        try:
            for _ in range(steps):
                if (_predicted(current, asked) != before).all():
                    break
                rise = torch.from_numpy(perturbation(current, where, asked, **options))
                moved = (moving + step_size * rise.sign().to(moving)).clamp(low, high)
                if isinstance(current, LinearObjective):
                    changed: Objective = _refitted(_with_features(current, rows, moved), inverse)
                else:
                    assert retrain is not None
                    changed = retrain(inputs.index_copy(0, rows, moved))
                inputs[rows] = moved  # in place: a copy of every image at each step costs more
                moving, current = moved, _seeing(changed, inputs)
                losses = (*losses, _loss(current, asked))
                progress.update()
        except KeyboardInterrupt:
            inputs[rows] = moving
    return Attack(
        clean=clean,
        poisoned=current,
        queries=asked,
        positions=where,
        inputs=moving,
        losses=losses,
        flipped=_predicted(current, asked) != before,
        retrain=retrain,
    )


def resume(
    objective: Objective,
    queries: Data,
    path: str | os.PathLike[str],
    *,
    retrain: Retrain | None = None,
) -> Attack:
    """Read an attack that was saved, to go on from: `craft(objective, queries, start=...)`.

    Args:
        objective: R at θ̂, the clean one.
        queries: (inputs, y), as they were.
        path: Where `attack.save` wrote it.
        retrain: As for `craft`.

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
        >>> attack = whence.attacks.craft(objective, query, steps=2, budget=0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     attack.save(folder + "/attack.npz")
        ...     start = whence.attacks.resume(objective, query, folder + "/attack.npz")
        >>> len(whence.attacks.craft(objective, query, steps=2, budget=0.1, start=start).losses)
        5
    """
    clean = _attackable(objective, retrain)
    asked = _asked(clean, queries)
    try:
        kept = read_arrays(Path(path), _owner(clean, asked))
    except FileNotFoundError as error:
        raise InvalidInput(
            f"Expected a saved attack in {path}. Got no file. Write it with attack.save(path)."
        ) from error
    inputs, moved = _inputs(clean).clone(), torch.from_numpy(kept["inputs"])
    where = kept["positions"].astype(np.intp)
    rows = torch.from_numpy(where)
    inputs[rows] = moved.to(inputs)
    if isinstance(clean, LinearObjective):
        changed: Objective = _refitted(_with_features(clean, rows, moved.to(inputs)))
    else:
        assert retrain is not None
        changed = retrain(inputs)
    poisoned = _seeing(changed, inputs)
    return Attack(
        clean=clean,
        poisoned=poisoned,
        queries=asked,
        positions=where,
        inputs=moved.to(inputs),
        losses=tuple(kept["losses"].tolist()),
        flipped=_predicted(poisoned, asked) != _predicted(clean, asked),
        retrain=retrain,
    )


def as_predicted(objective: Objective, queries: Any) -> Any:
    """Return queries labeled by what the model says of them: raising that loss turns what it says.

    Args:
        objective: R at θ̂ of a classifier, from `whence.from_frozen` or `whence.from_torch`.
        queries: (inputs, y); y may be any class.

    Returns:
        (inputs, y) for `craft`.

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
    asked = _asked(objective, queries)
    said = _predicted(objective, asked)
    linear = isinstance(objective, LinearObjective)  # which takes labels by name
    return asked.inputs, np.asarray(objective.classes)[said] if linear else said


def strongest(
    objective: Objective, queries: Data, m: int, *, method: Method | None = None
) -> NDArray[np.intp]:
    """Return the training inputs whose change can move the queries' loss most, the first first.

    Args:
        objective: R at θ̂, from `whence.from_frozen` or `whence.from_torch`.
        queries: (inputs, y) of the queries.
        m: How many, >= 1.
        method: What scores the training inputs and follows their changes; `whence.Influence` if
            `None`.

    Returns:
        Positions [m], by the L1 norm of `whence.perturbation`; that is taken only for the training
        inputs with the largest influence, 32 or m of them.

    Cost:
        One influence of all, one forward and backward pass of 32 inputs.

    References:
        Koh & Liang (2017), section 5.2.

    Examples:
        >>> import torch, whence
        >>> from sklearn.linear_model import LogisticRegression
        >>> images = torch.linspace(-1, 1, 160).reshape(10, 1, 4, 4).flip(3)
        >>> y = torch.arange(10) // 5
        >>> top = LogisticRegression(tol=1e-10).fit(images.flatten(1), y)
        >>> objective = whence.from_frozen(torch.nn.Flatten(), top, images, y)
        >>> len(whence.attacks.strongest(objective, (images[:1], y[:1]), 3))
        3
    """
    scores = chosen(method).fit(objective).scores(queries)
    total = np.abs(scores.values.sum(0))
    candidates = np.argsort(-total, kind="stable")[: max(_CANDIDATES, m)]
    moves = np.abs(perturbation(objective, candidates, queries, method=method))
    order = np.argsort(-moves.reshape(len(candidates), -1).sum(1), kind="stable")
    return candidates[order[:m]]


def _attackable(objective: Objective, retrain: Retrain | None) -> Objective:
    """Return the objective at its optimum, if its inputs can be changed and it can be retrained."""
    tensor = isinstance(getattr(objective.train, "inputs", None), Tensor)
    if tensor and isinstance(objective, LinearObjective) and retrain is None:
        return _refitted(objective)
    if tensor and isinstance(objective, ModuleObjective) and retrain is not None:
        return objective
    raise UnsupportedModel(
        "Expected an objective whose inputs are a tensor and whose top layer can be retrained, or "
        f"one from whence.from_torch and retrain=. Got {type(objective).__name__} and "
        f"retrain={retrain}. Make it with whence.from_frozen, or say how the model is trained on "
        "changed inputs."
    )


def _asked(objective: Objective, queries: Any) -> _Examples:
    """Return the queries with the inputs that a page shows."""
    if isinstance(queries, LinearExamples | ModuleExamples):
        return queries
    if isinstance(objective, LinearObjective):
        return objective.inputs.encode(queries)
    asked = objective.examples(queries)
    assert isinstance(asked, ModuleExamples)
    return asked


def _examples_of(objective: Objective) -> _Examples:
    """Return the training examples, which have inputs."""
    assert isinstance(objective.train, LinearExamples | ModuleExamples)
    return objective.train


def _inputs(objective: Objective) -> Tensor:
    """Return the training inputs."""
    inputs: Tensor = _examples_of(objective).inputs
    return inputs


def _owner(clean: Objective, queries: _Examples) -> str:
    """Return what a saved attack belongs to: the clean training examples, and the queries."""
    train = _examples_of(clean)
    parts = (train.inputs, train.targets, queries.inputs, queries.targets)
    return f"the attack {digest(*(torch.as_tensor(part) for part in parts))}"


def _seeing(objective: Objective, inputs: Tensor) -> Objective:
    """Return the objective with these training inputs, all else as it was."""
    assert isinstance(objective, LinearObjective | ModuleObjective)
    return replace(objective, train=replace(objective.train, inputs=inputs))  # type: ignore[arg-type]


def _with_features(objective: LinearObjective, rows: Tensor, inputs: Tensor) -> LinearObjective:
    """Return the objective with the features of some training inputs made anew, θ as it was."""
    train = objective.train
    labels = train.targets[rows]
    names = np.asarray(objective.classes, dtype=object) if objective.classes else None
    y = labels.numpy() if names is None else names[labels.long().clamp_min(0).numpy()]
    new = objective.inputs.encode((inputs, np.asarray(y.tolist())))
    matrix = train.features.dense().clone()
    matrix[rows] = new.features.dense()
    return replace(objective, train=replace(train, features=DenseFeatures(matrix)))


def _refitted(objective: LinearObjective, inverse: LinearOperator | None = None) -> LinearObjective:
    """Return the objective at its optimum, by the curvature of one nearby if given."""
    fitted = newton(objective, gradient_norm=_CONVERGED, inverse=inverse)
    assert isinstance(fitted, LinearObjective)
    return fitted


def _loss(objective: Objective, queries: _Examples) -> float:
    """Return the mean loss of the queries."""
    return float(objective.loss(objective.outputs(queries), queries.targets).mean())


def _predicted(objective: Objective, queries: _Examples) -> NDArray[np.intp]:
    """Return the predicted classes, [q]."""
    return np.array([class_of(row) for row in objective.outputs(queries)], dtype=np.intp)
