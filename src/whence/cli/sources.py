"""What a command is pointed at: an options object for each kind of source, and one law for all.

The law: an option that the source does not read is refused, never dropped.
"""

from __future__ import annotations

import atexit
import inspect
import re
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_type_hints

import typer

from whence.cli.options import Where, possible
from whence.errors import InvalidInput

if TYPE_CHECKING:
    from whence.sources.entry import Asked as AskedRows
    from whence.sources.entry import Source

Command = Callable[..., None]

_ENTRY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which queries a command asks about, as typed; `None` where it does not say.

    Args:
        row: One row, by its name or number.
        image: One image file.
        rows: So many rows, spread evenly.
        most: So many rows, or a quarter of a smaller table, where it names none.
        against: Another answer, a label or by its number.
    """

    row: str | None = None
    image: Path | None = None
    rows: int | None = None
    most: int | None = None
    against: str | None = None

    def of_rows(self) -> AskedRows:
        """Return what is asked for by rows, as sources take it."""
        from whence.sources.entry import Asked as AskedRows

        return AskedRows(row=self.row, spread=self.rows, most=self.most, against=self.against)


class SourceOptions(ABC):
    """The options that one kind of source reads, as typed; a field is an option.

    Attributes:
        kind: What the source is, in words.
        asks: The fields of `Asked` that it reads.
    """

    kind: ClassVar[str]
    asks: ClassVar[tuple[str, ...]] = ("row", "rows", "most")

    def check(self, where: str) -> None:  # noqa: B027
        """Raise if the options do not go together; before anything slow is imported."""

    @abstractmethod
    def load(self, where: str, asked: Asked) -> Source:
        """Return the model with its data, and the queries that are asked about."""


@dataclass(frozen=True, kw_only=True)
class TableOptions(SourceOptions):
    """Options of a table in a file."""

    kind: ClassVar[str] = "a table"
    asks: ClassVar[tuple[str, ...]] = ("row", "rows", "most", "against")

    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Of a table: the column to predict.")
    ] = None
    target_kind: Annotated[
        Literal["label", "quantity"] | None,
        typer.Option(
            help="Of a table: what the target is. By default a label if it is text or at most 20 "
            "whole numbers with three rows each, else a quantity."
        ),
    ] = None
    ids: Annotated[
        str | None,
        typer.Option(
            help="Of a table: the column that names its rows; a first column without header by "
            "default, else numbers from 0."
        ),
    ] = None
    model: Annotated[
        Path | None,
        typer.Option(
            help="Of a table: a fitted scikit-learn model saved by joblib.", callback=possible
        ),
    ] = None
    model_kind: Annotated[
        Literal["linear", "forest", "boosting", "auto"] | None,
        typer.Option(
            help="Of a table: the model that is fitted where none is given; auto takes the one "
            "that is best on held-out rows. Default: linear."
        ),
    ] = None
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Load --model although loading runs the code in the file."),
    ] = False

    def check(self, where: str) -> None:
        """Raise if there is no target, or a model is both given and chosen."""
        self._column(where)
        if self.trust and self.model is None:
            raise typer.BadParameter(
                "Expected --trust with --model FILE only. Got it alone: leave it out."
            )
        if self.model_kind is not None and self.model is not None:
            raise typer.BadParameter(
                "Expected --model-kind or --model FILE. Got both: leave one out."
            )
        _present(self.model)

    def load(self, where: str, asked: Asked) -> Source:
        """Read the table, and fit or load its model."""
        from whence.sources import entry

        return entry.from_table(
            Path(where),
            self._column(where),
            asked=asked.of_rows(),
            ids=self.ids,
            model=self.model,
            kind=self.model_kind or "linear",
            target_kind=self.target_kind,
            trust=self.trust,
        )

    def _column(self, where: str) -> str:
        """Return the column to predict, or say that it is missing."""
        if self.target is None and Path(where).suffix == ".py":
            raise typer.BadParameter(
                f"Expected a table, a folder or a function. Got {where}, a Python file: name the "
                f"function in it that returns a model, as {Path(where).stem}:FUNCTION."
            )
        if Path(where).suffix.lower() in _PICTURES:
            raise typer.BadParameter(
                "Expected a folder with the training images in class folders. Got "
                f"{where}, one picture: name the folder, and --image {where}."
            )
        if self.target is None:
            raise typer.BadParameter(
                f"Expected --target COLUMN, the column to predict. Got {where} without it."
            )
        return self.target


@dataclass(frozen=True, kw_only=True)
class ImageOptions(SourceOptions):
    """Options of a folder with one folder of images per class."""

    kind: ClassVar[str] = "a folder of images"
    asks: ClassVar[tuple[str, ...]] = ("row", "rows", "most", "image", "against")

    network: Annotated[
        str | None,
        typer.Option(
            help="Of images: package.module:function, which returns a torch module from images to "
            "features; the colors of blocks of 4 x 4 pixels by default."
        ),
    ] = None
    size: Annotated[
        int | None,
        typer.Option(help="Of images: the pixels of a side that they are cut to; 64 by default."),
    ] = None

    def load(self, where: str, asked: Asked) -> Source:
        """Read the images, and fit a top layer on frozen features of them."""
        from whence.sources import entry

        if self.network is not None:
            _announce(self.network)
        return entry.from_folder(
            Path(where),
            asked=asked.of_rows(),
            image=asked.image,
            network=self.network,
            size=64 if self.size is None else self.size,
        )


@dataclass(frozen=True, kw_only=True)
class EntryOptions(SourceOptions):
    """Options of a Python function that makes a model: none."""

    kind: ClassVar[str] = "a Python function"
    asks: ClassVar[tuple[str, ...]] = ("row", "rows", "most", "against")

    def load(self, where: str, asked: Asked) -> Source:
        """Call the function."""
        from whence.sources import entry

        _announce(where)
        return entry.from_entry(where, asked=asked.of_rows())


def _announce(entry_point: str) -> None:
    """Say which file will run, before anything in it does."""
    from whence.sources.entry import located

    found = located(entry_point)
    if found is not None:
        typer.echo(f"note: running {entry_point} of {found}", err=True)


KINDS: tuple[type[SourceOptions], ...] = (TableOptions, ImageOptions, EntryOptions)


@dataclass(frozen=True)
class Chosen:
    """SOURCE with the options that its kind reads.

    Args:
        where: What the user typed for SOURCE.
        options: The options of its kind.
    """

    where: str
    options: SourceOptions

    def load(self, **asked: Any) -> Source:
        """Return the model with its data, and the queries that are asked about."""
        _refuse(self.where, type(self.options), self.options.asks, asked)
        return self.options.load(self.where, Asked(**asked))


def reads(*kinds: type[SourceOptions], otherwise: str = "") -> Callable[[Command], Command]:
    """Give a command SOURCE and the options of these kinds, in place of its first parameter.

    Args:
        kinds: The kinds of source that the command can use.
        otherwise: What to do with another kind, a sentence.

    Returns:
        A decorator of commands `command(source: Chosen, ...)`.
    """

    def spread(command: Command) -> Command:
        options = {option.name: option for kind in kinds for option in _parameters(kind)}
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        where = inspect.Parameter("where", inspect.Parameter.KEYWORD_ONLY, annotation=Where)
        parameters = [where, *options.values(), *own]

        def call(where: str, **typed: Any) -> None:
            given = {name: typed.pop(name) for name in options}
            chosen = _chosen(where, kinds, given, otherwise)
            image = typed.get("image")
            _refuse(where, type(chosen.options), chosen.options.asks, {"image": image})
            _present(image)
            command(chosen, **typed)

        call.__name__, call.__doc__ = command.__name__, command.__doc__
        call.__annotations__ = {each.name: each.annotation for each in parameters}
        call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        )
        return call

    return spread


def _parameters(kind: type[SourceOptions]) -> list[inspect.Parameter]:
    """Return the fields of an options object as parameters of a command."""
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)  # type: ignore[arg-type]
    ]


def _chosen(
    where: str, kinds: Iterable[type[SourceOptions]], given: Mapping[str, Any], otherwise: str
) -> Chosen:
    """Return the source that was typed, with the options of its kind and no others."""
    where = _lasting(where)
    kind = _kind_of(where)
    if kind not in kinds:
        expected = " or ".join(each.kind for each in kinds)
        raise InvalidInput(f"Expected {expected}. Got {where}, {kind.kind}. {otherwise}".strip())
    _refuse(where, kind, _names(kind), given)
    options = kind(**{name: given[name] for name in _names(kind)})
    options.check(where)
    return Chosen(where, options)


def _lasting(where: str) -> str:
    """Return a file that can be read more than once: standard input and pipes are written to one.

    It lies in a folder of its own until the command ends.
    """
    piped = Path("/dev/stdin") if where == "-" else Path(where)
    if where != "-" and (not piped.exists() or piped.is_file() or piped.is_dir()):
        return where
    written = sys.stdin.buffer.read() if where == "-" else piped.read_bytes()
    folder = tempfile.mkdtemp(prefix="whence-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    kept = Path(folder) / piped.name
    kept.write_bytes(written)
    return str(kept)


def _kind_of(where: str) -> type[SourceOptions]:
    """Return the kind of source that a text names."""
    if _is_entry(where):
        return EntryOptions
    if not where or not Path(where).exists():
        raise InvalidInput(
            "Expected a file, a folder or package.module:function. Got "
            f"{where or repr(where)}, which does not exist."
        )
    return ImageOptions if Path(where).is_dir() else TableOptions


def _present(path: Path | None) -> None:
    """Raise if a file that was named is not there, before anything slow is imported."""
    if path is not None and not path.is_file():
        what = f"the folder {path}" if path.is_dir() else f"{path}, which does not exist"
        raise InvalidInput(f"Expected a file. Got {what}.")


def _is_entry(where: str) -> bool:
    """Return whether a text has the form package.module:function, and no file has that name."""
    return _ENTRY.fullmatch(where) is not None and not Path(where).exists()


def _refuse(
    where: str, kind: type[SourceOptions], read: Iterable[str], given: Mapping[str, Any]
) -> None:
    """Raise if an option was typed that the kind of source does not read."""
    for name, value in given.items():
        if value is not None and value is not False and name not in read:
            readers = " or ".join(
                each.kind for each in KINDS if name in (*_names(each), *each.asks)
            )
            raise typer.BadParameter(
                f"Expected --{name.replace('_', '-')} with {readers} only. Got it with {where}, "
                f"{kind.kind}: leave it out."
            )


def _names(kind: type[SourceOptions]) -> list[str]:
    """Return the names of the options that a kind of source reads."""
    return [field.name for field in fields(kind)]  # type: ignore[arg-type]
