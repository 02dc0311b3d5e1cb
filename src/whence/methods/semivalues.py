r"""Values of training examples by name, from fits to random subsets: Banzhaf, Beta-Shapley, in-out.

A semivalue is the mean change of a measure as an example joins a random subset S, the share p of
examples in S drawn from some distribution:

```
φᵢ = E_p E_{S ~ Bernoulli(p)} [m(S) | i ∉ S] − E[m(S) | i ∈ S]
```

with the sign of a removal. p = ½ is Banzhaf's value, a uniform p Shapley's, p ~ Beta(b, a) that of
Beta(a, b)-Shapley.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.arrays import Floats
from whence.checked import checked
from whence.errors import InvalidInput
from whence.methods.attribution import Attribution
from whence.methods.datamodel import FOLDS, rank_agreement
from whence.methods.ensemble import outputs_of
from whence.methods.method import Method
from whence.methods.prediction import Indices, MeasureLike, as_array, positions
from whence.methods.subsets import Positions
from whence.objective.cache import cached
from whence.objective.losses import measure_of
from whence.objective.measures import Measure
from whence.objective.removed import weights_in_parts
from whence.objective.trained import Data, Examples, Trained
from whence.progress import progress
from whence.scores import Diagnostics

Kind = Literal["banzhaf", "beta-shapley", "shapley", "in-out"]

_WORDS: dict[Kind, str] = {
    "banzhaf": "Banzhaf value (Wang & Jia 2023)",
    "beta-shapley": "Beta-Shapley value (Kwon & Zou 2022)",
    "shapley": "Shapley value (Ghorbani & Zou 2019)",
    "in-out": "out-of-bag less in-bag mean, over halves (Feldman & Zhang 2020)",
}
_FEWEST = 4 * FOLDS
_LEAST = 0.02  # the smallest share of examples in a subset, and of those left out


@final
@checked
@dataclass(frozen=True, kw_only=True)
class Semivalue(Method):
    r"""Estimate a named value of training examples from fits to random subsets.

    - "in-out": halves of exactly n/2 examples; the mean measure of the fits without an example less
      that of the fits with it.
    - "banzhaf": each example is in a subset with probability ½; the same difference of means.
    - "beta-shapley": with probability p ~ Beta(b, a), each fit its own; Beta(16, 1) weighs small
      subsets, in which a single example counts. "shapley" is Beta(1, 1).

    φᵢ = mean of m_b (1[i ∉ S_b]/(1 − p_b) − 1[i ∈ S_b]/p_b), m_b less a line in p_b. Shares p_b are
    at least 2 % and 2/n; this least is doubled until the model can be fitted to all subsets, as
    where they lack a class or have fewer rows than neighbors vote. A note says so.

    They need many more fits than `Retrained`, which shrinks toward a prior: their standard errors
    and their rank correlation with fits that were held back say how many.

    Args:
        kind: "banzhaf", "beta-shapley", "shapley" or "in-out".
        fits: How many, >= 20.
        beta: (a, b) of Beta-Shapley.
        seed: Seed of the subsets.

    Raises:
        InvalidInput: If an option cannot be used.

    Cost:
        A fit per subset, once per model.

    References:
        Wang & Jia (2023), "Data Banzhaf", definition 2 and section 4.3; Kwon & Zou (2022),
        "Beta Shapley", equation 5; Feldman & Zhang (2020), section 3.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.neighbors import KNeighborsRegressor
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = whence.from_sklearn(KNeighborsRegressor().fit(X[:80], y[:80]), X[:80], y[:80])
        >>> banzhaf = whence.Semivalue(kind="banzhaf", fits=40).fit(model)
        >>> banzhaf.scores((X[80:82], y[80:82])).values.shape
        (2, 80)
    """

    kind: Kind = "banzhaf"
    fits: int = 200
    beta: tuple[float, float] = (16.0, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the options."""
        if self.fits < _FEWEST:
            raise InvalidInput(f"Expected fits >= {_FEWEST}. Got {self.fits}.")
        if min(self.beta) <= 0:
            raise InvalidInput(f"Expected beta=(a, b), both > 0. Got {self.beta!r}.")

    def attribution(self, trained: Trained) -> Attribution:
        """Return the fits, which are made when they are first asked for."""
        return Semivalues(trained, self)

    def subsets(
        self, n: int, least: float = _LEAST
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return which examples each fit keeps, [b, n], and with what probability, [b].

        Args:
            n: How many examples there are.
            least: The least of these probabilities where each fit has its own.
        """
        draw = np.random.default_rng(self.seed)
        if self.kind == "in-out":
            kept = np.zeros((self.fits, n), dtype=bool)
            for row in kept:
                row[draw.permutation(n)[: n // 2]] = True
            return kept, np.full(self.fits, (n // 2) / n)
        shares = np.full(self.fits, 0.5)
        if self.kind != "banzhaf":
            a, b = self.beta if self.kind == "beta-shapley" else (1.0, 1.0)
            shares = draw.beta(b, a, self.fits).clip(max(least, 2 / n), 1 - _LEAST)
        return draw.random((self.fits, n)) < shares[:, None], shares


@final
@dataclass(frozen=True, eq=False)
class Semivalues(Attribution):
    """Fits of a model to random subsets of its training data.

    Args:
        trained: The model.
        method: The options.
    """

    trained: Trained
    method: Semivalue

    @property
    def words(self) -> str:
        """The value, with its source."""
        return f"{_WORDS[self.method.kind]}, from {self.method.fits} fits"

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return φ, [q, k], with what is known of it."""
        every = self._each(queries, measure)
        values, errors = every.values(), every.errors()
        predicted = torch.zeros_like(every.outcomes)
        fold = torch.arange(len(every.outcomes)) % FOLDS
        for part in range(FOLDS):
            held = fold == part
            inside = every.kept[held] - every.shares[held, None]
            predicted[held] = -inside @ every.of(~held).values().T
        found, spread = rank_agreement(predicted.numpy(), every.outcomes.numpy())
        share = float(errors.square().mean().sqrt() / values.std().clamp_min(1e-300))
        least = self._drawn().least
        notes = [*self.trained.notes]
        if least > _LEAST:
            notes.append(
                f"Subsets hold each example with a probability of {least:.2g} at least: the model "
                "could not be fitted to smaller ones."
            )
        notes.append(f"Standard errors are {share:.2g} of the spread of values.")
        if found is not None:
            notes.append(
                f"Fits that were held back are predicted with a rank correlation (LDS) of "
                f"{found:.2f} ± {spread:.2f}."
            )
        return values[:, torch.from_numpy(where)], Diagnostics(notes=tuple(notes))

    def standard_errors(
        self, queries: Data, *, measure: MeasureLike = "loss", indices: Indices | None = None
    ) -> Floats:
        """Return how far another set of as many subsets would move each value.

        Args:
            queries: (X, y) of q queries, or of one.
            measure: As in `scores`.
            indices: Positions of the candidates in the training data; all n if `None`.

        Returns:
            Standard errors, [q, k].
        """
        examples = self.trained.examples(queries)
        every = self._each(examples, measure_of(self.loss, measure))
        return as_array(every.errors()[:, torch.as_tensor(positions(self.trained, indices))])

    def _each(self, queries: Examples, measure: Measure) -> _Each:
        """Return what each fit answers to the queries."""
        drawn = self._drawn()
        kept, shares = torch.from_numpy(drawn.kept), torch.from_numpy(drawn.shares)
        targets = queries.targets.cpu()
        outcomes = torch.stack(
            [measure(outputs_of(member, queries), targets) for member in drawn.members]
        )
        line = torch.stack([torch.ones_like(shares), shares - shares.mean()], 1)
        level = line @ torch.linalg.lstsq(line, outcomes, driver="gelsd").solution
        return _Each(outcomes=outcomes - level, kept=kept.double(), shares=shares)

    def _drawn(self) -> _Drawn:
        """Return the subsets and the models that are fitted to them, made once."""
        return cached(self.trained, (Semivalues, self.method), self._fitted)

    def _fitted(self, trained: Trained) -> _Drawn:
        """Return subsets to all of which the model can be fitted: the smallest are tried first."""
        n, least = len(trained.train), _LEAST
        while True:
            kept, shares = self.method.subsets(n, least)
            order = np.argsort(kept.sum(1), kind="stable")
            kept, shares = kept[order], shares[order]
            fits = trained.refits(weights_in_parts(trained.weights, torch.from_numpy(kept)))
            bar = progress(fits, total=self.method.fits, desc="retraining", unit="fit")
            try:
                return _Drawn(list(bar), kept, shares, least)
            except InvalidInput:
                least *= 2
                if least > 0.5 or self.method.kind in ("banzhaf", "in-out"):
                    raise


@final
@dataclass(frozen=True, eq=False)
class _Drawn:
    """Subsets and the models fitted to them.

    Args:
        members: The b models.
        kept: Which examples each has, [b, n].
        shares: p of each, [b].
        least: The least p.
    """

    members: list[Trained]
    kept: NDArray[np.bool_]
    shares: NDArray[np.float64]
    least: float


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class _Each:
    """What each of b fits answers.

    Args:
        outcomes: The measures less their level at the size of the subset, [b, q].
        kept: 1 where a fit kept an example, [b, n].
        shares: p of each fit, [b].
    """

    outcomes: Tensor
    kept: Tensor
    shares: Tensor

    def of(self, some: Tensor) -> _Each:
        """Return the same of some fits, [b]."""
        return _Each(outcomes=self.outcomes[some], kept=self.kept[some], shares=self.shares[some])

    @property
    def rates(self) -> Tensor:
        """1[i ∉ S]/(1 − p) − 1[i ∈ S]/p, [b, n]; with one p for all fits, that of each example."""
        p = self.shares.unsqueeze(1)
        if bool((self.shares == self.shares[0]).all()):
            half = 0.5 / len(self.kept)
            p = self.kept.mean(0).clamp(half, 1 - half)
        return (1 - self.kept) / (1 - p) - self.kept / p

    def values(self) -> Tensor:
        """Return φ, [q, n]."""
        return self.outcomes.T @ self.rates / len(self.kept)

    def errors(self) -> Tensor:
        """Return the standard error of φ, [q, n]."""
        b = len(self.kept)
        squares = self.outcomes.square().T @ self.rates.square() / b
        return ((squares - self.values().square()).clamp_min(0) / (b - 1)).sqrt()
