"""A trained top layer on a frozen network: linear in its parameters, differentiable to the pixels.

The features of the training data are computed once; everything that concerns the parameters is then
the linear machinery. Only derivatives in the inputs go back through the whole network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whence.adapters.sklearn import linear_objective
from whence.arrays import Floats
from whence.checked import array, checked, shown
from whence.errors import InvalidInput
from whence.linear.features import Features
from whence.linear.objective import (
    InputMap,
    LinearExamples,
    LinearObjective,
    LinearQuestion,
    LinearStatistics,
)
from whence.network.checks import check_repeatable, refuse_random_modules
from whence.objective.arrays import shared
from whence.tiles import tiles


@checked
def from_frozen(
    extractor: nn.Module,
    estimator: Any,
    inputs: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    batch_size: int = 64,
) -> LinearObjective:
    """Return a fitted top layer on a frozen network's features as the objective it minimized.

    R(θ) = (1/n) Σ wᵢ ℓ(W φ(xᵢ) + b, yᵢ) + Ω(θ), with φ the network: θ is the top layer alone.

    Args:
        extractor: φ, in the mode in which the features were made; from inputs [b, ...] to
            features [b, d]. It is not copied, and must not change.
        estimator: A scikit-learn estimator fitted on the features of `inputs`: see `from_sklearn`.
        inputs: The training inputs, floating-point, [n, ...]; tensor or array.
        y: The targets, [n].
        sample_weight: As for `from_sklearn`.
        batch_size: Inputs that pass through the network at once.

    Returns:
        The objective. Queries are pairs (inputs [q, ...], targets); `whence.perturbation` gives
        derivatives in the pixels, through the whole network.

    Raises:
        InvalidInput: If inputs, features and estimator do not fit each other.
        NotDeterministic: If the network answers differently when asked twice.
        UnsupportedModel: If an example's features depend on the rest of its batch.

    Cost:
        One forward pass over the inputs; one forward and backward pass per input gradient.

    References:
        Koh & Liang (2017), sections 5.1 and 5.2.

    Examples:
        >>> import torch, whence
        >>> from sklearn.linear_model import LogisticRegression
        >>> torch.manual_seed(0).seed() >= 0
        True
        >>> images, y = torch.rand(40, 1, 6, 6), torch.arange(40) % 2
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(),
        ...                               torch.nn.Flatten()).requires_grad_(False)
        >>> top = LogisticRegression(tol=1e-8).fit(network(images), y)
        >>> objective = whence.from_frozen(network, top, images, y)
        >>> whence.perturbation(objective, [3], (images[:1], y[:1])).shape
        (1, 1, 6, 6)
    """
    refuse_random_modules(extractor)
    frozen = _Frozen(extractor, batch_size)
    checked = frozen.checked(inputs)
    check_repeatable(frozen.extractor, checked[:8])
    features = frozen.features(checked)
    linear = linear_objective(estimator, features, y, sample_weight=sample_weight)
    return _on_inputs(frozen, checked, linear)


def _on_inputs(frozen: _Frozen, images: Tensor, linear: LinearObjective) -> LinearObjective:
    """Return an objective on features of training inputs as one on the inputs themselves."""
    inputs, inner = FrozenMap(frozen=frozen, top=linear.inputs), linear.statistics
    return replace(
        linear,
        train=replace(linear.train, inputs=images, encoded_by=inputs),
        inputs=inputs,
        refit_with=_Refit(inputs, images, linear.refit_with, inner),
        statistics=None if inner is None else _FrozenStatistics(inputs, images, inner),
    )


def _on_features(
    objective: LinearObjective, top: InputMap, inner: LinearStatistics | None
) -> LinearObjective:
    """Return the objective on features, as the top layer's own."""
    return replace(
        objective, train=replace(objective.train, encoded_by=top), inputs=top, statistics=inner
    )


