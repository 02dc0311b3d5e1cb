"""A trained torch module, with its loss and its data, as the objective it minimized."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whence.checked import checked
from whence.checked import weights as checked_weights
from whence.errors import InvalidInput
from whence.fitting.refit import refit
from whence.network.checks import check_apart, refuse_random_modules
from whence.network.examples import Encoder, ModuleExamples, Reader
from whence.network.module import Selection, functional
from whence.network.objective import ModuleObjective
from whence.network.rules import module_objective
from whence.objective.derived_losses import CallableLoss
from whence.objective.losses import Loss
from whence.objective.measures import OutputFunction


@checked
def from_torch(
    model: nn.Module,
    loss: Loss | OutputFunction,
    dataset: Any,
    l2: float = 0.0,
    params: Selection | None = None,
    *,
    weights: Any = None,
    batch_size: int | None = None,
    convex: bool = False,
    classes: Collection[Any] = (),
) -> ModuleObjective:
    """Return a trained module, with the data it was trained on, as the objective it minimized.

    R(θ) = (1/n) Σ wᵢ ℓ(f_θ(xᵢ), yᵢ) + (l2/2)‖θ‖² at the module's parameters θ̂.

    Args:
        model: A trained module in the mode in which it predicts; it is copied. It returns one row
            of outputs per example, and is called as model(x), model(*x) for a tuple or model(**x)
            for a dict.
        loss: `whence.CrossEntropy()` or another of whence's, or a function of (outputs,
            targets) that gives one loss per example (reduction="none"). One that is the cross
            entropy, the logistic loss or the squared error, times a weight for each class, is known
            as such.
        dataset: (x, y) as tensors, arrays or nested inputs; or a map-style data set of pairs (x, y)
            or of dicts with "labels", such as a Hugging Face data set. An example's id is its
            position.
        l2: The penalty >= 0 on every selected parameter. Weight decay λ of SGD is l2 = λ.
        params: Names of the parameters that influence goes through, or a function (name,
            parameter) -> bool; all that require a gradient if `None`. The others are constants.
        weights: wᵢ >= 0, [n]; 1 if `None`.
        batch_size: Examples differentiated at once: time and memory, not the answer, depend on it.
            If `None`, up to 1,024, so few that the largest output of a module stays in a cache.
        convex: Say True if R is convex in the selected parameters: the Hessian is then inverted as
            it is, and retraining by Newton's method becomes possible.
        classes: Names of the classes, for reports.

    Returns:
        The objective: every function of whence takes it.

    Raises:
        InvalidInput: If data, loss and model do not fit, or one of the first losses is not finite.
        IncompleteCoverage: If a selected parameter does not exist or is not floating-point.
        NotDeterministic: If the model or the data answers differently when asked twice.
        UnsupportedModel: If the outputs of an example depend on the rest of its batch.

    Cost:
        A few passes over eight examples. Then a gradient of every training example costs one
        forward and backward pass of all, and a second one, mapped over the examples, for parameters
        of modules without a rule (recurrent ones, normalized weights); an example at a time where a
        module cannot be mapped. A loss that is not finite is found, and its example named, by the
        first such pass.

    References:
        Koh & Liang (2017), section 2; Pearlmutter (1994) for Hessian-vector products.

    Examples:
        >>> import torch, whence
        >>> x, y = torch.randn(30, 4), torch.randint(3, (30,))
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 3))
        >>> objective = whence.from_torch(model, whence.CrossEntropy(), (x, y), l2=0.01)
        >>> len(objective.params), sorted(objective.factored)
        (67, ['0.bias', '0.weight', '1.bias', '1.weight'])
    """
    chosen = loss if isinstance(loss, Loss) else CallableLoss(loss)
    return bound(
        model,
        lambda _: chosen,
        dataset,
        l2=l2,
        params=params,
        weights=weights,
        batch_size=batch_size,
        convex=convex,
        classes=tuple(classes),
    )


def bound(
    model: nn.Module,
    loss: Callable[[ModuleExamples], Loss],
    dataset: Any,
    *,
    l2: float,
    params: Selection | None,
    weights: Any,
    batch_size: int | None,
    convex: bool = False,
    classes: tuple[Any, ...] = (),
    rows: Reader | None = None,
) -> ModuleObjective:
    """Return what `from_torch` does, for data whose dicts are read in a way of their own.

    Args:
        model: As for `from_torch`.
        loss: ℓ, from the training examples as they were read.
        dataset: As for `from_torch`.
        l2: As for `from_torch`.
        params: As for `from_torch`.
        weights: As for `from_torch`.
        batch_size: As for `from_torch`.
        convex: As for `from_torch`.
        classes: As for `from_torch`.
        rows: Turns a list of dicts into inputs and targets; dicts are stacked if `None`.

    Returns:
        The objective.
    """
    refuse_random_modules(model)
    if not l2 >= 0 or l2 == float("inf"):
        raise InvalidInput(f"Expected l2 >= 0. Got {l2}.")
    if batch_size is not None and batch_size < 1:
        raise InvalidInput(f"Expected batch_size >= 1. Got {batch_size}.")
    module, flat = functional(model, params)
    encoder = Encoder(dtype=flat.dtype, device=flat.device, rows=rows)
    train = encoder(dataset)
    found = module_objective(
        ModuleObjective(
            module=module,
            loss=loss(train),
            train=train,
            weights=_weights(weights, len(train), flat),
            params=flat,
            l2=flat.new_tensor(float(l2)).expand(len(flat)),
            refit_with=refit,
            encoder=encoder,
            convex=convex,
            classes=classes,
            notes=module.notes,
        ),
        batch_size,
    )
    one = train.subset(np.arange(1))
    check_apart(model, lambda x: found.run(found.params, x), one.inputs)
    return found


def _weights(weights: Any, n: int, like: Tensor) -> Tensor:
    """Return checked example weights, [n]."""
    if weights is None:
        return torch.ones(n, dtype=like.dtype, device=like.device)
    return torch.from_numpy(checked_weights("weights", weights, n)).to(like)
