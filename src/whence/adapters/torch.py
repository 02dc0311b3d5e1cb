"""A trained torch module, with its loss and its data, as the objective it minimized."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Collection, Mapping, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, default_collate

from whence.adapters.arrays import first_not_finite, shared
from whence.errors import IncompleteCoverage, InvalidInput, NotDeterministic
from whence.fitting.refit import refit
from whence.network.checks import refuse_random_modules
from whence.network.objective import ModuleExamples, ModuleObjective
from whence.network.rules import module_objective
from whence.objective.derived_losses import CallableLoss
from whence.objective.losses import Loss
from whence.objective.measures import OutputFunction

Selection = Collection[str] | Callable[[str, nn.Parameter], bool]

_TARGETS = ("labels", "label", "target", "targets", "y")


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
            targets) that gives one loss per example (reduction="none").
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
        forward and backward pass of all; an example at a time only for parameters of modules
        without a rule (recurrent ones, attention with packed weights). A loss that is not finite is
        found, and its example named, by the first such pass.

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
    refuse_random_modules(model)
    if not l2 >= 0 or l2 == float("inf"):
        raise InvalidInput(f"Expected l2 >= 0. Got {l2}.")
    if batch_size is not None and batch_size < 1:
        raise InvalidInput(f"Expected batch_size >= 1. Got {batch_size}.")
    shapes = _selected(model, params)
    bound = copy.deepcopy(model).requires_grad_(False)
    named = dict(bound.named_parameters())
    flat = torch.cat([named[name].detach().flatten() for name in shapes])
    if not torch.isfinite(flat).all():
        raise InvalidInput("Expected finite parameters. Got NaN or infinity: the training failed.")
    if len({named[name].device for name in shapes}) > 1:
        raise InvalidInput("Expected all parameters on one device. Got several. Call model.to().")

    def encode(data: Any) -> ModuleExamples:
        return _encoded(data, flat)

    train = encode(dataset)
    return module_objective(
        ModuleObjective(
            model=bound,
            shapes=shapes,
            loss=loss if isinstance(loss, Loss) else CallableLoss(loss),
            train=train,
            weights=_weights(weights, len(train), flat),
            params=flat,
            l2=torch.full_like(flat, l2),
            refit_with=refit,
            encode=lambda data: _like(encode(_single(data, train)), train),
            convex=convex,
            classes=tuple(classes),
        ),
        batch_size,
    )


def _selected(model: nn.Module, params: Selection | None) -> dict[str, torch.Size]:
    """Return the selected parameters in the model's order, or say what is wrong with them."""
    named = dict(model.named_parameters())
    aliases = dict(model.named_parameters(remove_duplicate=False))
    if params is None:
        chosen = {name for name, parameter in named.items() if parameter.requires_grad}
    elif callable(params):
        chosen = {name for name, parameter in named.items() if params(name, parameter)}
    else:
        wanted = [params] if isinstance(params, str) else list(params)
        unknown = [name for name in wanted if name not in aliases]
        if unknown:
            raise IncompleteCoverage(
                f"Expected names of parameters. Got {unknown[0]!r}, which the model does not "
                f"have; it has {', '.join(itertools.islice(named, 8))}, ..."
            )
        asked = {id(aliases[name]) for name in wanted}
        chosen = {name for name, parameter in named.items() if id(parameter) in asked}
    if not chosen:
        raise IncompleteCoverage(
            "Expected at least one selected parameter. Got none. Pass params= that matches some, "
            "or set requires_grad."
        )
    for name in chosen:
        if not named[name].is_floating_point():
            raise IncompleteCoverage(
                f"Expected floating-point parameters. Got {name!r} of {named[name].dtype}. "
                "Dequantize it, or leave it out with params=."
            )
    devices = {str(parameter.device) for parameter in named.values()}
    if len(devices) > 1 or "meta" in devices:
        raise InvalidInput(
            f"Expected all parameters on one device, with values. Got {', '.join(sorted(devices))}."
            " Move the model with .to(device); the data follow it."
        )
    if len({named[name].dtype for name in chosen}) > 1:
        raise InvalidInput("Expected one dtype for all selected parameters. Got several.")
    return {name: parameter.shape for name, parameter in named.items() if name in chosen}


