"""Multilayer perceptrons of scikit-learn as the torch networks that they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch import Tensor, nn

from whence.adapters.answers import Answer, answer_of
from whence.adapters.refitting import Refitting, seed_note, template_of
from whence.adapters.rows import encoded, labels_of
from whence.adapters.tables import as_floats
from whence.adapters.torch import bound
from whence.errors import InvalidInput
from whence.network.examples import ModuleExamples
from whence.network.objective import ModuleObjective
from whence.objective.losses import Loss, Tweedie
from whence.rows import column_names, dense

Floats = NDArray[np.float64]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
}


def perceptron(
    estimator: Any, X: Any, y: Any, sample_weight: Floats | None, transform: Any = None
) -> ModuleObjective | None:
    """Return a fitted MLPClassifier or MLPRegressor as an objective, or `None` of anything else.

    R(θ) = (1/n) Σ wᵢ ℓᵢ + ½ (alpha/b) Σ‖W‖², b the rows of a batch: in every step scikit-learn
    divides the penalty by them.

    Args:
        estimator: Fitted.
        X: Its training rows, [n, d].
        y: Its targets.
        sample_weight: Its sample weights, or `None`.
        transform: Fitted transformers before it, held as they are; or `None`.
    """
    if type(estimator) not in (MLPClassifier, MLPRegressor) or estimator.early_stopping:
        return None
    counts = getattr(estimator, "loss", "") == "poisson"
    if (counts and estimator.n_outputs_ > 1) or (
        transform is not None and sample_weight is not None
    ):
        return None
    labels = labels_of(y)
    answer = answer_of(estimator, labels)
    names = column_names(X)
    table = Table(np.shape(X)[1], names, answer, transform)
    train = table((X, labels))
    n = len(train)
    model = _network(estimator)
    outputs = estimator.n_outputs_
    loss: Loss = Tweedie(power=1.0) if counts else answer.loss
    objective = bound(
        model,
        lambda _: loss,
        (train.inputs, train.targets),
        l2=0.0,
        params=None,
        weights=sample_weight,
        batch_size=None,
        classes=answer.classes,
    )
    # scikit-learn averages a squared error over the outputs too.
    scale = 1 if answer.classes else outputs
    batch = _batch(estimator, n)
    l2 = torch.zeros_like(objective.params)
    for name, part in objective.slices.items():
        if name.endswith("weight"):
            l2[part] = scale * estimator.alpha / batch
    template, seeded = template_of(estimator, n)
    refitting = Refitting(
        template=template,
        rows=train.inputs.numpy(),
        labels=labels,
        weighted=sample_weight is not None,
        classifies=bool(answer.classes),
    )
    notes = [*objective.notes, *([seed_note()] if seeded else [])]
    if transform is not None:
        notes.append("The transformers before the network are held as they were fitted.")
    return replace(
        objective,
        train=replace(objective.train, ids=train.ids),
        l2=l2,
        encoder=table,
        refit_with=_Refit(refitting),
        notes=tuple(notes),
    )


@final
@dataclass(frozen=True, eq=False)
class Table:
    """Reads a user's rows and labels for a network.

    Args:
        width: How many columns there are.
        names: Their names, or `None`.
        answer: Encodes targets.
        transform: What comes before the network, or `None`.
    """

    width: int
    names: tuple[str, ...] | None
    answer: Answer
    transform: Any

    def __call__(self, data: Any, train: ModuleExamples | None = None) -> ModuleExamples:
        """Return (X, y) as tensors."""
        del train  # the table knows its columns
        rows = encoded(data, self.width, self.names, self.answer.targets)
        inputs = rows.inputs if self.transform is None else self.transform.transform(rows.inputs)
        matrix = dense(as_floats(inputs)).copy()
        return ModuleExamples(inputs=torch.from_numpy(matrix), targets=rows.targets, ids=rows.ids)


@final
@dataclass(frozen=True, eq=False)
class _Refit:
    """The estimator's own fit, from its own start, as new parameters.

    Args:
        refitting: How it is fitted again.
    """

    refitting: Refitting

    def __call__(self, objective: ModuleObjective, weights: Tensor) -> ModuleObjective:
        """Return the objective at the parameters of a fit with these weights."""
        fitted, _ = self.refitting(weights.double().numpy())
        if not hasattr(fitted, "coefs_"):
            raise InvalidInput(
                "Expected training rows of at least two classes to stay. Got rows of one."
            )
        parameters = dict(_network(fitted).named_parameters())
        flat = torch.cat([parameters[name].detach().flatten() for name in objective.shapes])
        if flat.shape != objective.params.shape:
            raise InvalidInput("Expected training rows of every class to stay. Got a class gone.")
        return objective.at(flat).reweighted(weights)


def _network(estimator: Any) -> nn.Sequential:
    """Return the network with its weights, in float64, without the last activation."""
    layers: list[nn.Module] = []
    last = len(estimator.coefs_) - 1
    for at, (weight, bias) in enumerate(zip(estimator.coefs_, estimator.intercepts_, strict=True)):
        layer = nn.Linear(weight.shape[0], weight.shape[1], dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(np.asarray(weight.T, dtype=np.float64)))
            layer.bias.copy_(torch.from_numpy(np.asarray(bias, dtype=np.float64)))
        layers.append(layer)
        if at < last:
            layers.append(_ACTIVATIONS[estimator.activation]())
    return nn.Sequential(*layers)


def _batch(estimator: Any, n: int) -> int:
    """Return the number of rows in a batch."""
    if estimator.solver == "lbfgs":
        return n
    return min(200 if estimator.batch_size == "auto" else int(estimator.batch_size), n)
