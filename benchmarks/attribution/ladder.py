"""The methods of the leaderboard, from a dot product to differentiating through the training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import whence
from benchmarks.attribution.cases import BANK, Case, Pair
from whence.linalg.solver import Solver
from whence.objective.objective import Objective
from whence.training.run import Run

USUAL = "EKFAC, sampled"  # what a method is compared with that is given a few queries only

Values: TypeAlias = NDArray[np.floating[Any]]

# From EKFAC on random batches: the work of five products with 5,000 examples.
STOCHASTIC = whence.LiSSA(
    depth=25, preconditioner=whence.EKFAC(), batch_size=1024, averaged=True, rtol=0.5
)


class Explained:
    """A case with its training at hand."""

    def __init__(self, case: Case, bank: Path = BANK) -> None:
        self.case, self.bank = case, bank
        self.train, self.queries = case.data()

    @cached_property
    def run(self) -> Run:
        """The training that is explained."""
        return self.case.trained(0, self.bank)

    def objective(self, seed: int = 0) -> Objective:
        """Return the objective at the end of a training."""
        run = self.run if seed == 0 else self.case.trained(seed, self.bank)
        return whence.from_torch(
            run.model, whence.CrossEntropy(), self.train, l2=self.case.l2, convex=self.case.convex
        )

    def influence(self, solver: Solver, seed: int = 0, *, most: int | None = None) -> Values:
        """Return first-order influence on the first queries, damped by the library's rule."""
        queries: Pair = (self.queries[0][:most], self.queries[1][:most])
        return whence.influence(self.objective(seed), queries, solver=solver).values


def dot_product(it: Explained) -> Values:
    return whence.tracin(it.objective(), it.queries).values


def cosine(it: Explained) -> Values:
    return whence.tracin(it.objective(), it.queries, cosine=True).values


def along_checkpoints(it: Explained, count: int = 10) -> Values:
    """Stand for the steps up to each of ten kept states by that state."""
    run = it.run
    stops = [stop for _, stop in run.segments()]
    chosen = [stops[round(i)] for i in np.linspace(0, len(stops) - 1, min(count, len(stops)))]
    edges = [0, *chosen]
    rates = [sum(run.rates[start:stop]) for start, stop in zip(edges, chosen, strict=False)]
    states = [run.checkpoints.read(stop)[0][0] for stop in chosen]
    return whence.tracin(
        it.objective(), it.queries, checkpoints=states, learning_rates=rates
    ).values


def iterated(solver: Solver) -> Callable[[Explained], Values]:
    """Return influence by iterations, on as many queries as a case has time for."""
    return lambda it: it.influence(solver, most=it.case.iterated)


def steps(count: int) -> whence.CG:
    """Return conjugate gradients from EKFAC, stopped after some steps."""
    return whence.CG(rtol=1e-6, max_iterations=count, preconditioner=whence.EKFAC())


def exactly(it: Explained) -> Values:
    """Invert the curvature itself: iterated where it is convex, formed of a small network."""
    return it.influence(whence.CG(max_iterations=10_000) if it.case.convex else whence.Cholesky())


def ensemble(it: Explained, trainings: int = 10) -> Values:
    """Average over trainings that differ in start and order."""
    each = [it.influence(whence.EKFAC(), seed) for seed in range(trainings)]
    return np.asarray(np.mean(each, axis=0))


def through_training(it: Explained) -> Values:
    """Walk back for the first queries only: each costs about a training."""
    most = it.case.iterated or 50
    queries: Pair = (it.queries[0][:most], it.queries[1][:most])
    return whence.metagradient(it.run, queries).values


METHODS: Mapping[str, Callable[[Explained], Values]] = MappingProxyType(
    {
        "gradient dot product": dot_product,
        "gradient cosine": cosine,
        "TracIn, 10 checkpoints": along_checkpoints,
        "TRAK, 2,048 dimensions": lambda it: (
            whence.projected(it.objective(), it.queries, output="margin", projection="dense").values
        ),
        "LoGra, 16 × 16": lambda it: whence.projected(it.objective(), it.queries).values,
        "KFAC": lambda it: it.influence(whence.KFAC()),
        "EKFAC, expected": lambda it: it.influence(whence.EKFAC(fisher="expected")),
        "EKFAC, empirical": lambda it: it.influence(whence.EKFAC(fisher="empirical")),
        USUAL: lambda it: it.influence(whence.EKFAC(fisher="sampled")),
        "EKFAC, then batches": iterated(STOCHASTIC),
        "CG from EKFAC, 2 steps": iterated(steps(2)),
        "CG from EKFAC, 5 steps": iterated(steps(5)),
        "CG from EKFAC, 10 steps": iterated(steps(10)),
        "exact inverse": exactly,
        "EKFAC, mean of 10 trainings": ensemble,
        "SOURCE, 3 segments": lambda it: whence.unrolled(it.run, it.queries).values,
        "metagradient": through_training,
    }
)


def scores_of(method: str, it: Explained) -> Values:
    """Return the scores of a method; trainings that stopped early are no news here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return METHODS[method](it)
