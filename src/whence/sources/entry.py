"""What a command is pointed at: a table, a folder of images, or a function that makes a model.

torch and scikit-learn take two seconds to import. They are imported after what a user may have
mistyped has been looked at: the columns and rows of a table, the name of a function.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
import traceback
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whence.errors import InvalidInput, UnsupportedModel, WhenceError
from whence.progress import clock
from whence.sources.tables import Table, TargetKind, read_table

if TYPE_CHECKING:
    from torch import nn

    from whence.objective.trained import Trained
    from whence.sources.models import ModelKind

_NUMBER = re.compile(r"-?\d{1,18}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """A model with its training data, and queries.

    Args:
        objective: The model with its training data.
        queries: The queries, as the objective takes them; `None` where none was asked for.
        names: What to call them, one each.
        words: What the model is, such as "logistic regression".
        notes: What was done to the data, a sentence each.
        labeled: Whether the labels of the queries are known; else they are what the model says.
        against: Another answer to the same question, or `None`.
    """

    objective: Trained
    queries: Any
    names: tuple[str, ...]
    words: str
    notes: tuple[str, ...] = ()
    labeled: bool = True
    against: Any = None

    @property
    def asked(self) -> Any:
        """The queries, without labels where these are not known."""
        return self.queries if self.labeled else (self.queries[0], None)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which queries are asked about: one row, or a number of rows spread evenly.

    Args:
        row: One row of a table by its name; one image of a folder or query of an entry point by
            its number, from 0.
        spread: So many rows, spread evenly.
        most: Where neither is given: so many rows, or a quarter of them if that is fewer.
        against: Another answer: a label of a table, a class of a folder, or a query of an entry
            point by its number.
    """

    row: str | None = None
    against: str | None = None
    spread: int | None = None
    most: int | None = None

    def rows(self, n: int) -> list[int]:
        """Return the positions asked for, of n."""
        if self.row is not None:
            return [_number(self.row)]
        count = self.spread
        if count is None:
            count = 0 if self.most is None else min(self.most, max(1, n // 4))
        elif not 1 <= count < n:
            raise InvalidInput(f"Expected --rows from 1 to {n - 1}. Got {count}.")
        return [int(i * n / count) for i in range(count)]


def from_table(
    path: Path,
    target: str,
    *,
    asked: Asked,
    ids: str | None = None,
    model: Path | None = None,
    kind: ModelKind = "linear",
    target_kind: TargetKind | None = None,
    trust: bool = False,
) -> Source:
    """Return a table in a file with a default model, or with one from a joblib file.

    Args:
        path: A file of rows; see `read_table`.
        target: The column to predict.
        asked: The queries; the default model is not fitted on them.
        ids: The column that names the rows; see `read_table`.
        model: A joblib file with a scikit-learn model that was fitted on the table.
        kind: Which default model; see `fit_table`.
        target_kind: What the target is; see `read_table`.
        trust: Load the model although loading runs the code in its file.

    Returns:
        The model at its optimum.

    Raises:
        InvalidInput: If the table or the model cannot be used.
    """
    with clock(f"reading {path.name}"):
        table = read_table(path, target, ids=ids, kind=target_kind)
    if asked.against is not None and not table.classification:
        raise InvalidInput(
            f"Expected --against with labels. Got {target}, a quantity. Leave it out, or pass "
            "--target-kind label."
        )
    if asked.row is not None:
        rows = [table.row(asked.row)]
    else:
        rows = _keeping_labels(table, asked.rows(len(table.X)))
    from whence.sources.models import fit_table

    fitted = fit_table(table, model=load_model(model, trust), kind=kind, hold_out=rows)
    return Source(
        objective=fitted.objective,
        queries=fitted.query(rows) if rows else None,
        names=tuple(f"row {row}" for row in rows),
        words=f"{fitted.words} of {target}",
        notes=(*fitted.notes, *_named(model)),
        against=None if asked.against is None else fitted.answering(rows[0], asked.against),
    )


def _keeping_labels(table: Table, where: list[int]) -> list[Any]:
    """Return the names of rows whose labels other rows have that are not asked about."""
    names = table.X.index[where].tolist()
    if not table.classification:
        return names
    left = table.y.value_counts().to_dict()
    kept = []
    for name, label in zip(names, table.y.iloc[where], strict=True):
        if left[label] > 1:
            left[label] -= 1
            kept.append(name)
    return kept


def from_folder(
    folder: Path,
    *,
    asked: Asked,
    image: Path | None = None,
    network: str | None = None,
    size: int = 64,
) -> Source:
    """Return images in class folders with logistic regression on frozen features.

    Args:
        folder: One folder of images per class.
        asked: The queries; the model is not fitted on them.
        image: One image file that is asked about instead, in the folder or elsewhere.
        network: package.module:function, which returns a torch module from images [b, 3, size,
            size] in [-1, 1] to features [b, d]; `block_colors` if `None`.
        size: To which images are brought, in pixels.

    Returns:
        The model at its optimum.

    Raises:
        InvalidInput: If the images or the network cannot be used.
    """
    from whence.sources.images import fit_images, read_images

    images = read_images(folder, size=size)
    rows, other = asked.rows(len(images.names)), None
    if image is not None:
        if not image.is_file():
            raise InvalidInput(f"Expected an image. Got {image}, which does not exist.")
        paths = {(folder / name).resolve(): at for at, name in enumerate(images.names)}
        at = paths.get(image.resolve())
        rows, other = ([at], None) if at is not None else ([], image)
    extractor = None if network is None else _module_of(network)
    fitted = fit_images(images, network=extractor, hold_out=rows)
    if other is not None:
        queries: Any = fitted.other(other)
    else:
        queries = fitted.query(rows) if rows else None
    return Source(
        objective=fitted.objective,
        queries=queries,
        names=tuple(images.names[row] for row in rows) if other is None else (other.name,),
        words=f"logistic regression on {'block colors' if network is None else network}",
        notes=images.notes,
        labeled=other is None or other.resolve().parent.name in fitted.objective.classes,
        against=None if asked.against is None else fitted.answering(queries, asked.against),
    )


def from_entry(entry: str, *, asked: Asked) -> Source:
    """Return what package.module:function returns: an objective, or a pair of it and queries.

    Args:
        entry: The entry point; the working directory counts as importable.
        asked: Which of the queries; of the training examples where the function returns none.

    Returns:
        The model, with the queries.

    Raises:
        InvalidInput: If it cannot be imported, or returns something else.
    """
    made = call(entry)
    from whence.objective.trained import Trained

    objective, queries = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(objective, Trained):
        raise InvalidInput(
            f"Expected {entry} to return a model of whence, or a pair of one and queries. "
            f"Got {type(made).__name__}."
        )
    examples = objective.train if queries is None else objective.examples(queries)
    n = len(examples)
    everything = (asked.spread or asked.most or 0) >= n
    rows = list(range(n)) if everything else asked.rows(n)
    other = [] if asked.against is None else [_number(asked.against)]
    for row in (*rows, *other):
        if not 0 <= row < n:
            raise InvalidInput(f"Expected rows from 0 to {n - 1} of {entry}. Got {row}.")
    return Source(
        objective=objective,
        queries=examples.subset(np.asarray(rows, dtype=np.intp)) if rows else None,
        names=tuple(f"{'query' if queries is not None else 'training example'} {r}" for r in rows),
        words="a model",
        against=examples.subset(np.asarray(other, dtype=np.intp)) if other else None,
    )


def call(entry: str) -> Any:
    """Import package.module:function and call it.

    Args:
        entry: The entry point; the working directory counts as importable.

    Returns:
        What the function returns.

    Raises:
        InvalidInput: If it cannot be imported, or raises an error of its own.
    """
    name, _, attribute = entry.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        plain = name.removesuffix(".py").replace("/", ".")
        remedy = "Run it where the package can be imported."
        remedy = remedy if plain == name else f"Did you mean {plain}:{attribute}?"
        raise InvalidInput(
            f"Expected package.module:function. Got {entry!r}: {error}. {remedy}"
        ) from error
    except SyntaxError as error:
        raise InvalidInput(
            f"Expected {entry} to be Python. Got {error}. Correct the file."
        ) from error
    try:
        return function()
    except WhenceError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise InvalidInput(
            f"Expected {entry} to return a model. Got {type(error).__name__}: {error!s:.300}, in "
            f"{last.filename}, line {last.lineno}. whence --debug shows the way there."
        ) from error


def load_model(path: Path | None, trust: bool) -> Any:
    """Return a model from a joblib file, if the user says that the file is trusted.

    Args:
        path: The file, or `None` for no model.
        trust: Whether it may run the code in it.

    Returns:
        The model.

    Raises:
        InvalidInput: If the file is not trusted, or is none of joblib's.
    """
    if path is None:
        return None
    if not trust:
        raise InvalidInput(
            f"Expected --trust with --model. Got {path} alone. Loading a joblib file runs the code "
            "in it: add --trust if you know where it comes from."
        )
    if not path.is_file():
        raise InvalidInput(f"Expected a model file. Got {path}, which does not exist.")
    import joblib

    try:
        return joblib.load(path)
    except Exception as error:
        torch_file = path.suffix.lower() in (".pt", ".pth", ".ckpt", ".safetensors")
        remedy = (
            " For a torch module write a function that returns whence.from_torch(...), and name it "
            "package.module:function in place of the table."
        )
        raise InvalidInput(
            f"Expected a scikit-learn model saved by joblib.dump. Got {path}: "
            f"{type(error).__name__}.{remedy if torch_file else ''}"
        ) from error


def located(entry: str) -> Path | None:
    """Return the file that an entry point is in, without importing anything.

    Args:
        entry: package.module:function; the working directory counts as importable.

    Returns:
        The file, or `None` where there is none.

    Examples:
        >>> located("json.decoder:JSONDecoder").name
        'decoder.py'
    """
    places: Any = [str(Path.cwd()), *sys.path]
    spec = None
    for part in entry.partition(":")[0].split("."):
        spec = PathFinder.find_spec(part, places)
        if spec is None:
            return None
        places = spec.submodule_search_locations or []
    return None if spec is None or spec.origin is None else Path(spec.origin)


def _named(model: Path | None) -> tuple[str, ...]:
    """Return which model file was trusted, in a sentence; none where there is none."""
    if model is None:
        return ()
    sha = hashlib.sha256(model.read_bytes()).hexdigest()
    return (f"The model came from the file {model.name}, trusted as it is: SHA-256 {sha}.",)


def _number(row: str) -> int:
    """Return the number that a text is."""
    if _NUMBER.fullmatch(row) is None:
        raise InvalidInput(f"Expected a number from 0 for --row and --against. Got {row!r:.80}.")
    return int(row)


def _module_of(entry: str) -> nn.Module:
    """Return the torch module that package.module:function returns."""
    made = call(entry)
    from torch import nn

    if not isinstance(made, nn.Module):
        raise UnsupportedModel(
            f"Expected {entry} to return a torch module. Got {type(made).__name__}."
        )
    return made
