"""A fitted model with its data: what every method, page and evaluation may ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whence.errors import UnsupportedModel
from whence.linalg.operator import LinearOperator
from whence.objective.losses import Loss


class Examples(ABC):
    """Some examples (x, y) in the form that one model understands; made by it, not by hand.

    Attributes:
        ids: The user's names of the examples, [b]: the frame's index, or 0..b−1.
        targets: The encoded targets, [b] or [b, c].
        inputs: The user's own inputs: rows of a table, or tensors in any nesting; `None` where they
            were not kept.
    """

    ids: NDArray[Any]
    targets: Tensor
    inputs: Any

    @abstractmethod
    def subset(self, indices: NDArray[np.intp]) -> Examples:
        """Return the examples at these positions."""

    def relabeled(self, targets: Tensor) -> Examples:
        """Return the same examples with other encoded targets, [b]."""
        changed: Examples = replace(self, targets=targets)  # type: ignore[type-var]
        return changed

    def __len__(self) -> int:
        """Return b."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Return how many they are; their numbers would fill pages."""
        return f"<{type(self).__name__} of {len(self):,} examples>"


class Indexable(Protocol):
    """Data that has a length and items: a map-style data set, a list, an array."""

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """Return an item."""
        ...


# What users pass as queries: (X, y), a map-style data set of pairs, or examples made before.
Data: TypeAlias = Examples | tuple[Any, Any] | Indexable


@final
@dataclass(frozen=True, eq=False)
class Path:
    """The checkpoints of a training, for methods that follow it.

    Args:
        points: θ_t, each [p].
        rates: η_t >= 0, the sum of the learning rates of the steps that θ_t stands for.
        scales: What the optimizer multiplied gradients by at θ_t, each [p, p], or `None`.
    """

    points: tuple[Tensor, ...]
    rates: tuple[float, ...]
    scales: tuple[LinearOperator, ...] | None = None


class Trained(ABC):
    """A fitted model with the data it was fitted on. Immutable.

    A new family of models writes three methods: `examples`, `outputs` and `refit`. Methods that
    differentiate ask for more, an `Objective`.

    Attributes:
        convex: Whether the fit is the unique minimum of a convex objective.
        jumps: Whether a fit may change abruptly as one example goes, as the splits of trees do, so
            that a single refit without it is mostly noise.
        stopped: What the model says of its own fit, if that stopped early; else empty.
    """

    if TYPE_CHECKING:  # read-only: a subclass has them as fields of a frozen class or as properties

        @property
        def train(self) -> Examples:
            """The n training examples."""

        @property
        def weights(self) -> Tensor:
            """The example weights wᵢ >= 0, [n]."""

        @property
        def notes(self) -> tuple[str, ...]:
            """What a reader of the results must know about the model, a sentence each."""

        @property
        def loss(self) -> Loss:
            """ℓ, as differentiated by influence."""

        @property
        def trained_loss(self) -> Loss:
            """ℓ as it was minimized; differs from `loss` where that is smoothed."""

        @property
        def classes(self) -> tuple[Any, ...]:
            """The user's names of the classes, in the order of the encoded targets.

            Empty for a regression.
            """

    convex: bool
    jumps: bool = False
    stopped: str = ""

    def __repr__(self) -> str:
        """Return the loss and the number of examples; the numbers themselves would fill pages."""
        return f"<{type(self).__name__} of {self.loss!r} on {len(self.weights):,} examples>"

    @abstractmethod
    def examples(self, data: Data) -> Examples:
        """Check and encode a user's (x, y); x of one example or of many."""

    @abstractmethod
    def outputs(self, examples: Examples) -> Tensor:
        """Return the model's outputs f(x), [b, c], or [b, t, c] for sequences."""

    @abstractmethod
    def refit(self, weights: Tensor | None = None) -> Trained:
        """Return the model that a fit with other example weights gives.

        Args:
            weights: wᵢ >= 0, [n], zero for a removed example; the model's own if `None`.

        Returns:
            The fitted model. It understands the examples of this one.

        Raises:
            UnsupportedModel: If this model cannot be fitted again.

        Warns:
            NotConvergedWarning: If the fit has not converged.
        """

    def refit_edited(self, where: NDArray[np.intp], new: Examples) -> Trained:
        """Return the model that a fit gives with some training examples replaced.

        Args:
            where: Positions of the k examples that go.
            new: The k examples that come in their places, with the weights of the old ones.

        Returns:
            The fitted model. It understands the examples of this one.

        Raises:
            UnsupportedModel: If this model cannot be fitted again on other examples.
        """
        raise UnsupportedModel(
            "Expected a model that can be fitted again on edited examples, from "
            f"whence.from_sklearn. Got {self!r}. Remove examples instead."
        )

    @property
    def instant(self) -> bool:
        """Whether refits are so quick that each example can be removed for real."""
        return False

    @property
    def floored(self) -> bool:
        """Whether a probability of its answers counts as some least one where it is smaller."""
        return False

    @property
    def together(self) -> int:
        """How many of `refits` are computed at once, >= 1."""
        return 1

    def identity(self) -> tuple[Tensor | str, ...]:
        """Return what a refit depends on besides data and weights, the same in every process."""
        return (repr(self),)

    def frozen(self) -> tuple[Tensor, ...]:
        """Return what the model holds besides its parameters: weights that are not trained."""
        return ()

    def refits(self, weights: Tensor) -> Iterator[Trained]:
        """Yield the model that a fit gives, for each of several sets of example weights.

        Args:
            weights: One fit per row, [k, n].

        Yields:
            The k fitted models, in order.
        """
        for row in weights:
            yield self.refit(row)

    def reordered(self, seed: int) -> Trained | None:
        """Return the model that a fit to the same examples in another order gives.

        How far it is from this one is what a removal moves by chance: without an example, the
        others come in other batches.

        Args:
            seed: Seed of the order.

        Returns:
            The fitted model; `None` where the order makes no difference, or is not the user's.
        """
        return None

    def path(self) -> Path | None:
        """Return the checkpoints of its training, or `None` where none were recorded."""
        return None

    def differentiable(self) -> Trained | None:
        """Return the model as an `Objective`, for methods that need derivatives in θ, or `None`."""
        return None
