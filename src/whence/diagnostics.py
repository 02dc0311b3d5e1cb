"""How a result was computed, and how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

FitStatus: TypeAlias = Literal["converged", "nearly converged", "not converged", "not measured"]

_SIZED = 0.2  # of refined effects: the error up to which the sizes of the first order are claimed
_CONVERGED = 0.1  # what finishing the fit may change, beside a typical example or what is shown
_TYPICAL, SHOWN = 1.0, 0.5  # the same, above which it is not converged: most shown are less


def fit_status(
    in_examples: float | None, of_largest: float | None = None, *, stopped: bool = False
) -> FitStatus:
    """Return whether a fit is good enough: the one rule of results, warnings and pages.

    Args:
        in_examples: What finishing the fit would change, in units of what removing one typical
            example does; `None` where it was not measured.
        of_largest: The same beside the largest effect shown, which decides where it is known.
        stopped: Whether the model says of its own fit that it stopped early.

    Returns:
        "converged" up to a tenth; "nearly converged" up to one typical example, or half of the
        largest effect shown; else "not converged". A fit that stopped early is not converged above
        a tenth: two parties say so.
    """
    far, most = (in_examples, _TYPICAL) if of_largest is None else (of_largest, SHOWN)
    if far is None:
        return "not measured"
    if far <= _CONVERGED:
        return "converged"
    return "nearly converged" if far <= most and not stopped else "not converged"


def two_digits(value: float) -> str:
    """Return a number >= 0 with two digits, written out up to a million.

    Args:
        value: Any float.

    Examples:
        >>> two_digits(137.2), two_digits(0.0312), two_digits(2.6e9)
        ('140', '0.031', '2.6e+09')
    """
    text = f"{value:.2g}"
    return f"{float(text):,.0f}" if 100 <= abs(value) < 1e6 else text


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """How a result was computed, and how far it can be trusted.

    A number is `None` where it was not measured.

    Args:
        solver: What inverted the curvature, and why it was chosen, in words; empty where nothing
            was inverted.
        curvature: The curvature that was inverted, or that an approximation stands for.
        gradient_norm: ‖∇R(θ̂)‖; zero where the fit has converged. Kronecker results do not spend a
            pass over the data on it.
        gradient_in_examples: What finishing the fit would change, in units of what removing one
            typical example does: beside the effects shown where there are some, else in the metric
            of the inverse curvature (the Newton decrement).
        unfinished: What finishing the fit would change, beside the largest effect shown.
        stopped: What the model says of its own fit, if it stopped early; else empty.
        damping: λ added to the curvature.
        damping_reason: Why this λ.
        residual: The largest relative residual ‖b − A x‖/‖b‖ of any solve; of refined results the
            gradient that is left, beside that of the removal itself.
        approximation_error: The relative residual of a Kronecker inverse in the exact Gauss–Newton
            system, on random training gradients: zero if the approximation were exact.
        size_error: The norm of the difference between the largest first-order effects and refined
            ones, beside that of the refined ones.
        iterations: Steps of the iterative solver; 0 for a factorization.
        converged: Whether every solve whose residual was measured reached its tolerance.
        unconfirmed: Why sizes are not claimed, a sentence, where retrainings that could show them
            do not; else empty.
        smallest_eigenvalue: Of the (damped) curvature.
        largest_eigenvalue: Of the (damped) curvature.
        notes: What else the reader must know, a sentence each.
    """

    solver: str = ""
    curvature: str = ""
    gradient_norm: float | None = None
    gradient_in_examples: float | None = None
    unfinished: float | None = None
    stopped: str = ""
    damping: float = 0.0
    damping_reason: str = ""
    residual: float | None = None
    approximation_error: float | None = None
    size_error: float | None = None
    unconfirmed: str = ""
    iterations: int = 0
    converged: bool = True
    smallest_eigenvalue: float | None = None
    largest_eigenvalue: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def fit(self) -> FitStatus:
        """Whether the fit is good enough for what is shown."""
        return fit_status(self.gradient_in_examples, self.unfinished, stopped=bool(self.stopped))

    @property
    def sized(self) -> bool:
        """Whether sizes of effects are claimed: where they are over a fifth off, not."""
        return not self.unconfirmed and (self.size_error is None or self.size_error <= _SIZED)

    def __str__(self) -> str:
        """Return one line per fact."""
        lines = []
        if self.solver:
            lines.append(f"solver        {self.solver}")
        if self.residual is not None:
            state = "converged" if self.converged else "NOT converged"
            lines.append(
                f"solve         {state}, relative residual {self.residual:.1e}, "
                f"{self.iterations} iterations"
            )
        elif self.approximation_error is not None:
            lines.append(
                "solve         closed form; relative residual in the exact Gauss-Newton system "
                f"{self.approximation_error:.2g}"
            )
        elif self.solver:
            lines.append("solve         residual not measured")
        if self.gradient_in_examples is not None:
            line = f"fit           {self.fit}: finishing it changes as much as removing "
            line += f"{two_digits(self.gradient_in_examples)} typical training examples"
            if self.unfinished is not None:
                line += f", {two_digits(self.unfinished)} times the largest effect shown"
            if self.gradient_norm is not None:
                line += f"; gradient norm {self.gradient_norm:.2e}"
            lines.append(f"{line}; {self.stopped}" if self.stopped else line)
        if self.size_error is not None:
            claim = "" if self.sized else "NOT claimed: "
            lines.append(
                f"sizes         {claim}where they are largest they differ by {self.size_error:.0%} "
                "from those of refined effects"
            )
        if self.curvature:
            lines.append(f"curvature     {self.curvature}")
        if self.damping_reason:
            lines.append(f"damping       {self.damping:.3g} ({self.damping_reason})")
        if self.smallest_eigenvalue is not None and self.largest_eigenvalue is not None:
            lines.append(
                f"eigenvalues   {self.smallest_eigenvalue:.3g} to {self.largest_eigenvalue:.3g}"
            )
        return "\n".join([*lines, *(f"note          {note}" for note in self.notes)])
