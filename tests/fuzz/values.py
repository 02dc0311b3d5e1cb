"""What users pass where something else belongs: values of every kind, and the same numbers anew."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st

Make = Callable[[], Any]

# Made anew for each use: a generator is spent by its first reader.
ODD: dict[str, Make] = {
    "None": lambda: None,
    "True": lambda: True,
    "minus one": lambda: -1,
    "zero": lambda: 0,
    "one half": lambda: 0.5,
    "2.5": lambda: 2.5,
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "minus infinity": lambda: -float("inf"),
    "1e308": lambda: 1e308,
    "1e-320": lambda: 1e-320,
    "2**70": lambda: 2**70,
    "-2**70": lambda: -(2**70),
    "complex": lambda: 1 + 2j,
    "decimal": lambda: Decimal("0.5"),
    "fraction": lambda: Fraction(1, 3),
    "pd.NA": lambda: pd.NA,
    "pd.NaT": lambda: pd.NaT,
    "numpy bool": lambda: np.bool_(True),
    "numpy int": lambda: np.int64(2),
    "numpy float": lambda: np.float32(0.5),
    "0-d array": lambda: np.array(2),
    "0-d float array": lambda: np.array(0.5),
    "1-element array": lambda: np.array([2]),
    "array": lambda: np.array([0, 1, 2]),
    "array of NaN": lambda: np.full(3, np.nan),
    "array of objects": lambda: np.array([None, "a", 1], dtype=object),
    "empty array": lambda: np.zeros(0),
    "uint8 mask": lambda: np.array([0, 1, 1, 0], dtype=np.uint8),
    "boolean mask": lambda: np.array([True, False, True]),
    "0-d tensor": lambda: torch.tensor(2),
    "tensor with gradient": lambda: torch.tensor(0.5, requires_grad=True),
    "bfloat16": lambda: torch.tensor(0.5, dtype=torch.bfloat16),
    "bfloat16 vector": lambda: torch.ones(3, dtype=torch.bfloat16),
    "tensors with gradient": lambda: torch.ones(3, requires_grad=True),
    "meta tensor": lambda: torch.ones(3, device="meta"),
    "complex tensor": lambda: torch.ones(3, dtype=torch.complex64),
    "sparse tensor": lambda: torch.eye(3).to_sparse(),
    "generator": lambda: (i for i in range(3)),
    "range": lambda: range(2),
    "list": lambda: [0, 1],
    "nested list": lambda: [[0, 1], [2]],
    "list of lists": lambda: [[0.5, 1], [2, 3]],
    "empty list": lambda: [],
    "empty tuple": lambda: (),
    "pair": lambda: (1, 2),
    "pair of None": lambda: (None, None),
    "set": lambda: {0, 1},
    "dict": lambda: {"a": 1},
    "empty dict": lambda: {},
    "text": lambda: "three",
    "number as text": lambda: "3",
    "empty text": lambda: "",
    "null byte": lambda: "a\0b",
    "long text": lambda: "a" * 300,
    "lone surrogate": lambda: "\ud800",
    "bytes": lambda: b"loss",
    "object": lambda: object(),
    "class": lambda: int,
    "function": lambda: lambda *_: None,
    "function of noise": lambda: lambda *_: torch.zeros(2, 2),
    "frame": lambda: pd.DataFrame({"a": [1, None]}),
    "empty frame": lambda: pd.DataFrame(),
    "series": lambda: pd.Series([1, 2]),
    "categories": lambda: pd.Series(["a", "b"], dtype="category"),
    "timestamp": lambda: pd.Timestamp("2026-01-01"),
    "module": lambda: np,
}

odd = st.one_of(
    st.sampled_from([*ODD]).map(lambda name: (name, ODD[name]())),
    st.one_of(
        st.integers(-3, 40),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=3),
        st.lists(st.integers(-2, 9), max_size=4),
        st.lists(st.floats(), max_size=3).map(np.array),
    ).map(lambda value: (repr(value), value)),
)


def _strided(x: np.ndarray[Any, Any]) -> Any:
    return np.ascontiguousarray(x[::-1])[::-1]


def _spread(x: np.ndarray[Any, Any]) -> Any:
    return np.repeat(x, 2, axis=0)[::2]


def _read_only(x: np.ndarray[Any, Any]) -> Any:
    copy = x.copy()
    copy.setflags(write=False)
    return copy


def _tensor(x: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.as_tensor(np.array(x))


# The same numbers in another form: each gives the same result, or a refusal in words.
SAME: dict[str, Callable[[np.ndarray[Any, Any]], Any]] = {
    "list": lambda x: x.tolist(),
    "tuple": lambda x: tuple(x.tolist()),
    "negative strides": _strided,
    "strides": _spread,
    "Fortran order": np.asfortranarray,
    "read-only": _read_only,
    "big endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "objects": lambda x: x.astype(object),
    "masked array": np.ma.masked_array,
    "tensor": _tensor,
    "tensor with gradient": lambda x: _tensor(x).double().requires_grad_(),
    "long double": lambda x: x.astype(np.longdouble),
    "generator": lambda x: (row for row in x),
    "frame or series": lambda x: pd.Series(x) if x.ndim == 1 else pd.DataFrame(x),
    "nullable": lambda x: (pd.Series(x) if x.ndim == 1 else pd.DataFrame(x)).convert_dtypes(),
    "float": lambda x: x.astype(float),
}

# Other numbers, of the same shape or nearly: a refusal, or a result without NaN.
OTHER: dict[str, Callable[[np.ndarray[Any, Any]], Any]] = {
    "NaN": lambda x: np.where(np.arange(x.size).reshape(x.shape) == x.size - 1, np.nan, x),
    "infinity": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 0, np.inf, x),
    "minus infinity": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 0, -np.inf, x),
    "huge": lambda x: x.astype(float) + 1e300,
    "half precision": lambda x: x.astype(np.float16),
    "bfloat16": lambda x: _tensor(x).to(torch.bfloat16),
    "uint8": lambda x: np.abs(x).astype(np.uint8),
    "booleans": lambda x: x.astype(bool),
    "complex": lambda x: x.astype(complex),
    "text": lambda x: x.astype(str),
    "bytes": lambda x: x.astype(bytes),
    "dates": lambda x: x.astype("datetime64[s]"),
    "pd.NA": lambda x: (pd.Series if x.ndim == 1 else pd.DataFrame)(
        np.where(np.arange(x.size).reshape(x.shape) == 0, pd.NA, x.astype(object))
    ),
    "None inside": lambda x: np.where(
        np.arange(x.size).reshape(x.shape) == 0, np.array(None), x.astype(object)
    ),
    "label minus one": lambda x: x - 1,
    "more labels": lambda x: x + 7,
    "empty": lambda x: x[:0],
    "one fewer": lambda x: x[:-1],
    "one more": lambda x: np.concatenate([x, x[:1]]),
    "one more axis": lambda x: x[..., None],
    "one axis fewer": lambda x: x[0],
    "ragged": lambda x: [*x.tolist()[:-1], [1, 2, 3, 4, 5, 6, 7, 8]],
    "structured": lambda x: np.zeros(len(x), dtype=[("a", float), ("b", int)]),
    "sparse tensor": lambda x: _tensor(x).to_sparse(),
    "meta tensor": lambda x: _tensor(x).to("meta"),
    "named twice": lambda x: pd.DataFrame(x.reshape(len(x), -1)).rename(columns=lambda _: "a"),
}