@final
@dataclass(frozen=True, eq=False)
class _Refit:
    """The top layer fitted again.

    Args:
        inputs: The network, and the top layer's own way to read features.
        images: The training inputs.
        refit_with: How the top layer is fitted again on features.
        statistics: What of the top layer follows its training data.
    """

    inputs: FrozenMap
    images: Tensor
    refit_with: Callable[[LinearObjective, Tensor], LinearObjective]
    statistics: LinearStatistics | None

    def __call__(self, objective: LinearObjective, weights: Tensor) -> LinearObjective:
        """Return the objective at its minimum under other weights, [n]."""
        own = _on_features(objective, self.inputs.top, self.statistics)
        inside = replace(own, refit_with=self.refit_with)
        return _on_inputs(self.inputs.frozen, self.images, self.refit_with(inside, weights))


@final
@dataclass(frozen=True, eq=False)
class _FrozenStatistics(LinearStatistics):
    """What of the top layer follows its training data, seen from the network's inputs.

    Args:
        inputs: The network, and the top layer's own way to read features.
        images: The training inputs.
        inner: The statistics on features.
    """

    inputs: FrozenMap
    images: Tensor
    inner: LinearStatistics

    @property
    def reweights(self) -> bool:
        """Whether a removal changes the weights of other examples."""
        return self.inner.reweights

    @property
    def moves_features(self) -> bool:
        """Whether the top layer's features follow its training data."""
        return self.inner.moves_features

    @property
    def held(self) -> str:
        """What the first order holds."""
        return self.inner.held

    def only_weights(self, where: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return for which examples a removal changes nothing but weights."""
        return self.inner.only_weights(where)

    def weights(self, kept: Tensor) -> Tensor:
        """Return the weights of all examples where some are removed."""
        return self.inner.weights(kept)

    def weights_as(self, where: NDArray[np.intp], targets: Tensor) -> Tensor:
        """Return the weight that examples would have with other targets."""
        return self.inner.weights_as(where, targets)

    def changed(self, objective: LinearObjective, weights: Tensor) -> LinearObjective:
        """Return R of reweighted examples at θ̂."""
        changed = self.inner.changed(_on_features(objective, self.inputs.top, self.inner), weights)
        return _on_inputs(self.inputs.frozen, self.images, changed)

    def edited(
        self, objective: LinearObjective, index: int, example: LinearExamples
    ) -> LinearObjective:
        """Return R at θ̂ with one training example replaced."""
        inside = _on_features(objective, self.inputs.top, self.inner)
        edited = self.inner.edited(inside, index, self._featured(inside, example))
        images = self.images.clone()
        images[index] = example.inputs[0]
        return _on_inputs(self.inputs.frozen, images, edited)

    def effects(
        self, question: LinearQuestion, added: tuple[LinearExamples, int] | None = None
    ) -> Tensor | None:
        """Return what each removal does to quantities through the statistics, to first order."""
        if not self.reweights and not self.moves_features:
            return None  # before the network reads the queries
        inside = self._inside(question)
        if added is not None:
            added = self._featured(inside.objective, added[0]), added[1]
        return self.inner.effects(inside, added)

    def through_inputs(self, question: LinearQuestion, where: NDArray[np.intp]) -> Tensor | None:
        """Return what moving training inputs does to one quantity through the statistics."""
        if not self.moves_features:
            return None
        through = self.inner.through_inputs(self._inside(question), where)
        if through is None:
            return None
        cotangents = through

        def of_features(part: slice, features: Floats) -> Tensor:
            del features
            return cotangents[part]

        return self.inputs.frozen.pullback(self.images[torch.from_numpy(where)], of_features)

    def _inside(self, question: LinearQuestion) -> LinearQuestion:
        """Return the same question of the top layer, on features."""
        inside = _on_features(question.objective, self.inputs.top, self.inner)
        return replace(question, objective=inside, queries=self._featured(inside, question.queries))

    def _featured(self, inside: LinearObjective, examples: LinearExamples) -> LinearExamples:
        """Return examples with the network's features as their inputs."""
        features = self.inputs.frozen.features(examples.inputs)
        return replace(examples, inputs=features, encoded_by=inside.inputs)


@final
@dataclass(frozen=True, eq=False)
class _Frozen:
    """A network that is only read.

    Args:
        extractor: φ.
        batch_size: Inputs at once.
    """

    extractor: nn.Module
    batch_size: int

    def checked(self, inputs: Any) -> Tensor:
        """Return inputs as finite floating-point numbers in the network's dtype."""
        given = array("inputs", inputs)
        if given.dtype.kind not in "biuf" or given.ndim == 0:
            raise InvalidInput(f"Expected inputs as an array of numbers. Got {shown(inputs)}.")
        tensor = shared(given)
        if not tensor.is_floating_point():
            raise InvalidInput(
                f"Expected floating-point inputs. Got {tensor.dtype}. Scale the pixels as the "
                "network expects them first."
            )
        if len(tensor) == 0 or not torch.isfinite(tensor).all():
            raise InvalidInput("Expected finite inputs, at least one. Got none, NaN or infinity.")
        like = next(iter(self.extractor.parameters()), tensor)
        return tensor.detach().to(like)

    def features(self, inputs: Tensor) -> Floats:
        """Return φ(x), [b, d]."""
        with torch.no_grad():
            parts = [self.extractor(inputs[part]) for part in self._batches(len(inputs))]
        return torch.cat(parts).double().cpu().numpy()

    def pullback(self, inputs: Tensor, cotangents: Callable[[slice, Floats], Tensor]) -> Tensor:
        """Return ∂(uᵀφ(x))/∂x for one u per input, which may depend on φ(x), like the inputs."""
        parts = []
        for part in self._batches(len(inputs)):
            with torch.enable_grad():
                leaf = inputs[part].detach().clone().requires_grad_()
                features = self.extractor(leaf)
                u = cotangents(part, features.detach().double().cpu().numpy()).to(features)
                parts.append(torch.autograd.grad(features, leaf, u)[0])
        return torch.cat(parts)

    def _batches(self, n: int) -> Iterator[slice]:
        """Yield slices of inputs."""
        return tiles(n, budget=self.batch_size)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class FrozenMap(InputMap):
    """Inputs of a network, seen by a linear model as the network's features.

    Args:
        frozen: The network.
        top: How the features become those of the linear model.
    """

    frozen: _Frozen
    top: InputMap

    def encode(self, data: Any) -> LinearExamples:
        """Check and encode (inputs, targets) of many examples, or of one."""
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise InvalidInput(
                f"Expected a pair (inputs, y). Got {type(data).__name__}. Pass queries as a pair."
            )
        inputs, y = data
        labels, given = array("targets", y), array("inputs", inputs)
        if labels.ndim == 0:
            given, labels = given[None], labels[None]
        checked = self.frozen.checked(given)
        encoded = self.top.encode((self.frozen.features(checked), labels))
        return replace(encoded, inputs=checked, encoded_by=self)

    def fixed(self) -> tuple[Tensor, ...]:
        """Return the parameters and buffers of the network."""
        return tuple(self.frozen.extractor.state_dict().values())

    def features_of(self, inputs: Any) -> Features:
        """Return the features of checked inputs, as the linear model reads them."""
        return self.top.features_of(self.frozen.features(inputs))

    def vjp(self, examples: LinearExamples, *terms: tuple[Tensor, Tensor]) -> Tensor:
        """Return Σ_a W[b, a] ∂f_a/∂x_b, through the top layer and then the network."""

        def through_top(part: slice, features: Floats) -> Tensor:
            inside = replace(examples, inputs=features)
            return self.top.vjp(inside, *((params, w[part]) for params, w in terms))

        return self.frozen.pullback(examples.inputs, through_top)

    def lift(self, v: Tensor) -> Tensor:
        """Return V in the top layer's own parameters."""
        return self.top.lift(v)
