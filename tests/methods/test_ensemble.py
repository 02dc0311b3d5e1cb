"""Retrained: fits to random halves, in memory and on disk, against fits that it has not made."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import SVC
from torch import Tensor

import whence
from whence.errors import InvalidInput, UnsupportedModel
from whence.evaluation.members import Identity
from whence.methods import ensemble
from whence.methods.choose import default_of
from whence.methods.ensemble import Ensemble, Retrained
from whence.objective.trained import Examples, Trained

Floats = NDArray[np.float64]


@cache
def model() -> tuple[Trained, tuple[Floats, NDArray[Any]]]:
    """A support vector machine that is known by its decision values alone, and 30 queries."""
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:230]
    x = ((x - x.mean(0)) / x.std(0))[order][:, [1, 4, 8, 9, 14]]
    y = y[order]
    machine = SVC(kernel="sigmoid", random_state=0).fit(x[30:], y[30:])
    return whence.from_sklearn(machine, x[30:], y[30:]), (x[:30], y[:30])


def test_its_own_estimate_is_the_lds_that_is_measured() -> None:
    trained, queries = model()
    method = Retrained(fits=60)
    scores = method.fit(trained).scores(queries)
    assert scores.diagnostics is not None
    said = next(note for note in scores.diagnostics.notes if "LDS" in note)
    estimate, spread = (float(each) for each in said.split(" of ")[1].split(",")[0].split(" ± "))
    measured = whence.evaluate(trained, queries, subsets=40, method=method)
    assert measured.mean > 0.4
    assert abs(measured.mean - estimate) < 3 * max(spread, 0.04)


def test_more_than_a_plain_datamodel() -> None:
    trained, queries = model()
    attribution = Retrained(fits=60).ensemble(trained)
    examples = trained.examples(queries)
    fits, asked = attribution._fits(examples)
    assert asked is not None
    y = asked.outcomes(trained.loss)
    kept = fits.kept - fits.kept.mean(0)
    plain = -((y - y.mean(0)).T @ kept) / kept.square().sum(0)
    masks = torch.stack(
        [
            torch.from_numpy(Identity(fingerprint="", n=200, fraction=0.5, seed=5).mask(j))
            for j in range(40)
        ]
    )
    outcomes = torch.stack(
        [
            trained.loss(fitted.outputs(examples), examples.targets)
            for fitted in trained.refits(masks.double())
        ]
    )
    learned = attribution.values(examples, trained.loss, np.arange(200))[0]
    first, second = (
        whence.evaluation.lds(tau, masks, outcomes, resamples=10).mean for tau in (learned, plain)
    )
    assert first > second + 0.1


def test_halves_are_not_those_of_an_evaluation() -> None:
    trained, _ = model()
    kept = Retrained(fits=20).ensemble(trained)._kept().bool()
    for subset in range(50):
        other = Identity(fingerprint="", n=200, fraction=0.5, seed=0).mask(subset)
        assert not (kept == torch.from_numpy(other)).all(1).any()
    assert (kept.sum(1) == 100).all()
    assert not torch.equal(kept, Retrained(fits=20, seed=1).ensemble(trained)._kept().bool())


def test_an_effect_has_the_size_of_a_removal() -> None:
    x, y = load_diabetes(return_X_y=True)
    x, y = x[:160] * 20, (y[:160] - y.mean()) / y.std()
    trained = whence.from_sklearn(Ridge(alpha=1.0).fit(x[10:], y[10:]), x[10:], y[10:])
    queries = (x[:10], y[:10])
    predicted = Retrained(fits=100).fit(trained).scores(queries).values
    actual = whence.leave_one_out(trained, range(150), queries)
    slope = (predicted * actual).sum() / (predicted**2).sum()
    assert np.corrcoef(predicted.ravel(), actual.ravel())[0, 1] > 0.7
    assert 0.5 < slope < 2


def test_own_effects_are_differences_of_means() -> None:
    trained, _ = model()
    method = Retrained(fits=20)
    own = method.fit(trained).self_scores([3, 8])
    kept = method.ensemble(trained)._kept()
    train = trained.train
    losses = torch.stack(
        [trained.loss(f.outputs(train), train.targets) for f in trained.refits(kept)]
    )
    for value, at in zip(own, (3, 8), strict=True):
        inside = kept[:, at] > 0
        expected = losses[~inside, at].mean() - losses[inside, at].mean()
        assert value == pytest.approx(float(expected) / 2)


def test_means_over_one_fit_and_over_none(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, _ = model()
    method = Retrained(fits=20, seed=5)
    kept = method.ensemble(trained)._kept()
    kept[:, 0], kept[:, 1], kept[:, 2] = 0, 1, 1
    kept[4, 0], kept[9, 1] = 1, 0
    monkeypatch.setattr(Ensemble, "_kept", lambda _: kept)
    inside, outside = method.ensemble(trained).losses()
    fits = list(trained.refits(kept[[4, 9]]))
    losses = [trained.loss(fit.outputs(trained.train), trained.train.targets) for fit in fits]
    assert float(inside[0]) == pytest.approx(float(losses[0][0]))
    assert float(outside[1]) == pytest.approx(float(losses[1][1]))
    assert float(outside[2]) == 0


def test_held_out_losses_rank_wrong_labels() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y = ((x - x.mean(0)) / x.std(0))[:150], y[:150].copy()
    wrong = np.random.default_rng(0).permutation(150)[:12]
    y[wrong] = 1 - y[wrong]
    trained = whence.from_sklearn(SVC(kernel="sigmoid", random_state=0).fit(x, y), x, y)
    found = whence.find_label_errors(trained, k=0)
    assert type(found.method).__name__ == "DataOOB"
    assert np.isin(found.ranking[:12], wrong).mean() > 0.7


def test_diagnostics_say_errors_and_how_many_fits_would_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained, queries = model()
    attribution = Retrained(fits=20).ensemble(trained)
    one, two = (trained.examples((queries[0][:k], queries[1][:k])) for k in (1, 2))

    def notes(asked: Examples) -> tuple[str, ...]:
        return attribution.values(asked, trained.loss, np.arange(200))[1].notes

    found = attribution._effects(two, trained.loss)
    share = float((found.errors**2).mean().sqrt() / found.values.std())
    assert notes(two)[-2] == f"Standard errors of scores are {share:.2g} of their spread."
    assert notes(two)[-3].endswith("the mean over 2 queries.")
    assert notes(one)[-3].endswith("the mean over 1 query.")
    for needed, words in (
        (None, "No number of fits would tell the first ten from the others."),
        (20, "As many other fits would name nine of the first ten again."),
        (80, "About 60 fits more would name nine of the first ten again."),
    ):
        monkeypatch.setattr(ensemble, "fits_to_resolve", lambda *_, needed=needed: needed)
        assert notes(one)[-2].endswith(f"of their spread. {words}")


def test_fits_are_made_once_for_all_queries() -> None:
    trained, queries = model()
    counting = Counting(trained)
    fitted = Retrained(fits=20).fit(counting)
    few = queries[0][:2], queries[1][:2]
    first = fitted.scores(few)
    again = Retrained(fits=20).fit(counting).scores(few, measure="margin")
    fitted.self_scores()
    assert counting.fits == 20
    assert not np.allclose(first.values, again.values)
    errors = fitted.standard_errors(few, indices=[4, 2])  # type: ignore[attr-defined]
    assert errors.shape == (2, 2)
    assert (errors > 0).all()


def test_an_interrupted_ensemble_goes_on(tmp_path: Path) -> None:
    trained, queries = model()
    few = queries[0][:2], queries[1][:2]
    breaking = Counting(trained, most=7)
    method = Retrained(fits=20, directory=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        method.fit(breaking).scores(few)
    counting = Counting(trained)
    resumed = method.fit(counting).scores(few)
    assert counting.fits == 13
    assert np.allclose(resumed.values, Retrained(fits=20).fit(trained).scores(few).values)
    method.fit(counting).scores(few, measure="probability")
    assert counting.fits == 13
    method.fit(counting).scores((queries[0][2:3], queries[1][2:3]))  # others have their own
    assert counting.fits == 33
    assert np.allclose(
        method.fit(counting).self_scores(), Retrained(fits=20).fit(trained).self_scores()
    )


def test_options_and_models_that_cannot_be_used() -> None:
    with pytest.raises(InvalidInput, match=r"fits >= 20. Got 5"):
        Retrained(fits=5)
    recipe = whence.Recipe(learning_rate=0.1, batch_size=2, epochs=1)
    tokens = torch.randint(5, (20, 4), generator=torch.Generator().manual_seed(0))
    run = whence.train(torch.nn.Embedding(5, 5), whence.CrossEntropy(), (tokens, tokens), recipe)
    with pytest.raises(UnsupportedModel, match="Got sequences"):
        Retrained(fits=20).fit(run).scores((tokens[:1], tokens[:1]))


def test_a_smooth_model_may_be_retrained_too() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y = ((x - x.mean(0)) / x.std(0))[:80, :6], y[:80]
    trained = whence.from_sklearn(LogisticRegression().fit(x, y), x, y)
    assert default_of(trained)[0] == whence.Influence()
    scores = Retrained(fits=20).fit(trained).scores((x[:2], y[:2]), indices=[1, 5, 7])
    assert scores.values.shape == (2, 3)
    assert isinstance(Retrained(fits=20).fit(trained), Ensemble)


class Counting(Trained):
    """A model that counts its fits, and can be told to break."""

    def __init__(self, inner: Trained, most: int | None = None) -> None:
        self.inner, self.most, self._fits = inner, most, [0]
        self.train, self.weights = inner.train, inner.weights
        self.loss, self.trained_loss = inner.loss, inner.trained_loss
        self.convex, self.classes, self.notes = False, inner.classes, ()

    @property
    def fits(self) -> int:
        return self._fits[0]

    def identity(self) -> tuple[Tensor | str, ...]:
        return ("the same",)

    def examples(self, data: Any) -> Examples:
        return self.inner.examples(data)

    def outputs(self, examples: Examples) -> Tensor:
        return self.inner.outputs(examples)

    def refit(self, weights: Tensor | None = None) -> Trained:
        if self.fits == self.most:
            raise KeyboardInterrupt
        self._fits[0] += 1
        return self.inner.refit(weights)

    def refits(self, weights: Tensor) -> Iterator[Trained]:
        return (self.refit(row) for row in weights)
