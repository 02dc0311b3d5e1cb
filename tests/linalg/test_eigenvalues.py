"""Extreme eigenvalues within their bounds; densities with the right moments."""

from __future__ import annotations

from math import exp, pi, sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whence.errors import InvalidInput
from whence.linalg import Dense, Diagonal, extreme_eigenvalues, spectral_density
from whence.linalg.eigenvalues import ExtremeEigenvalues, SpectralDensity


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(1, 30), st.integers(0, 999))
def test_ends_are_within_their_bounds(symmetric, random, p, iterations, seed):
    eigenvalues = random(p, seed=seed).sort().values
    ends = extreme_eigenvalues(Dense(symmetric(eigenvalues, seed=seed)), iterations, seed=seed)
    assert ends.iterations == min(p, iterations)
    assert ends.smallest >= float(eigenvalues[0]) - 1e-10
    assert ends.largest <= float(eigenvalues[-1]) + 1e-10
    assert float((eigenvalues - ends.smallest).abs().min()) <= ends.smallest_error + 1e-10
    assert float((eigenvalues - ends.largest).abs().min()) <= ends.largest_error + 1e-10
    if iterations >= p:
        assert ends.smallest == pytest.approx(float(eigenvalues[0]), abs=1e-10)
        assert ends.largest == pytest.approx(float(eigenvalues[-1]), abs=1e-10)


def test_sufficient_damping(symmetric):
    eps = torch.finfo(torch.float64).eps
    ends = extreme_eigenvalues(Dense(symmetric(torch.linspace(-3, 7, 40))))
    assert 3 < ends.sufficient_damping(eps) < 3.3
    assert extreme_eigenvalues(Diagonal(torch.tensor([1.0, 2.0]))).sufficient_damping(eps) == 0


def test_sufficient_damping_is_that_of_the_lower_bound():
    """1.05 (1e3 ε max|θ| − (θ_min − its error)), by hand."""
    for smallest, largest, expected in ((1e-3, 5.0, 6.3e-3), (-7.0, -5.0, 1.05 * 7.009)):
        ends = ExtremeEigenvalues(
            smallest=smallest, smallest_error=2e-3, largest=largest, largest_error=0, iterations=1
        )
        assert ends.sufficient_damping(1e-6) == pytest.approx(expected)


def test_a_density_by_hand():
    spectrum = SpectralDensity(
        nodes=torch.tensor([1.0, 2.0, 4.0]), weights=torch.tensor([0.25, 0.5, 0.25]), size=8
    )
    assert spectrum.trace() == 18
    expected = sum(w * exp(-(((3 - x) / 2) ** 2) / 2) for w, x in ((0.25, 1), (0.5, 2), (0.25, 4)))
    found = spectrum.density(torch.tensor([3.0]), width=2.0)
    assert float(found) == pytest.approx(expected / (2 * sqrt(2 * pi)))


def test_one_repeated_eigenvalue_is_one_mass():
    """A breakdown at the first step must not put weight on what the restart finds."""
    spectrum = spectral_density(Diagonal(torch.full((6,), 4.0, dtype=torch.float64)), probes=2)
    assert spectrum.trace() == pytest.approx(24)
    assert float(spectrum.weights.sum()) == pytest.approx(1)
    assert float(spectrum.weights[(spectrum.nodes - 4).abs() < 0.1].sum()) == pytest.approx(1)


def test_density_matches_the_eigenvalues(symmetric):
    """Two clusters, 30 % and 70 %: mass and trace within three standard errors of the probes."""
    p, probes = 200, 60
    eigenvalues = torch.cat([torch.full((60,), -1.0), torch.full((140,), 5.0)]).double()
    spectrum = spectral_density(Dense(symmetric(eigenvalues)), probes=probes, iterations=20, seed=3)
    # The mass of one probe is Beta(30, 70): standard deviation 0.046.
    below = float(spectrum.weights[spectrum.nodes < 2].sum())
    assert below == pytest.approx(0.3, abs=3 * 0.046 / probes**0.5)
    assert spectrum.trace() == pytest.approx(640, abs=3 * 0.046 * 6 * p / probes**0.5)
    assert float(spectrum.weights.min()) >= 0
    grid = torch.linspace(-4, 8, 2001, dtype=torch.float64)
    density = spectrum.density(grid, width=0.3)
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-6)
    assert float(density[(grid - 2).abs().argmin()]) < 1e-6 < float(density.max())


def test_bad_input():
    A = Diagonal(torch.ones(2))
    with pytest.raises(InvalidInput, match="probes >= 1"):
        spectral_density(A, probes=0)
    assert spectral_density(A, probes=1).trace() == pytest.approx(2)
    with pytest.raises(InvalidInput, match="width > 0"):
        spectral_density(A).density(torch.ones(1), width=0)
    with pytest.raises(InvalidInput, match="steps >= 1"):
        extreme_eigenvalues(A, 0)
