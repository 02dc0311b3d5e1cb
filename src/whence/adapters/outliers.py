"""Models of what rows usually are: the score of a row, by refits of the user's own estimator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import OutlierMixin
from torch import Tensor

from whence.adapters.answers import Answer
from whence.adapters.anything import Estimator, anything
from whence.adapters.nu_machines import NuMachine, nu_machine
from whence.adapters.rows import labels_of
from whence.arrays import Floats
from whence.errors import UnsupportedModel
from whence.objective.losses import Loss
from whence.preprocessing.containers import final as final_step
from whence.workers import Backend


@dataclass(frozen=True)
class Strangeness(Loss):
    """How unusual a row is: ℓ(f) = −f, the score f of its library with the sign turned.

    Examples:
        >>> import torch
        >>> Strangeness()(torch.tensor([[-0.6]]), torch.tensor([0.0]))
        tensor([0.6000])
    """

    regresses: ClassVar[bool] = True
    unit: ClassVar[str] = "the score of the row, negative"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return −f, [b]."""
        return -outputs[:, 0]

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return −1, [b, 1]."""
        return -torch.ones_like(outputs)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return zeros: the score counts as it is."""
        return torch.zeros_like(tangents)

    def prediction(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the score f, [b]."""
        return outputs[:, 0]

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Accept all: a score is compared with no target."""


@final
@dataclass(frozen=True, eq=False)
class RowScore(Answer):
    """The score of a row, lower where it is more unusual."""

    @property
    def loss(self) -> Loss:
        """−score."""
        return Strangeness()

    @property
    def note(self) -> str:
        """What the outputs are."""
        return "The prediction is the score of the row, lower where it is more unusual."

    def outputs(self, estimator: Any, rows: Any) -> Floats:
        """Return scores, [b, 1]."""
        return np.asarray(estimator.score_samples(rows), dtype=np.float64).reshape(-1, 1)

    def targets(self, labels: NDArray[Any]) -> Tensor:
        """Return 0 for every row: no target is known."""
        return torch.zeros(len(labels), dtype=torch.float64)

    def labels_of(self, targets: Tensor) -> Floats:
        """Return 0 for every row."""
        return np.zeros(len(targets))


def outliers(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Floats | None,
    *,
    workers: int = 1,
    backend: Backend = "process",
    notes: tuple[str, ...] = (),
    fit_params: Mapping[str, Any] | None = None,
) -> Estimator | NuMachine | None:
    """Return a fitted IsolationForest, OneClassSVM or the like, or `None` of anything else.

    Args:
        estimator: Fitted, or a Pipeline that ends in one.
        X: Its training rows, [n, d].
        y: Anything, [n], or `None`: it knows no targets.
        sample_weight: Its sample weights, or `None`.
        workers: Processes, or tasks of Ray, that fit it again at a time.
        backend: "process" or "ray".
        notes: What a reader must know, a sentence each.
        fit_params: What else its fit was given, by name.

    Raises:
        UnsupportedModel: If it scores its own training rows alone.
    """
    last = final_step(estimator)
    if not isinstance(last, OutlierMixin):
        return None
    name = type(last).__name__
    if not hasattr(last, "score_samples"):
        raise UnsupportedModel(
            f"Expected an outlier detector with score_samples. Got {name}, which scores the rows "
            "that it was fitted on alone. Fit it with novelty=True, or an IsolationForest."
        )
    labels = np.zeros(np.shape(X)[0]) if y is None else labels_of(y)
    options: dict[str, Any] = {"workers": workers, "backend": backend, "notes": notes}
    options["fit_params"] = fit_params
    machine = None if fit_params else nu_machine(estimator, X, labels, sample_weight, RowScore())
    model = machine or anything(estimator, X, labels, sample_weight, answer=RowScore(), **options)
    own = torch.from_numpy(model.answer.outputs(estimator, model.train.inputs)[:, 0])
    return replace(model, train=replace(model.train, targets=own))
