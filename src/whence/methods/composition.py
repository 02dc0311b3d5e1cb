"""Removals from estimators made of others: each member's removal, and what follows it refitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.adapters.composed import Composed, Member
from whence.arrays import Floats
from whence.checked import checked
from whence.diagnostics import two_digits
from whence.errors import warn_user
from whence.methods.attribution import Attribution
from whence.methods.converged import converged
from whence.methods.family import of_family
from whence.methods.fit_quality import change_beside
from whence.methods.leave_one_out import Refits, outputs_without
from whence.methods.method import Method
from whence.methods.subsets import Positions
from whence.objective.cache import first_time
from whence.objective.measures import Measure
from whence.objective.trained import Examples, Trained
from whence.progress import progress
from whence.scores import Diagnostics

_STOPPED = (
    "Members stopped before their minimum: scores are removals from finished fits, and refits stop "
    "where the members' own fits do."
)
_TIGHTEN = "A smaller tol, or a larger max_iter, of the members brings them together."


@final
@checked
@dataclass(frozen=True, kw_only=True)
class Composition(Method):
    r"""Remove each training example from every member of a composed estimator, exactly.

    score[q, i] = m_q(g(f₁₋ᵢ, …, f_K₋ᵢ)) − m_q(g(f₁, …, f_K)),

    f_k the members: the estimators of a vote, those of each fold of a calibration or a stack.
    Each is refitted without the row to full precision, all removals of a convex member together.
    g is what comes after them, a mean, calibration maps or a last estimator, fitted again by its
    own library to what the members then predict of rows held out. Folds are held.

    Raises:
        UnsupportedModel: If the model is not made of others whose removals are exact.

    Cost:
        As `whence.LeaveOneOut` for each member, and a fit of what comes after per removal. Memory
        for n numbers per row held out.

    References:
        Wolpert (1992) for stacks; Platt (1999) for calibration maps; Koh & Liang (2017), section
        4.1, for removals.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.ensemble import VotingRegressor
        >>> from sklearn.linear_model import PoissonRegressor, Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> vote = VotingRegressor([("a", Ridge()), ("b", PoissonRegressor())]).fit(X, y)
        >>> trained = whence.from_sklearn(vote, X, y)
        >>> whence.Composition().fit(trained).scores((X[:2], y[:2]), indices=[3, 7]).values.shape
        (2, 2)
    """

    def attribution(self, trained: Trained) -> Attribution:
        """Return the removals of a composed estimator."""
        model = of_family(
            trained,
            Composed,
            "a vote, stack, calibration or transformed target of scikit-learn, of members whose "
            "removals are exact",
            "Use whence.Retrained().",
        )
        return _Composed(model)


@final
@dataclass(frozen=True, eq=False)
class _Composed(Refits):
    """Removals by members.

    Args:
        trained: The estimator.
    """

    trained: Composed

    @property
    def words(self) -> str:
        """What was done."""
        return f"leave-one-out: {len(self.trained.members)} members fitted again, composed"

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the changes, [q, k]."""
        trained = self.trained
        with progress(
            total=len(trained.members) * len(where), desc="retraining members", unit="fit"
        ) as bar:
            each = [_removals(trained, one, queries, where, bar.update) for one in trained.members]
        values = np.empty((len(queries), len(where)))

        def measured(column: int, gone: int | None) -> Tensor:
            asked = [
                asked[column]
                for one, (asked, _) in zip(trained.members, each, strict=True)
                if one.asked
            ]
            passed = [passed[column] for _, passed in each]
            made = trained.composition(asked, passed, queries.inputs, gone)
            return measure(torch.from_numpy(trained.predicted(made)), queries.targets)

        before = measured(-1, None)
        for column, gone in enumerate(progress(where.tolist(), desc="composing", unit="fit")):
            values[:, column] = (measured(column, gone) - before).numpy()
        found = torch.from_numpy(values)
        own = measure(trained.outputs(queries), queries.targets)
        quality = change_beside(trained, (before - own).norm(), found.norm(dim=0))
        diagnostics = Diagnostics(
            gradient_in_examples=quality.in_examples,
            unfinished=quality.of_largest,
            notes=trained.notes,
        )
        if diagnostics.fit == "converged":
            return found, diagnostics
        if diagnostics.fit == "not converged" and first_time(trained, "members stopped early"):
            warn_user(
                "Expected converged fits of the members. Got fits that stopped early: finishing "
                "them would change as much as removing "
                f"{two_digits(quality.in_examples)} typical training examples. {_TIGHTEN}"
            )
        return found, replace(diagnostics, notes=(*trained.notes, f"{_STOPPED} {_TIGHTEN}"))


def _removals(
    trained: Composed,
    member: Member,
    queries: Examples,
    where: Positions,
    done: Callable[[float], object],
) -> tuple[Floats, Floats]:
    """Return what a member predicts without each row, and with all in the last place.

    Args:
        trained: The whole.
        member: The member.
        queries: The q queries.
        where: Positions of the k rows.
        done: Is told how many of the k have been removed.

    Returns:
        Of the queries, [k + 1, q, j], and of the rows it passes on, [k + 1, h, j].
    """
    base = converged(member.trained)
    sets = [member.examples(trained.inputs_at(member.passed))] if len(member.passed) else []
    sets += [member.examples(queries.inputs)] if member.asked else []
    found = [np.repeat(member.read(base.outputs(one))[None], len(where) + 1, 0) for one in sets]
    inside = np.flatnonzero(np.isin(where, member.rows))
    own = np.searchsorted(member.rows, where[inside])
    for which, outputs in outputs_without(base, sets, own):
        for place, values in zip(found, outputs, strict=True):
            for at, column in enumerate(which):
                place[inside[column]] = member.read(values[:, :, at])
        done(len(which))
    done(len(where) - len(inside))
    nothing = np.empty((len(where) + 1, 0, 1))
    passed = found[0] if len(member.passed) else nothing
    return (found[-1] if member.asked else nothing), passed
