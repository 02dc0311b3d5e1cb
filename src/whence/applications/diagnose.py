"""Diagnosis of a model for influence: its minimum, curvature and convergence, in words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from whence.checked import checked
from whence.curvature.exact import GGN, Curvature, Hessian
from whence.curvature.minimum import ends, floor, gradient
from whence.diagnostics import fit_status, two_digits
from whence.errors import InvalidInput
from whence.linalg.eigenvalues import (
    ExtremeEigenvalues,
    SpectralDensity,
    extreme_eigenvalues,
    spectral_density,
)
from whence.methods.fit_quality import fit_quality
from whence.methods.influence import Influence
from whence.methods.orders import FirstOrder
from whence.objective.objective import objective_of
from whence.objective.trained import Trained
from whence.pages import Level, Status, write
from whence.result import Card, Result
from whence.views.made import Made
from whence.views.results import diagnosis_page

Matrix = Literal["hessian", "ggn"]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Spectrum(Result):
    """The eigenvalues of an objective's curvature, from its products alone.

    Args:
        ends: The smallest and the largest eigenvalue, with error bounds.
        density: How the eigenvalues are distributed.
    """

    ends: ExtremeEigenvalues
    density: SpectralDensity

    def card(self) -> Card:
        """Return both ends, with their error bounds."""
        ends = self.ends
        return Card(
            title=f"eigenvalues from {ends.smallest:.3g} to {ends.largest:.3g}",
            facts={
                "smallest": f"{ends.smallest:.3g} ± {ends.smallest_error:.1g}",
                "largest": f"{ends.largest:.3g} ± {ends.largest_error:.1g}",
                "products": f"{ends.iterations:,}",
            },
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class Diagnosis(Result):
    """What must be known of a trained model before its influence is believed.

    Args:
        gradient_norm: ‖∇R(θ̂)‖.
        gradient_in_examples: What finishing the fit would change, in units of what removing one
            typical training example does (the Newton decrement).
        stopped: What the model says of its own fit, if that stopped early; else empty.
        smallest: The smallest eigenvalue of the Hessian, as far as Lanczos found.
        largest: The largest.
        minimum: Whether θ̂ is a local minimum: no negative eigenvalue beyond the error.
        sufficient_damping: The damping that makes the Hessian positive definite; 0 if it is.
        curvature: The curvature that `whence.influence` inverts by default.
        damping: The damping λ that it adds.
        damping_reason: Why this curvature and this λ.
    """

    gradient_norm: float
    gradient_in_examples: float
    stopped: str = ""
    smallest: float
    largest: float
    minimum: bool
    sufficient_damping: float
    curvature: str
    damping: float
    damping_reason: str

    @checked
    def report(
        self,
        path: str | os.PathLike[str],
        *,
        quality: str = "",
        title: str = "Can influence be trusted on this model?",
        about: Sequence[str] = (),
        command: str = "diagnose(objective).report(path)",
    ) -> Path:
        """Write the answers as one self-contained HTML page.

        Args:
            path: The file; an existing one is replaced, whole or not at all.
            quality: How good the model is on what it has not seen, in a sentence.
            title: The heading.
            about: Which data and model these are, a sentence each; the first stands on top.
            command: What reproduces the page; shown at its end.

        Returns:
            The path.

        Raises:
            InvalidInput: If the path cannot be written.
        """
        status: dict[str, Level] = {"converged": "good", "nearly converged": "caution"}
        questions = (
            (
                Status(
                    level=status.get(self._status, "bad"),
                    title=f"The fit is {self._status}.",
                    numbers=self._fit,
                ),
                "Is the model fully trained?",
            ),
            (
                Status(
                    level="good" if self.minimum else "bad",
                    title="It is at a minimum." if self.minimum else "It is at no minimum.",
                    numbers=self._shape,
                ),
                "Is it at a minimum of what it minimized?",
            ),
            (
                Status(
                    level="caution" if self.damping else "good",
                    title="The curvature is damped." if self.damping else "No damping is needed.",
                    numbers=f"{self._amount}{self.damping_reason}. Inverted: the {self.curvature}.",
                ),
                "Which damping does influence add?",
            ),
        )
        made = Made(title=title, about=tuple(about), command=command)
        return write(diagnosis_page(questions, quality=quality, made=made), path)

    def __str__(self) -> str:
        """Return the answers to three questions, a line each."""
        converged = {
            "converged": "yes",
            "nearly converged": "nearly",
            "not converged": "no: train further",
        }[self._status]
        minimum = "yes" if self.minimum else "no"
        return (
            f"Converged?        {converged}; {self._fit}\n"
            f"Local minimum?    {minimum}: {self._shape}\n"
            f"Which damping?    {self._amount}{self.damping_reason}; of the {self.curvature}"
        )

    def card(self) -> Card:
        """Return the answers to the same questions."""
        minimum = "a minimum" if self.minimum else "no minimum"
        damping = f"damping {self.damping:.2g}" if self.damping else "no damping"
        title = f"the fit is {self._status}, at {minimum}; influence adds {damping}"
        return Card(title=title, words=tuple(str(self).splitlines()))

    @property
    def _status(self) -> str:
        """How far the fit is from its optimum, in a word or two."""
        return fit_status(self.gradient_in_examples, stopped=bool(self.stopped))

    @property
    def _fit(self) -> str:
        """How far the fit is from its optimum, in words."""
        return (
            f"gradient norm {self.gradient_norm:.1e}, finishing the fit changes as much as "
            f"removing {two_digits(self.gradient_in_examples)} typical training examples"
            f"{f'; {self.stopped}' if self.stopped else ''}"
        )

    @property
    def _shape(self) -> str:
        """The ends of the spectrum, in words."""
        if self.minimum:
            return f"eigenvalues from {self.smallest:.2e} to {self.largest:.2e}"
        return (
            f"the smallest eigenvalue is {self.smallest:.2e}, the largest {self.largest:.2e}; the "
            f"Hessian is positive definite with damping {self.sufficient_damping:.2e} or more"
        )

    @property
    def _amount(self) -> str:
        """The damping, before its reason."""
        return f"{self.damping:.2e}, " if self.damping else ""


@checked
def spectrum(
    objective: Trained, *, matrix: Matrix = "hessian", iterations: int = 64, probes: int = 4
) -> Spectrum:
    """Estimate the spectrum of an objective's curvature by Lanczos.

    Args:
        objective: R at θ̂.
        matrix: "hessian" or "ggn", the Gauss–Newton matrix.
        iterations: Lanczos steps, >= 1; more resolve more.
        probes: Random starts for the density, >= 1.

    Returns:
        Both ends with error bounds, and the density.

    Raises:
        InvalidInput: If `matrix` is another word, or a number is out of range.

    Cost:
        (probes + 1) · iterations products with the curvature.

    References:
        Ghorbani, Krishnan & Xiao (2019), "An Investigation into Neural Net Optimization via Hessian
        Eigenvalue Density", section 2.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> found = whence.spectrum(whence.from_sklearn(Ridge().fit(X, y), X, y))
        >>> found.ends.smallest > 0
        True
    """
    if matrix not in ("hessian", "ggn"):
        raise InvalidInput(f'Expected matrix="hessian" or "ggn". Got {matrix!r}.')
    smooth = objective_of(objective)
    curvature: Curvature = Hessian(smooth) if matrix == "hessian" else GGN(smooth)
    steps = min(iterations, len(smooth.params))
    return Spectrum(
        ends=extreme_eigenvalues(curvature, steps),
        density=spectral_density(curvature, probes=probes, iterations=steps),
    )


@checked
def diagnose(objective: Trained, *, iterations: int = 64) -> Diagnosis:
    """Return whether a model is converged and at a minimum, and the damping that influence takes.

    The answers come from the rules that `whence.influence` follows.

    Args:
        objective: R at θ̂.
        iterations: Lanczos steps for the two ends of the Hessian's spectrum.

    Returns:
        The numbers; printed, the answers in words.

    Cost:
        The inverse curvature that `whence.influence` prepares by default, which then uses it, and
        `iterations` Hessian-vector products.

    References:
        Koh & Liang (2017), section 4.2: the damped quadratic for models that have not converged.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X, y)
        >>> whence.diagnose(whence.from_sklearn(model, X, y)).minimum
        True
    """
    smooth = objective_of(objective)
    prepared = FirstOrder(smooth, Influence()).prepared(1)
    quality = fit_quality(smooth, prepared)
    found = ends(smooth, iterations)
    eps = torch.finfo(smooth.params.dtype).eps
    least = floor(smooth, found.largest)
    # Along a flat direction nothing depends on θ: a zero there is no lack of a minimum.
    minimum = found.smallest > -least - found.smallest_error
    flat = smooth.flat_directions().shape[1] > 0
    harmless = minimum and (flat or found.smallest > least)
    return Diagnosis(
        gradient_norm=float(gradient(smooth).norm()),
        gradient_in_examples=quality.in_examples,
        stopped=smooth.stopped,
        smallest=found.smallest,
        largest=found.largest,
        minimum=minimum,
        sufficient_damping=0.0 if harmless else found.sufficient_damping(eps),
        curvature=prepared.curvature,
        damping=prepared.damping,
        damping_reason=prepared.damping_reason,
    )