def _encoded(data: Any, like: Tensor) -> ModuleExamples:
    """Return a user's data as tensors, in the dtype and on the device of the parameters."""
    if isinstance(data, DataLoader):
        raise InvalidInput(
            "Expected a data set, whose examples keep their places. Got a DataLoader, which may "
            "shuffle. Pass loader.dataset."
        )
    if isinstance(data, tuple | list) and len(data) == 2:
        inputs, targets = data
        ids = np.arange(len(torch.as_tensor(_array(targets))))
    elif hasattr(data, "__getitem__") and isinstance(data, Sized) and not isinstance(data, str):
        inputs, targets = _collated(data)
        ids = np.arange(len(data))
    else:
        raise InvalidInput(
            f"Expected (x, y) or a map-style data set of such pairs. Got {type(data).__name__}."
        )
    inputs = tree_map(lambda part: _tensor(part, like), inputs)
    target = _tensor(targets, like)
    target = target.long() if target.dtype == torch.bool else target
    lengths = {len(part) if part.ndim else 0 for part in (*tree_leaves(inputs), target)}
    if lengths == {0} or not lengths:
        raise InvalidInput("Expected at least one example. Got none.")
    if len(lengths) > 1:
        raise InvalidInput(
            f"Expected as many targets as inputs. Got lengths {sorted(lengths)}. "
            "Pass (x, y) with one row per example in both."
        )
    for part in tree_leaves(inputs):
        bad = first_not_finite(part) if part.is_floating_point() else None
        if bad is not None:
            raise InvalidInput(
                f"Expected finite inputs. Got NaN or infinity in example {bad[0]}. "
                "Impute or drop such rows."
            )
    return ModuleExamples(inputs=inputs, targets=target, ids=ids)


def _collated(data: Any) -> tuple[Any, Any]:
    """Return x and y of a map-style data set whole, its first example asked twice."""
    if len(data) == 0:
        raise InvalidInput("Expected at least one example. Got an empty data set.")
    pairs = [_pair(data[i]) for i in range(len(data))]
    first, again = (default_collate([pair]) for pair in (pairs[0], _pair(data[0])))
    same = [torch.equal(a, b) for a, b in zip(tree_leaves(first), tree_leaves(again), strict=True)]
    if not all(same):
        raise NotDeterministic(
            "Expected a data set that gives the same example when asked twice. Got two different "
            "ones for index 0. Remove random augmentation, or store its outcome."
        )
    inputs, targets = default_collate(pairs)
    return inputs, targets


def _pair(item: Any) -> tuple[Any, Any]:
    """Return an item of a data set as (x, y)."""
    if isinstance(item, Mapping):
        key = next((name for name in _TARGETS if name in item), None)
        if key is None:
            raise InvalidInput(
                f"Expected items with a target under one of {', '.join(_TARGETS)}. "
                f"Got keys {', '.join(map(str, item))}. Rename the column."
            )
        inputs = {name: torch.as_tensor(v) for name, v in item.items() if name != key}
        single = len(inputs) == 1 and next(iter(inputs)) in ("x", "inputs", "image", "pixel_values")
        return next(iter(inputs.values())) if single else inputs, torch.as_tensor(item[key])
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise InvalidInput(f"Expected a data set of pairs (x, y). Got items of {type(item)}.")
    return item[0], item[1]


def _single(data: Any, train: ModuleExamples) -> Any:
    """Return (x, y) of one example as a batch of one."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        return data
    target = torch.as_tensor(_array(data[1]))
    if target.ndim == train.targets.ndim:
        return data
    inputs = tree_map(lambda part: torch.as_tensor(_array(part)).unsqueeze(0), data[0])
    return inputs, target.unsqueeze(0)


def _like(queries: ModuleExamples, train: ModuleExamples) -> ModuleExamples:
    """Return queries unless their shapes or types differ from the training data's."""
    pairs = zip(
        (*tree_leaves(queries.inputs), queries.targets),
        (*tree_leaves(train.inputs), train.targets),
        strict=False,
    )
    for got, expected in pairs:
        if got.ndim != expected.ndim or got.is_floating_point() != expected.is_floating_point():
            raise InvalidInput(
                f"Expected queries like the training data: {expected.dtype} of shape "
                f"[q, {', '.join(map(str, expected.shape[1:]))}]. Got {got.dtype} of shape "
                f"{list(got.shape)}."
            )
    return queries


def _array(values: Any) -> Any:
    """Return tensors as they are, everything else as an array."""
    return values if isinstance(values, Tensor) else np.asarray(values)


def _tensor(values: Any, like: Tensor) -> Tensor:
    """Return a tensor on the device of θ, in its dtype where floating-point."""
    tensor = values.detach() if isinstance(values, Tensor) else shared(np.asarray(values))
    tensor = tensor.to(like.device)
    return tensor.to(like.dtype) if tensor.is_floating_point() else tensor


def _weights(weights: Any, n: int, like: Tensor) -> Tensor:
    """Return checked example weights, [n]."""
    if weights is None:
        return torch.ones(n, dtype=like.dtype, device=like.device)
    checked = torch.as_tensor(_array(weights)).to(like)
    if checked.shape != (n,) or not bool((torch.isfinite(checked) & (checked >= 0)).all()):
        raise InvalidInput(
            f"Expected {n} finite weights >= 0, one per example. Got shape {tuple(checked.shape)}."
        )
    return checked
