"""The command line: each command is one call of the library."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whence.errors import InvalidInput, WhenceError

if TYPE_CHECKING:
    from whence.applications.tables import Fitted
    from whence.objective.objective import Objective

app = typer.Typer(
    help="Trace a model's predictions back to the training data they came from.\n\n"
    "Exit status: 0 done; 1 data or a model that cannot be used; 2 wrong usage; 3 a bar of "
    "`whence paper` that was missed; 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

Table = Annotated[Path, typer.Argument(help="A CSV or Parquet file.", show_default=False)]
Target = Annotated[str, typer.Option(help="The column to predict.", show_default=False)]
Row = Annotated[int, typer.Option(help="The row to explain, from 0.", show_default=False)]
Model = Annotated[
    Path | None,
    typer.Option(help="A fitted scikit-learn model saved by joblib, in place of the default."),
]
Trust = Annotated[
    bool, typer.Option(help="Load --model although loading runs the code in the file.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Count = Annotated[int, typer.Option("-k", help="How many examples to show.")]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    """Trace a model's predictions back to the training data they came from."""
    # Read in `main`, which must know it even where parsing a command fails.


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where the page goes.")] = Path("whence-demo.html"),
) -> None:
    """Explain a misread digit, retrain 50 times to check, and write a page.

    Example: whence demo --output why.html
    """
    from whence.demo import write_demo

    print(write_demo(output))
    print(f"wrote {output}: open it in a browser")


