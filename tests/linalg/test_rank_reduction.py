"""Weights as short sums of outer products, with the error that was stated."""

from __future__ import annotations

import pytest
import torch

from whence.linalg.rank_reduction import separate


def smooth(m: int, d: int) -> torch.Tensor:
    """1 / (Λ + λ) with Λ near an outer product, as EKFAC has it."""
    generator = torch.Generator().manual_seed(m)
    noise = torch.randn(m, d, generator=generator, dtype=torch.float64).exp() ** 0.3
    rows, columns = torch.logspace(0, -6, m).double(), torch.logspace(0, -4, d).double()
    return 1 / (rows.unsqueeze(1) * columns * noise + 1e-3)


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (40, 40)])
@pytest.mark.parametrize("error", [1e-1, 1e-3])
def test_error_is_as_stated_and_a_term_less_would_break_it(
    shape: tuple[int, int], error: float
) -> None:
    D = smooth(*shape)
    rows, columns = torch.logspace(0, -3, shape[0]).double(), torch.rand(shape[1]).double()
    U, V = separate(D, rows, columns, error)
    weighted = rows.unsqueeze(1) * D * columns
    off = rows.unsqueeze(1) * (D - U.T @ V) * columns
    assert off.norm() <= error * weighted.norm()
    singular = torch.linalg.svdvals(weighted)
    assert singular[len(U) - 1 :].norm() > error * weighted.norm()
    assert len(U) < min(shape)


def test_all_terms_are_exact() -> None:
    D = smooth(6, 9)
    U, V = separate(D, torch.ones(6).double(), torch.ones(9).double(), 1e-12)
    torch.testing.assert_close(U.T @ V, D, rtol=1e-9, atol=0)


def test_directions_without_size_do_no_harm() -> None:
    D = smooth(5, 7)
    rows, columns = torch.ones(5).double(), torch.ones(7).double()
    rows[0] = columns[3] = 0
    U, V = separate(D, rows, columns, 1e-9)
    assert torch.isfinite(U).all()
    assert torch.isfinite(V).all()
    torch.testing.assert_close((U.T @ V)[1:, :3], D[1:, :3], rtol=1e-6, atol=0)
    U, V = separate(D, torch.zeros(5).double(), columns, 1e-9)
    assert torch.isfinite(U.T @ V).all()


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_the_unit_of_the_weights_changes_nothing(unit: float) -> None:
    D, rows, columns = smooth(20, 30), torch.logspace(0, -3, 20).double(), torch.rand(30).double()
    (U, V), (U_scaled, V_scaled) = (
        separate(D, scale * rows, scale * columns, 1e-2) for scale in (1.0, unit)
    )
    torch.testing.assert_close(U_scaled.T @ V_scaled, U.T @ V, rtol=1e-6, atol=1e-9)
