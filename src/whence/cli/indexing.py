"""Commands of an index on disk: build, append, remove, query, info, verify."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from whence.cli.answers import print_json, say, typed, wrote
from whence.cli.flags import Command, Group
from whence.cli.methods import MethodOption, method_of
from whence.cli.options import Against, Interrupted, Json, Output, Row, Rows, possible
from whence.cli.sources import Chosen, EntryOptions, reads

if TYPE_CHECKING:
    from whence.index.index import Index
    from whence.sources.entry import Source

app = typer.Typer(
    cls=Group,
    help="Keep the features of training examples on disk, and ask them in any later process.\n\n"
    "SOURCE is package.module:function, which returns an objective or (objective, queries).",
)
_KEPT = "The finished shards lie in {}: the same command goes on."
_OTHERWISE = "Write a function that returns whence.from_sklearn(...) or the like."

Measure = Annotated[
    Literal["loss", "margin", "probability"],
    typer.Option(
        help="Scores are changes of this: of the prediction's loss, its margin, or the probability "
        "of the label."
    ),
]
Folder = Annotated[
    Path, typer.Option("--index", "-i", help="The folder of the index.", callback=possible)
]
Added = Annotated[
    Path | None,
    typer.Option(
        help="Index these files of Parquet or JSON lines in place of the model's own training "
        "data: texts, prompts with completions, or chats, or what the model's data set holds.",
        callback=possible,
    ),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        help="Of --data or --text: a tokenizer of the transformers library, a name or a folder."
    ),
]
MaxLength = Annotated[
    int | None, typer.Option(help="Of --tokenizer: tokens of a text, at most.", min=1)
]
Trl = Annotated[
    bool,
    typer.Option(
        "--trl",
        help="Of --tokenizer: TRL's SFTTrainer trained on the texts. A text alone then ends with "
        "the end of text, and all of a chat has a loss, not the answers only.",
    ),
]
Shown = Annotated[
    Path | None,
    typer.Option(
        help="Of --output: the files that build or append was given; the function's own training "
        "data if it is left out.",
        callback=possible,
    ),
]
Texts = Annotated[
    list[str] | None,
    typer.Option(
        "--text",
        help="A text that is asked about, with --tokenizer; may be given many times. --against is "
        "then another text.",
        show_default=False,
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        help="Of --text: what each is an answer to, which follows it letter by letter. Only the "
        "answer is asked about.",
        show_default=False,
    ),
]
Workers = Annotated[int, typer.Option(help="Processes, or Ray tasks at a time.", min=1)]
On = Annotated[Literal["process", "ray"], typer.Option(help="This machine, or a Ray cluster.")]


@reads(EntryOptions, otherwise=_OTHERWISE)
def build(
    source: Chosen,
    index: Folder,
    data: Added = None,
    method: MethodOption = None,
    encoding: Annotated[
        str, typer.Option(help="How rows are stored: float32, float16, int8, rank-1, rank-2, ...")
    ] = "float16",
    tokenizer: Tokenizer = None,
    max_length: MaxLength = None,
    trl: Trl = False,
    workers: Workers = 1,
    backend: On = "process",
    as_json: Json = False,
) -> None:
    """Compute and store the features of all training examples; go on where a build was stopped.

    Example: whence index build my_project.models:make_objective --index runs/index --workers 4
    """
    found = source.load()
    from whence.index.index import Index

    try:
        made = Index.build(
            found.objective,
            index,
            method=method_of(method),
            data=data,
            rows=encoding,
            tokenizer=_tokenizer(tokenizer, max_length, trl),
            max_length=max_length,
            trl=trl,
            workers=workers,
            backend=backend,
        )
    except KeyboardInterrupt:
        raise Interrupted(_KEPT.format(index)) from None
    _tell(made, as_json)


@reads(EntryOptions, otherwise=_OTHERWISE)
def append(
    source: Chosen,
    index: Folder,
    data: Annotated[Path, typer.Option(help="Files of Parquet or JSON lines.", callback=possible)],
    tokenizer: Tokenizer = None,
    max_length: MaxLength = None,
    trl: Trl = False,
    workers: Workers = 1,
    backend: On = "process",
    as_json: Json = False,
) -> None:
    """Add more training examples; files that were added before are not added again.

    Example: whence index append my_project.models:make_objective --index runs/index --data new/
    """
    opened = _opened(source, index)
    try:
        opened.append(
            data,
            tokenizer=_tokenizer(tokenizer, max_length, trl),
            max_length=max_length,
            trl=trl,
            workers=workers,
            backend=backend,
        )
    except KeyboardInterrupt:
        raise Interrupted(_KEPT.format(index)) from None
    _tell(opened, as_json)


@reads(EntryOptions, otherwise=_OTHERWISE)
def remove(
    source: Chosen,
    index: Folder,
    ids: Annotated[list[str], typer.Option("--id", help="An example; may be given many times.")],
    as_json: Json = False,
) -> None:
    """Leave examples out of all answers from now on.

    Example: whence index remove my_project.models:make_objective --index runs/index --id 17
    """
    opened = _opened(source, index)
    opened.remove(ids)
    _tell(opened, as_json)


@reads(EntryOptions, otherwise=_OTHERWISE)
def query(
    source: Chosen,
    index: Folder,
    row: Row = None,
    rows: Rows = None,
    against: Against = None,
    text: Texts = None,
    prompt: Prompt = None,
    tokenizer: Tokenizer = None,
    max_length: MaxLength = None,
    k: Annotated[int, typer.Option("-k", help="How many on each side.", min=1)] = 10,
    measure: Measure = "loss",
    output: Output = None,
    data: Shown = None,
    trl: Trl = False,
    as_json: Json = False,
) -> None:
    """Print the most helpful and the most harmful of all indexed examples for each query.

    The queries are the texts, those that the function returns beside the
    objective, or training examples.

    Example: whence index query my_project.models:make_both --index runs/index -k 20

    Example: whence index query my_project.models:make_both --index runs/index --row 0 --against 1

    Example: whence index query my_project.models:make --index runs/index
    --tokenizer my/model --prompt "Who wrote it?" --text " Ada did."
    --output why.html --data corpus/
    """
    if output is None and (data is not None or trl):
        raise typer.BadParameter(
            f"Expected {'--data' if data is not None else '--trl'} with --output only. Got it "
            "alone: leave it out, or name a page."
        )
    words = _tokenizer(tokenizer, max_length, trl)
    alone = words is not None and not text and output is None  # a page reads texts of examples
    if (text and words is None) or alone or (prompt is not None and not text):
        raise typer.BadParameter(
            "Expected --text with --tokenizer, and --prompt with both. Got "
            f"{'--text' if text else '--tokenizer or --prompt'} alone."
        )
    if text and (row is not None or rows is not None):
        raise typer.BadParameter("Expected --text, --row or --rows. Got two: leave one out.")
    if text:
        found = source.load()
        queries, other = [_answer(prompt, each) for each in text], _answer(prompt, against)
    else:
        asked = {"rows": rows, "most": 20} if row is None else {"row": row}
        found = source.load(**asked, against=against)
        queries, other = found.queries, found.against
    hits = _open(found, index).query(
        queries, k=k, against=other, measure=measure, tokenizer=words, max_length=max_length
    )
    if output is not None:
        how: dict[str, Any] = {"tokenizer": words, "max_length": max_length, "trl": trl}
        hits.report(output, data, command=typed(), **how)
    if as_json:
        print_json({"method": hits.method, "measure": hits.measure, "hits": hits.to_frame()})
        return
    say(found.notes)
    typer.echo(hits.to_frame().to_string(index=False))
    typer.echo(hits.diagnostics)
    wrote(output)


@reads(EntryOptions, otherwise=_OTHERWISE)
def verify(
    source: Chosen,
    index: Folder,
    rows: Annotated[
        int, typer.Option(help="Queries whose scores are computed anew; none by default.", min=0)
    ] = 0,
    k: Annotated[int, typer.Option("-k", help="Of the comparison of the first k.", min=1)] = 100,
    measure: Measure = "loss",
    as_json: Json = False,
) -> None:
    """Read every byte of an index, and say what is damaged and what its encoding costs.

    With --rows, scores by stored rows are compared with those by features in
    float32, if the index is of the function's own training data. Exit status 1
    if a file is damaged.

    Example: whence index verify my_project.models:make_both --index runs/index --rows 10
    """
    found = source.load(rows=rows) if rows else source.load()
    opened = _open(found, index)
    verified = opened.verify(found.queries, k, measure=measure)
    if as_json:
        names = ("faults", "files", "encoding", "error", "worst", "pearson", "overlap", "compared")
        print_json({name: getattr(verified, name) for name in names})
    else:
        typer.echo(verified)
    if not verified.ok:
        raise typer.Exit(1)


def info(
    index: Annotated[Path, typer.Argument(help="The folder of the index.", callback=possible)],
    as_json: Json = False,
) -> None:
    """Say what an index holds; needs no model.

    Example: whence index info runs/index
    """
    from whence.index.verification import info_of

    _print(info_of(index), as_json)


for command in (build, append, remove, query, info, verify):
    app.command(name=command.__name__, cls=Command)(command)


def _open(found: Source, index: Path) -> Index:
    """Return an index for a model."""
    from whence.index.index import Index

    return Index.open(index, found.objective)


def _opened(source: Chosen, index: Path) -> Index:
    """Return an index for the model of a source."""
    return _open(source.load(), index)


def _answer(prompt: str | None, text: str | None) -> Any:
    """Return a text alone, or as the answer to a prompt."""
    return text if text is None or prompt is None else {"prompt": prompt, "completion": text}


def _tokenizer(name: str | None, max_length: int | None, trl: bool = False) -> Any:
    """Return a tokenizer of the transformers library."""
    if name is None:
        if max_length is not None or trl:
            raise typer.BadParameter(
                f"Expected {'--trl' if trl else '--max-length'} with --tokenizer only. Got it "
                "alone: leave it out."
            )
        return None
    from whence.index.texts import load_tokenizer

    return load_tokenizer(name)


def _tell(index: Index, as_json: bool) -> None:
    """Print what an index holds."""
    _print(index.info(), as_json)


def _print(found: Any, as_json: bool) -> None:
    """Print what an index holds."""
    if as_json:
        print_json(asdict(found))
        return
    card = found.card()
    typer.echo(card.title)
    for name, value in card.facts.items():
        typer.echo(f"{name:20}{value}")
    for sentence in card.words:
        typer.echo(sentence)
