"""Measures of a whole set of queries: one number made of all their outputs, and its derivative."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.checked import checked, shown, written
from whence.errors import InvalidInput
from whence.objective.loss import Loss
from whence.objective.measures import Measure


class SetMeasure(ABC):
    """A number M(f₁ … f_q, y₁ … y_q) of all queries together, as the mean loss or an AUROC.

    Its change without a training example is predicted by its derivative in the outputs where it is
    smooth and the method is of first order; else M is evaluated at the predicted outputs.

    Attributes:
        smooth: Whether M has a derivative in the outputs that predicts its change.
    """

    smooth: bool = True

    @property
    def name(self) -> str:
        """What the measure is called in results."""
        return type(self).__name__

    @abstractmethod
    def value(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return M.

        Args:
            outputs: The outputs of the q queries, [q, c].
            targets: Their encoded targets, [q] or [q, c].
            loss: The loss of the model: it says what probabilities and predictions are.

        Returns:
            One number, [].
        """

    def subset(self, rows: NDArray[np.intp]) -> SetMeasure:
        """Return the same measure of some of the queries.

        Args:
            rows: Their positions among the queries.
        """
        del rows
        return self

    def check_queries(self, ids: NDArray[Any]) -> None:
        """Raise `InvalidInput` where the measure was made for other queries.

        Args:
            ids: The names of the queries, [q].
        """
        del ids

    def finite(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return M, or raise where it is no number."""
        value = self.value(outputs, targets, loss)
        if not torch.isfinite(value):
            some = np.unique(targets.detach().cpu().numpy())[:5].tolist()
            raise InvalidInput(
                f"Expected a finite {self.name} of the queries. Got {float(value.detach())}. Check "
                f"that no group is empty: functions get encoded targets, here {some}."
            )
        return value

    def gradient(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return ∂M/∂f, [q, c], by reverse-mode differentiation."""
        with torch.enable_grad():
            leaf = outputs.detach().clone().requires_grad_()
            value = self.finite(leaf, targets, loss)
            if not value.requires_grad:
                raise InvalidInput(
                    f"Expected {self.name} as a differentiable function of the outputs. Got a "
                    "result that does not depend on them through torch operations. Pass "
                    "whence.measures.OfSet(function, smooth=False) to have it evaluated at "
                    "predicted outputs."
                )
            (found,) = torch.autograd.grad(value, leaf)
        return found

    def changes(self, outputs: Tensor, by: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return M at changed outputs less M, evaluated and not linearized.

        Args:
            outputs: f, [q, c].
            by: k changes of the outputs, [q, c, k].
            targets: [q] or [q, c].
            loss: The loss of the model.

        Returns:
            Changes, [k].
        """
        before = self.finite(outputs, targets, loss)
        after = [self.value(outputs + change, targets, loss) for change in by.unbind(-1)]
        return torch.stack(after) - before if after else before.new_zeros(0)


@final
@checked
@dataclass(frozen=True)
class OfSet(SetMeasure):
    """A user's function of all outputs and targets: (outputs [q, c], targets [q]) -> one number.

    Args:
        function: The function, in torch operations where `smooth`; else it may use numpy.
        smooth: Whether its derivative predicts its change.

    Examples:
        >>> import torch, whence
        >>> spread = whence.measures.OfSet(lambda f, y: f.std())
        >>> spread.value(torch.tensor([[0.0], [2.0]]), torch.zeros(2), whence.Logistic())
        tensor(1.4142)
    """

    function: Callable[[Tensor, Tensor], Any]
    smooth: bool = True

    def __repr__(self) -> str:
        """Return the options, a function by its name."""
        return written(self)

    @property
    def name(self) -> str:
        """The name of the function."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def value(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return the function's value."""
        found = self.function(outputs, targets)
        try:
            if not isinstance(found, Tensor):
                found = torch.as_tensor(found, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidInput(
                f"Expected one number of all queries from {self.name}. Got {shown(found)}."
            ) from error
        if found.ndim:
            raise InvalidInput(
                f"Expected one number of all queries from {self.name}. Got shape "
                f"{tuple(found.shape)}. Reduce it, as by .mean()."
            )
        return found if found.is_floating_point() else found.to(outputs.dtype)


@final
class Along(Measure):
    """Outputs along a direction of each example's own: m(f, u) = ⟨f, u⟩, u in place of the target.

    The derivative of a measure of a set becomes a measure of each query by it: u = ∂M/∂f_q. So does
    one output, by u with a single 1.
    """

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ⟨f, u⟩, [b]."""
        return (outputs * targets).flatten(1).sum(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return u."""
        return targets.to(outputs.dtype)


@final
@dataclass(frozen=True)
class Output(Measure):
    """One output, m(f, y) = f_c: needs no targets.

    Args:
        index: c.
    """

    index: int

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return f_c, [b]."""
        return outputs[:, self.index]

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the unit vector of c for each example."""
        slopes = torch.zeros_like(outputs)
        slopes[:, self.index] = 1
        return slopes
