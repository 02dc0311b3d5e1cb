"""Multilayer perceptrons of scikit-learn as the torch networks that they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch import Tensor, nn

from whence.adapters.answers import Answer, answer_of
from whence.adapters.refitting import Refitting, template_of
from whence.adapters.rows import encoded, labels_of
from whence.adapters.stopped import stopped_early
from whence.adapters.tables import as_floats
from whence.adapters.torch import bound
from whence.arrays import Floats
from whence.errors import InvalidInput, UnsupportedModel
from whence.network.examples import ModuleExamples
from whence.network.objective import ModuleObjective
from whence.objective.losses import Loss, Tweedie
from whence.rows import column_names, dense

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

    Raises:
        UnsupportedModel: If it stopped early by rows that are not known.
    """
    if type(estimator) not in (MLPClassifier, MLPRegressor):
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
    judged = _judged(estimator, train.inputs.numpy(), labels)
    fitted = n - int(judged.sum())
    sample = np.ones(n) if sample_weight is None else sample_weight
    model = _network(estimator)
    loss: Loss = Tweedie(power=1.0) if counts else answer.of_scores
    objective = bound(
        model,
        lambda _: loss,
        (train.inputs, train.targets),
        l2=0.0,
        params=None,
        weights=np.where(judged, 0.0, sample * (n / fitted)),
        batch_size=None,
        classes=answer.classes,
    )
    # scikit-learn averages a squared error over the outputs too.
    alpha = estimator.alpha * (1 if answer.classes else estimator.n_outputs_)
    template, changed = template_of(estimator, n)
    refitting = Refitting(
        template=template,
        rows=train.inputs.numpy(),
        labels=labels,
        idle=sample == 0,
        weighted=sample_weight is not None,
        classifies=bool(answer.classes),
    )
    refit = _Refit(refitting, judged, sample)
    return replace(
        objective,
        train=replace(objective.train, ids=train.ids),
        l2=_penalty(objective, alpha / _batch(estimator, fitted)),
        encoder=table,
        refit_with=refit,
        reorder_with=refit.reordered,
        stopped=stopped_early(estimator),
        notes=(*objective.notes, *changed, *_notes(n - fitted, transform)),
    )


def _penalty(objective: ModuleObjective, l2: float) -> Tensor:
    """Return the penalty of each parameter: that of weights, none of intercepts, [p]."""
    found = torch.zeros_like(objective.params)
    for name, part in objective.slices.items():
        if name.endswith("weight"):
            found[part] = l2
    return found


def _notes(stopped_by: int, transform: Any) -> list[str]:
    """Return what is to be said of rows that told when to stop, and of transformers before."""
    notes = []
    if stopped_by:
        notes.append(
            f"{stopped_by:,} rows told when to stop, and have no effect of their own here: the "
            "others were fitted. A refit draws such rows anew, so that it differs by chance too."
        )
    if transform is not None:
        notes.append("The transformers before the network are held as they were fitted.")
    return notes


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
        judged: Which rows told when to stop, [n]; they stay in every fit.
        sample: The weights that it was fitted with, [n].
    """

    refitting: Refitting
    judged: NDArray[np.bool_]
    sample: Floats

    def __call__(self, objective: ModuleObjective, weights: Tensor) -> ModuleObjective:
        """Return the objective at the parameters of a fit with these weights."""
        given = weights.double().numpy()
        if self.judged.any():
            given = given * (1 - self.judged.mean())
            given = np.where(self.judged, self.sample, np.round(given, 12))
        return _at(objective, self.refitting(given)[0]).reweighted(weights)

    def reordered(self, objective: ModuleObjective, seed: int) -> ModuleObjective:
        """Return the objective at the parameters of a fit to the rows in another order."""
        return _at(objective, self.refitting.reordered(self.sample, seed)[0])


def _at(objective: ModuleObjective, fitted: Any) -> ModuleObjective:
    """Return the objective at the parameters of a fit.

    Raises:
        InvalidInput: If a class is gone.
    """
    if not hasattr(fitted, "coefs_"):
        raise InvalidInput(
            "Expected training rows of at least two classes to stay. Got rows of one."
        )
    parameters = dict(_network(fitted).named_parameters())
    flat = torch.cat([parameters[name].detach().flatten() for name in objective.shapes])
    if flat.shape != objective.params.shape:
        raise InvalidInput("Expected training rows of every class to stay. Got a class gone.")
    return replace(objective.at(flat), stopped=stopped_early(fitted))


def _judged(estimator: Any, rows: Floats, labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows told an estimator when to stop, [n].

    They are drawn after the weights that it starts from.

    Raises:
        UnsupportedModel: If that is not known.
    """
    judged = np.zeros(len(labels), dtype=bool)
    if not estimator.early_stopping:
        return judged
    if np.issubdtype(type(estimator.random_state), np.integer):
        generator = np.random.RandomState(estimator.random_state)
        parts = zip(estimator.coefs_, estimator.intercepts_, strict=True)
        generator.uniform(size=sum(weight.size + bias.size for weight, bias in parts))
        one = hasattr(estimator, "classes_") and estimator.n_outputs_ == 1
        _, held = train_test_split(
            np.arange(len(labels)),
            random_state=generator,
            test_size=estimator.validation_fraction,
            stratify=labels if one else None,
        )
        judged[held] = True
        score = estimator.score(rows[held], labels[held])
        if np.isclose(score, estimator.best_validation_score_, rtol=0, atol=1e-9):
            return judged
    raise UnsupportedModel(
        "Expected early_stopping=True with rows that are drawn by a number as random_state. Got "
        f"random_state={estimator.random_state!r}. Fit with random_state=0."
    )


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
