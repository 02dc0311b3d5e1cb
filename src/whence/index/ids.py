"""The names of the rows of a shard as tensors, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.checked import shown
from whence.errors import InvalidInput

ID_TENSORS = ("ids", "text", "ends")  # of a shard; the others hold numbers of each row


def id_tensors(ids: NDArray[Any]) -> dict[str, Tensor]:
    """Return ids as tensors.

    Args:
        ids: Whole numbers or text, [b].
    """
    ids = plain(ids)
    if ids.dtype.kind == "i":
        return {"ids": torch.from_numpy(ids)}
    texts = [str(each).encode("utf-8", "surrogatepass") for each in ids]
    return {
        "text": torch.frombuffer(bytearray(b"".join(texts) or b" "), dtype=torch.uint8),
        "ends": torch.tensor(np.cumsum([len(text) for text in texts])),
    }


def ids_of(tensors: Mapping[str, Tensor], where: Sequence[int] | None = None) -> NDArray[Any]:
    """Return ids of rows of a shard.

    Args:
        tensors: Of the shard.
        where: Which rows; all if `None`.
    """
    if "ids" in tensors:
        return tensors["ids"][slice(None) if where is None else where].numpy().copy()
    ends = tensors["ends"].tolist()
    text = tensors["text"].numpy()
    found = [
        text[ends[i - 1] if i else 0 : ends[i]].tobytes().decode("utf-8", "surrogatepass")
        for i in (range(len(ends)) if where is None else where)
    ]
    return np.asarray(found, dtype=str)


def array_of(names: Iterable[Any]) -> NDArray[Any]:
    """Return names as an array, whole numbers as they are where numpy would make floats of them.

    Args:
        names: Of examples, of any types.

    Examples:
        >>> array_of([2**63 + 1, 3])
        array([9223372036854775809, 3], dtype=object)
    """
    try:
        listed = [*names]
        found = np.asarray(listed)
        if found.ndim != 1:
            raise ValueError(f"{found.ndim} axes")
    except (TypeError, ValueError, RuntimeError) as error:  # of what is no list, or of lists
        raise InvalidInput(f"Expected a list of names of examples. Got {shown(names)}.") from error
    same = found.dtype.kind != "f" or {*map(type, listed)} == {float}
    return found if same else np.asarray(listed, dtype=object)


def plain(ids: NDArray[Any]) -> NDArray[Any]:
    """Return ids as they are stored: whole numbers that int64 holds as such, all else as text."""
    ids = np.asarray(ids)
    if ids.dtype.kind in "iu" and (not ids.size or ids.max() <= np.iinfo(np.int64).max):
        return np.ascontiguousarray(ids, dtype=np.int64)
    return np.asarray([str(each) for each in ids.tolist()], dtype=str)
