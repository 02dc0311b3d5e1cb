"""Scores from a retraining ensemble on random halves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from whence.arrays import Floats
from whence.checked import checked
from whence.errors import InvalidInput, UnsupportedModel
from whence.evaluation.ensemble import Together, retraining_ensemble
from whence.evaluation.identity import identity_of
from whence.evaluation.members import Identity
from whence.methods.attribution import Attribution
from whence.methods.datamodel import FOLDS, Asked, Effects, Fits, Shrinkage, effects, shrinkage
from whence.methods.method import Method
from whence.methods.prediction import Indices, MeasureLike, as_array, positions
from whence.methods.resolution import fits_to_resolve
from whence.methods.similarity import coordinates
from whence.methods.subsets import Positions
from whence.objective.cache import cached
from whence.objective.losses import measure_of
from whence.objective.measures import Measure
from whence.objective.removed import weights_in_parts
from whence.objective.sets.measure import Output, SetMeasure
from whence.objective.trained import Data, Examples, Trained
from whence.progress import progress
from whence.scores import Diagnostics

_FRACTION = 0.5  # of the training examples that a fit keeps
_STREAM = 100_003  # sets the halves apart from the subsets of `whence.evaluate`
_FEWEST = 4 * FOLDS


@final
@checked
@dataclass(frozen=True, kw_only=True)
class Retrained(Method):
    """Fit the model again on random halves of its training data, and see what each example changes.

    It needs nothing of a model but that it can be fitted again. With m_b ∈ {0, 1}ⁿ what fit b kept
    and y_b a query's measure after it,

        y_b ≈ y₀ − Σᵢ m_bi τᵢ,        score[q, i] = τᵢ / 2:

    a datamodel. A plain regression would need more fits than examples; τ is shrunk toward a prior
    instead, a sum of *similarity × pull*: how alike the two are, in their inputs and in how the
    fits answer to both, times ⟨∇_f m_q, ∇_f ℓᵢ⟩. The weights of the sum and the strength of the
    shrinkage are learned from training examples in fits that left them out. An effect on half of
    the data counts half on all of it.

    The diagnostics say how well the ensemble predicts fits of its own that were held back: its
    estimate of the LDS that `whence.evaluate` would measure. `standard_errors` of the attribution
    says how far another ensemble would move a score.

    Args:
        fits: How many, >= 20.
        directory: Where the outcomes of fits are kept, one file each: an interrupted call goes on
            from there. In memory if `None`, and then all queries share the fits; else each set of
            queries has its own.
        seed: Seed of the halves.

    Raises:
        InvalidInput: If there are too few fits.

    Cost:
        One fit to half of the data for each of `fits`. Then, for q queries and outputs [c], about
        q n (fits c + 50) operations.

    References:
        Ilyas et al. (2022), "Datamodels", arXiv:2202.00622, section 2; Feldman & Zhang (2020),
        section 3, for the effect on an example's own loss. The prior is whence's own.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_breast_cancer
        >>> from sklearn.neighbors import RadiusNeighborsClassifier
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> clf = RadiusNeighborsClassifier(500.0, outlier_label=1).fit(X[9:209], y[9:209])
        >>> model = whence.from_sklearn(clf, X[9:209], y[9:209])
        >>> found = whence.Retrained(fits=20).fit(model)
        >>> found.scores((X[:2], y[:2])).values.shape
        (2, 200)
    """

    fits: int = 60
    directory: str | os.PathLike[str] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the options."""
        if self.fits < _FEWEST:
            raise InvalidInput(f"Expected fits >= {_FEWEST}. Got {self.fits}.")

    def attribution(self, trained: Trained) -> Attribution:
        """Return the ensemble, whose fits are made when they are first asked for."""
        return Ensemble(trained, self)

    def ensemble(self, trained: Trained) -> Ensemble:
        """Return the fits to a model's halves, with what they know besides scores.

        Args:
            trained: The model.

        Returns:
            The same as `fit`, by its own type.
        """
        return Ensemble(trained, self)


