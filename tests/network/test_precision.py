"""Which processors multiply faster in fewer bits, by what they say they can do."""

from __future__ import annotations

import pytest
import torch

import whence
from whence.network.precision import fast_bf16, fast_int8, product_dtype


@pytest.mark.parametrize(
    ("has", "bf16", "int8", "dense"),
    [
        ((), False, False, torch.float32),
        (("avx512_bf16",), True, False, torch.float32),
        (("amx_bf16",), True, False, torch.bfloat16),
        (("avx512_vnni",), False, True, torch.float32),
    ],
)
def test_few_bits_are_taken_where_the_processor_is_fast_at_them(
    has: tuple[str, ...],
    bf16: bool,
    int8: bool,
    dense: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(has, True))
    cpu, other = torch.device("cpu"), torch.device("meta")
    assert (fast_bf16(cpu), fast_int8(cpu)) == (bf16, int8)
    assert (fast_bf16(other), fast_int8(other)) == (False, False)  # a CPU says nothing of a GPU
    assert product_dtype(torch.float32, cpu, 1e-2) == dense
    assert product_dtype(torch.float32, cpu, 1e-3) == torch.float32  # its error is too large
    assert product_dtype(torch.float64, cpu, 1e-2) == torch.float64


def test_an_objective_is_rounded_only_where_the_error_allows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    data = torch.randn(6, 3), torch.arange(6) % 2
    objective = whence.from_torch(torch.nn.Linear(3, 2), whence.CrossEntropy(), data)
    assert objective.within(1e-2).bf16
    assert objective.within(1e-3) is objective
    assert not objective.bf16
