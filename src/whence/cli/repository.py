"""Commands about whence itself: the demonstration, and the experiments of the paper."""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from whence.cli.answers import explained, print_json, wrote
from whence.cli.options import Interrupted, Json, Page
from whence.errors import InvalidInput


def demo(
    output: Page = Path("whence-demo.html"),
    as_json: Json = False,
) -> None:
    """Explain a misread digit, retrain 50 times to check, and write a page.

    Example: whence demo --output why.html
    """
    from whence.demo import write_demo

    shown = write_demo(output)
    if as_json:
        check = shown.verification
        scores = explained(shown.explanation)
        print_json({"r": check.r, "slope": check.slope, "scores": scores, "output": str(output)})
        return
    typer.echo(shown)
    wrote(output)


def paper(
    ids: Annotated[list[str] | None, typer.Argument(help="Experiments; all by default.")] = None,
    quick: Annotated[bool, typer.Option(help="A form of at most two minutes each.")] = False,
    workers: Annotated[int, typer.Option(help="Processes that share an experiment's items.")] = 1,
    device: Annotated[str, typer.Option(help="Where frozen networks run, such as cuda.")] = "cpu",
    list_: Annotated[bool, typer.Option("--list", help="List them and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Redo the experiments of Koh & Liang (2017), from a checkout of whence.

    Ctrl-C keeps the results of the finished experiments; name the others to go on.

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
    experiments = [{"id": each.id, "title": each.title} for each in runner.EXPERIMENTS]
    if list_ and as_json:
        print_json({"experiments": experiments})
        return
    flags = [*(["--quick"] if quick else []), *(["--list"] if list_ else [])]
    arguments = [*(ids or []), *flags, "--workers", str(workers), "--device", device]
    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            missed = runner.main(arguments)
    except KeyboardInterrupt:
        raise Interrupted(
            "The results of finished experiments are kept; name the others."
        ) from None
    if as_json:
        print_json({"experiments": ids or [each["id"] for each in experiments], "missed": missed})
    if missed:
        raise typer.Exit(3)