@final
@dataclass(frozen=True, eq=False)
class Ensemble(Attribution):
    """Fits of a model to random halves of its training data.

    Args:
        trained: The model.
        method: The options.
    """

    trained: Trained
    method: Retrained

    @property
    def words(self) -> str:
        """What was done, with its source."""
        return (
            f"{self.method.fits} fits on random halves of the training data, a datamodel shrunk "
            "toward similar examples (after Ilyas et al. 2022)"
        )

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the effects, [q, k]."""
        found = self._effects(queries, measure)
        at = torch.as_tensor(where)
        return found.values[:, at] * _FRACTION, self._measured(found, len(queries))

    def set_values(
        self, queries: Examples, measure: SetMeasure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the changes of one number of all queries at predicted outputs, [1, k]."""
        outputs = self.trained.outputs(queries).double()
        found = [self.values(queries, Output(c), where) for c in range(outputs.shape[1])]
        by = torch.stack([values for values, _ in found], 1).double()
        changes = measure.changes(outputs, by, queries.targets, self.loss)
        return changes.unsqueeze(0), found[0][1]

    def self_values(self, where: Positions) -> tuple[Tensor, Diagnostics]:
        """Return the mean loss of fits that left an example out, less that of the others, [k].

        Of the example's own loss, times a half: as many fits have it as have not, and nothing is
        shrunk.
        """
        inside, outside = self.losses()
        values = (outside - inside) * _FRACTION
        return values[torch.as_tensor(where)], Diagnostics(notes=self.trained.notes)

    def losses(self) -> tuple[Tensor, Tensor]:
        """Return the mean loss of each training example, [n], in fits that kept it and in others.

        The second is its held-out loss: large where a label is wrong.
        """
        fits = self._fits(None)[0]
        targets, kept = self.trained.train.targets, fits.kept
        each = torch.stack([self.loss(outputs, targets) for outputs in fits.train])
        inside = (each * kept).sum(0) / kept.sum(0).clamp_min(1)
        outside = (each * (1 - kept)).sum(0) / (1 - kept).sum(0).clamp_min(1)
        return inside, outside

    def standard_errors(
        self, queries: Data, *, measure: MeasureLike = "loss", indices: Indices | None = None
    ) -> Floats:
        """Return how far another ensemble of as many fits would move each score.

        The jackknife over five groups of fits, the weights of the prior held as they were learned.
        It says nothing of what the prior leaves out: for that see the LDS in the diagnostics.

        Args:
            queries: (X, y) of q queries, or of one.
            measure: "loss", "margin", "probability", "prediction" or a function (outputs, targets)
                -> [b].
            indices: Positions of the candidates in the training data; all n if `None`.

        Returns:
            Standard errors of `scores`, [q, k].
        """
        examples = self.trained.examples(queries)
        where = torch.as_tensor(positions(self.trained, indices))
        found = self._effects(examples, measure_of(self.loss, measure))
        return as_array(found.errors[:, where] * _FRACTION)

    def fits_to_resolve(
        self, queries: Data, *, measure: MeasureLike = "loss", k: int = 10
    ) -> list[int | None]:
        """Return how many fits in all would name nine tenths of the first k examples again.

        Scores and standard errors of this ensemble are taken for those of the next, whose errors
        fall with the root of the number of fits.

        Args:
            queries: (X, y) of q queries, or of one.
            measure: As in `scores`.
            k: How many examples are first, by the size of their scores.

        Returns:
            A number per query, `fits` itself where this ensemble is enough; `None` where none is.
        """
        examples = self.trained.examples(queries)
        found = self._effects(examples, measure_of(self.loss, measure))
        return [
            fits_to_resolve(as_array(values), as_array(errors), self.method.fits, k=k)
            for values, errors in zip(found.values, found.errors, strict=True)
        ]

    def _effects(self, queries: Examples, measure: Measure) -> Effects:
        """Return the effects of all training examples on queries."""
        fits, asked = self._fits(queries)
        assert asked is not None
        return effects(fits, asked, measure, self._learned(fits, measure))

    def _learned(self, fits: Fits, measure: Measure) -> Shrinkage:
        """Return the shrinkage of a measure, learned once."""
        key = (Ensemble, self.method, measure)
        return cached(self.trained, key, lambda _: shrinkage(fits, measure))

    def _fits(self, queries: Examples | None) -> tuple[Fits, Asked | None]:
        """Return the fits, with what they answer to queries."""
        trained = self.trained
        if self.method.directory is None:
            members = cached(trained, (Ensemble, self.method), self._members)
            train = torch.stack([outputs_of(member, trained.train) for member in members])
            asked = None
            if queries is not None:
                asked = torch.stack([outputs_of(member, queries) for member in members])
            kept = self._kept()
        else:
            kept, train, asked = self._from_disk(queries)
        points = None
        if queries is not None:
            points = coordinates(trained.train.inputs, queries.inputs)
        fits = Fits(
            kept=kept,
            train=train,
            targets=trained.train.targets.cpu(),
            points=None if points is None else points[0],
            loss=trained.loss,
        )
        if queries is None or asked is None:
            return fits, None
        return fits, Asked(
            outputs=asked,
            targets=queries.targets.cpu(),
            points=None if points is None else points[1],
        )

    def _kept(self) -> Tensor:
        """Return what each fit keeps, [b, n]."""
        n = len(self.trained.train)
        halves = Identity(fingerprint="", n=n, fraction=_FRACTION, seed=_STREAM + self.method.seed)
        masks = [torch.from_numpy(halves.mask(subset)) for subset in range(self.method.fits)]
        return torch.stack(masks).double()

    def _members(self, trained: Trained) -> list[Trained]:
        """Return the fitted models."""
        fits = trained.refits(weights_in_parts(trained.weights, self._kept()))
        return list(progress(fits, total=self.method.fits, desc="retraining", unit="fit"))

    def _from_disk(self, queries: Examples | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what each fit keeps, and outputs of training data and queries, from a directory.

        Fits that are not there are made, each kept as soon as it is known.
        """
        trained, method = self.trained, self.method
        assert method.directory is not None
        name = identity_of(trained, queries, "outputs")
        ensemble = retraining_ensemble(
            Together(_Outputs(trained, queries), trained.together),
            len(trained.train),
            subsets=method.fits,
            seeds=1,
            fingerprint=name,
            directory=Path(method.directory) / name[:16],
            fraction=_FRACTION,
            seed=_STREAM + method.seed,
        )
        n, q = len(trained.train), 0 if queries is None else len(queries)
        outputs = ensemble.outcomes[0].reshape(method.fits, n + q, -1)
        return ensemble.masks.double(), outputs[:, :n], outputs[:, n:] if q else None

    def _measured(self, found: Effects, q: int) -> Diagnostics:
        """Return the diagnostics of the ensemble."""
        trained = self.trained
        lds = "Outcomes of its fits do not vary: there is nothing to predict."
        if found.agreement is not None:
            lds = (
                f"Fits that were held back are predicted with a rank correlation (LDS) of "
                f"{found.agreement:.2f} ± {found.spread:.2f}, the mean over "
                f"{q} {'query' if q == 1 else 'queries'}."
            )
        size = float(found.values.std())
        share = float(found.errors.square().mean().sqrt()) / size if size > 0 else 0.0
        errors = f"Standard errors of scores are {share:.2g} of their spread."
        if q == 1:
            errors += self._resolved(found)
        why = "Effects are averages over halves of the training data, not over removals from all."
        return Diagnostics(notes=(*trained.notes, lds, errors, why))

    def _resolved(self, found: Effects) -> str:
        """Return how many more fits would name the first ten of one query again, in a sentence."""
        fits = self.method.fits
        needed = fits_to_resolve(as_array(found.values[0]), as_array(found.errors[0]), fits)
        if needed is None:
            return " No number of fits would tell the first ten from the others."
        if needed == fits:
            return " As many other fits would name nine of the first ten again."
        return f" About {needed - fits:,} fits more would name nine of the first ten again."


@final
@dataclass(frozen=True, eq=False)
class _Outputs:
    """Outputs of training data and queries after fits.

    Args:
        trained: The model.
        queries: The queries, or `None`.
    """

    trained: Trained
    queries: Examples | None

    def __call__(self, weights: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return outputs after fits with these weights [k, n], [k, (n + q) c]."""
        del seeds  # a refit does not depend on them
        rows = []
        for fitted in self.trained.refits(weights_in_parts(self.trained.weights, weights)):
            parts = [outputs_of(fitted, self.trained.train)]
            if self.queries is not None:
                parts.append(outputs_of(fitted, self.queries))
            rows.append(torch.cat(parts).flatten())
        return torch.stack(rows)


def outputs_of(fitted: Trained, examples: Examples) -> Tensor:
    """Return outputs as [b, c], in float64 on the CPU.

    Args:
        fitted: A model.
        examples: Examples of it or of the model that it is a refit of.

    Raises:
        UnsupportedModel: If it is a model of sequences.
    """
    outputs = fitted.outputs(examples)
    if outputs.ndim != 2:
        raise UnsupportedModel(
            "Expected a model with one row of outputs per example. Got sequences. Use "
            "whence.Influence or whence.TracIn for them."
        )
    return outputs.detach().cpu().double()