@app.command()
def explain(
    table: Table,
    target: Target,
    row: Row,
    k: Count = 10,
    output: Annotated[Path | None, typer.Option(help="Write a page to this file.")] = None,
    verify: Annotated[int, typer.Option(help="Removals to retrain for the page.")] = 20,
    model: Model = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Say which rows of a table made the model say what it says of one row.

    The default model is fitted on all other rows: logistic regression for labels, ridge for
    quantities, on standardized numbers and one-hot text, missing values imputed.

    Example: whence explain train.csv --target y --row 17 --output why.html
    """
    from whence.applications.explain import explain as explain_one

    fitted = _fitted(table, target, model, trust, hold_out=[row])
    explanation = explain_one(fitted.objective, fitted.query([row]), k=k)
    if output is not None:
        command = f"whence explain {table} --target {target} --row {row} --output {output}"
        explanation.report(
            output, verify=verify, command=command, title=f"Why is row {row} read so?"
        )
    if as_json:
        _print_json({"notes": fitted.table.notes, "effects": explanation.to_frame()})
        return
    _say(fitted.table.notes)
    print(explanation)
    if output is not None:
        print(f"wrote {output}: open it in a browser")


@app.command()
def influence(
    table: Table,
    target: Target,
    row: Row,
    k: Count = 10,
    order: Annotated[str, typer.Option(help="first, newton or refined.")] = "first",
    model: Model = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Score rows by the predicted change of one row's loss if they were removed.

    Example: whence influence train.csv --target y --row 17 -k 5
    """
    from whence.applications.influence import influence as influence_on

    fitted = _fitted(table, target, model, trust, hold_out=[row])
    scores = influence_on(fitted.objective, fitted.query([row]), order=order)  # type: ignore[arg-type]
    top, bottom = (list(part) for part in (scores.top(k), scores.bottom(k)))
    if as_json:
        _print_json({"helpful": dict(top), "harmful": dict(bottom)})
        return
    _say(fitted.table.notes)
    for title, ranking in (("helpful", top), ("harmful", bottom)):
        for name, value in ranking:
            print(f"row {name:>8}  {value:+.5f} nats  {title}")
    print(scores.diagnostics)


@app.command(name="label-errors")
def label_errors(
    table: Table,
    target: Target,
    k: Count = 20,
    output: Annotated[Path | None, typer.Option(help="Write a page to this file.")] = None,
    model: Model = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Rank rows by how wrong their labels look.

    Example: whence label-errors train.csv --target y --output labels.html
    """
    from whence.applications.label_errors import find_label_errors

    fitted = _fitted(table, target, model, trust)
    errors = find_label_errors(fitted.objective)
    if output is not None:
        command = f"whence label-errors {table} --target {target} --output {output}"
        errors.report(output, command=command)
    frame = errors.to_frame().head(k)
    if as_json:
        _print_json({"notes": fitted.table.notes, "suspects": frame})
        return
    _say(fitted.table.notes)
    print(frame.to_string())
    if output is not None:
        print(f"wrote {output}: open it in a browser")


@app.command()
def report(
    table: Table,
    target: Target,
    output: Annotated[Path, typer.Option(help="Where the page goes.")] = Path("whence.html"),
    rows: Annotated[int, typer.Option(help="Rows to hold out and show, spread evenly.")] = 100,
    k: Count = 5,
    model: Model = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Write a page about many rows, each with the rows behind its prediction.

    Example: whence report train.csv --target y --rows 200 --output many.html
    """
    from whence.applications.batch import report as write_report
    from whence.applications.tables import fit_table, read_table

    read = read_table(table, target)
    if not 1 <= rows < len(read.X):
        raise InvalidInput(f"Expected --rows from 1 to {len(read.X) - 1}. Got {rows}.")
    chosen = [int(i * len(read.X) / rows) for i in range(rows)]
    shown = read.X.index[chosen].tolist()
    fitted = fit_table(read, model=_loaded(model, trust), hold_out=shown)
    command = f"whence report {table} --target {target} --rows {rows} --output {output}"
    write_report(fitted.objective, fitted.query(shown), output, k=k, command=command)
    if as_json:
        _print_json({"notes": read.notes, "rows": shown, "output": str(output)})
        return
    _say(read.notes)
    print(f"wrote {output}: open it in a browser")


@app.command()
def verify(
    table: Table,
    target: Target,
    row: Row,
    k: Annotated[int, typer.Option("-k", help="How many removals to retrain.")] = 20,
    model: Model = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Retrain without the most influential rows, and compare with what was predicted.

    Example: whence verify train.csv --target y --row 17 -k 50
    """
    from whence.applications.explain import explain as explain_one

    fitted = _fitted(table, target, model, trust, hold_out=[row])
    found = explain_one(fitted.objective, fitted.query([row])).verify(k)
    if as_json:
        pairs = zip(
            found.ids.tolist(), found.predicted.tolist(), found.actual.tolist(), strict=True
        )
        _print_json({"r": found.r, "slope": found.slope, "removals": list(pairs)})
        return
    print(found)


@app.command()
def diagnose(
    table: Annotated[Path | None, typer.Argument(help="A CSV or Parquet file.")] = None,
    target: Annotated[str, typer.Option(help="The column to predict.")] = "",
    objective: Annotated[
        str, typer.Option(help="package.module:function, which returns an objective.")
    ] = "",
    model: Model = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Say whether a model is at a minimum, how far from converged, and which damping it needs.

    Example: whence diagnose --objective my_project.models:make_objective
    """
    from dataclasses import asdict

    from whence.applications.diagnosis import diagnose as diagnosis_of

    if bool(objective) == (table is not None):
        raise typer.BadParameter("name either a table with --target, or an --objective")
    if objective:
        found = diagnosis_of(_objective_of(objective))
    else:
        assert table is not None
        found = diagnosis_of(_fitted(table, target, model, trust).objective)
    if as_json:
        _print_json(asdict(found))
        return
    print(found)


@app.command()
def paper(
    ids: Annotated[list[str] | None, typer.Argument(help="Experiments; all by default.")] = None,
    quick: Annotated[bool, typer.Option(help="A form of at most two minutes each.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List them and stop.")] = False,
) -> None:
    """Redo the experiments of Koh & Liang (2017), from a checkout of whence.

    Example: whence paper f2a --quick
    """
    sys.path.insert(0, str(Path.cwd()))
    try:
        runner = importlib.import_module("experiments.koh_liang_2017.__main__")
    except ModuleNotFoundError as error:
        raise InvalidInput(
            "Expected to run in a checkout of whence, where the experiments are. Got "
            f"{Path.cwd()}. Clone the repository and run it there."
        ) from error
    arguments = [*(ids or []), *(["--quick"] if quick else []), *(["--list"] if list_ else [])]
    if runner.main(arguments):
        raise typer.Exit(3)


def _fitted(
    path: Path, target: str, model: Path | None, trust: bool, hold_out: list[int] | None = None
) -> Fitted:
    """Return a table with its model."""
    from whence.applications.tables import fit_table, read_table

    table = read_table(path, target)
    return fit_table(table, model=_loaded(model, trust), hold_out=hold_out)


def _loaded(path: Path | None, trust: bool) -> Any:
    """Return a model from a file, if the user says that the file is trusted."""
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
        raise InvalidInput(
            f"Expected a model saved by joblib.dump. Got {path}: {type(error).__name__}."
        ) from error


def _objective_of(entry: str) -> Objective:
    """Return what package.module:function returns."""
    from whence.objective.objective import Objective

    name, _, attribute = entry.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        made = getattr(importlib.import_module(name), attribute or "make_objective")()
    except (ImportError, AttributeError) as error:
        raise InvalidInput(
            f"Expected package.module:function. Got {entry!r}: {error}. Run it where the package "
            "can be imported."
        ) from error
    if not isinstance(made, Objective):
        raise InvalidInput(
            f"Expected {entry} to return an objective of whence. Got {type(made).__name__}."
        )
    return made


def _say(notes: tuple[str, ...]) -> None:
    """Print what was done to the data, apart from the answer."""
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def _print_json(content: dict[str, Any]) -> None:
    """Print plain JSON; frames become lists of records."""

    def plain(value: Any) -> Any:
        if hasattr(value, "to_dict"):
            rows = value.astype(object).where(value.notna(), None)  # JSON has no NaN
            return rows.to_dict(orient="records")
        return value.tolist() if hasattr(value, "tolist") else str(value)

    print(json.dumps(content, default=plain, indent=1))


def main() -> None:
    """Run the command line; an error is one sentence and exit status 1."""
    try:
        app()
    except WhenceError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"whence: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("whence: interrupted", err=True)
        sys.exit(130)
