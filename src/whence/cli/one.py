"""Commands about one prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from whence.cli.options import (
    Image,
    Interrupted,
    Json,
    Model,
    Network,
    Output,
    Row,
    Size,
    Target,
    Trust,
    Where,
    one,
    print_json,
    say,
    source,
    typed,
    wrote,
)
from whence.errors import InvalidInput

Count = Annotated[int, typer.Option("-k", help="How many examples to show on each side.")]


def explain(
    where: Where,
    target: Target = "",
    row: Row = None,
    image: Image = None,
    k: Count = 10,
    output: Output = None,
    verify: Annotated[int, typer.Option(help="Removals to retrain for the page.")] = 20,
    model: Model = None,
    trust: Trust = False,
    network: Network = None,
    size: Size = 64,
    as_json: Json = False,
) -> None:
    """Say which training examples made the model say what it says of one.

    The default model is fitted on all but the one asked about. Tables: logistic regression for
    labels, ridge for quantities, on standardized numbers and one-hot text, missing values imputed.
    Images: logistic regression on frozen features.

    Example: whence explain train.csv --target y --row 17 --output why.html

    Example: whence explain photos/ --image odd.png --output why.html
    """
    from whence.applications.explain import explain as explain_one

    found = source(
        where, target, **one(row, image), model=model, trust=trust, network=network, size=size
    )
    explanation = explain_one(found.objective, found.queries, k=k)
    if output is not None:
        title = f"Why is {found.names[0]} read so?"
        explanation.report(output, verify=verify, command=typed(), title=title)
    if as_json:
        print_json({"notes": found.notes, "effects": explanation.to_frame()})
        return
    say(found.notes)
    typer.echo(explanation)
    wrote(output)


def influence(
    where: Where,
    target: Target = "",
    row: Row = None,
    image: Image = None,
    k: Count = 10,
    order: Annotated[str, typer.Option(help="first, newton or refined.")] = "first",
    model: Model = None,
    trust: Trust = False,
    network: Network = None,
    size: Size = 64,
    as_json: Json = False,
) -> None:
    """Score training examples by the predicted change of one loss if they were removed.

    Example: whence influence train.csv --target y --row 17 -k 5
    """
    from whence.methods.influence import influence as influence_on

    found = source(
        where, target, **one(row, image), model=model, trust=trust, network=network, size=size
    )
    scores = influence_on(found.objective, found.queries, order=order)  # type: ignore[arg-type]
    top, bottom = (list(part) for part in (scores.top(k), scores.bottom(k)))
    if as_json:
        print_json({"notes": found.notes, "helpful": dict(top), "harmful": dict(bottom)})
        return
    say(found.notes)
    for title, ranking in (("helpful", top), ("harmful", bottom)):
        for name, value in ranking:
            typer.echo(f"{name!s:>12}  {value:+.5f} nats  {title}")
    typer.echo(scores.diagnostics)


def verify(
    where: Where,
    target: Target = "",
    row: Row = None,
    image: Image = None,
    k: Annotated[int, typer.Option("-k", help="How many removals to retrain.")] = 20,
    model: Model = None,
    trust: Trust = False,
    network: Network = None,
    size: Size = 64,
    as_json: Json = False,
) -> None:
    """Retrain without the most influential examples, and compare with what was predicted.

    Example: whence verify train.csv --target y --row 17 -k 50
    """
    from whence.applications.explain import explain as explain_one

    found = source(
        where, target, **one(row, image), model=model, trust=trust, network=network, size=size
    )
    checked = explain_one(found.objective, found.queries).verify(k)
    if as_json:
        removals = [
            {"id": name, "predicted": predicted, "actual": actual}
            for name, predicted, actual in zip(
                checked.ids.tolist(),
                checked.predicted.tolist(),
                checked.actual.tolist(),
                strict=True,
            )
        ]
        print_json({"r": checked.r, "slope": checked.slope, "removals": removals})
        return
    say(found.notes)
    typer.echo(checked)


def attack(
    where: Where,
    row: Row = None,
    image: Image = None,
    changed: Annotated[int, typer.Option(help="How many training images may be changed.")] = 1,
    levels: Annotated[
        float,
        typer.Option(
            help="The most that a pixel may change, in gray levels of 255. Just under half by "
            "default: stored in 8 bits, nothing is changed."
        ),
    ] = 0.499,
    steps: Annotated[int, typer.Option(help="Stop after this many steps.")] = 100,
    output: Output = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Keep the changed images in this file; go on from it if it is there."),
    ] = None,
    network: Network = None,
    size: Size = 64,
    as_json: Json = False,
) -> None:
    """Audit: how few training images, changed how little, turn what the model says of one?

    Ctrl-C writes what there is; the same command with --save goes on from there.

    Example: whence attack photos/ --image odd.png --changed 5 --levels 4 --output attack.html
    """
    from whence.applications import attacks
    from whence.sources.entry import is_entry

    if not is_entry(where) and not Path(where).is_dir():
        raise InvalidInput(
            f"Expected a folder of images, or a function that makes a model of some. Got {where}. "
            "For a table, whence.flip_set finds the fewest rows whose removal turns a prediction."
        )
    found = source(where, "", **one(row, image), network=network, size=size)
    queries = attacks.as_predicted(found.objective, found.queries)
    start = None
    if save is not None and save.exists():
        start = attacks.resume(found.objective, queries, save)
    budget = levels / 127.5
    done = attacks.craft(
        found.objective,
        queries,
        n_images=changed,
        steps=steps,
        step_size=min(0.02, budget / 2),
        budget=budget,
        start=start,
    )
    if save is not None:
        done.save(save)
    before = 0 if start is None else len(start.losses) - 1
    if not done.flipped.all() and len(done.losses) - 1 - before < steps:
        kept = (
            f"What there is lies in {save}: the same command goes on from it."
            if save
            else ("Nothing is kept: name a file with --save to go on another time.")
        )
        raise Interrupted(f"{done}. {kept}")
    if output is not None:
        done.report(output, title=f"How little turns {found.names[0]}?", command=typed())
    if as_json:
        print_json(
            {
                "flipped": bool(done.flipped.all()),
                "holds_from_nothing": bool(done.verify().all()),
                "changed": done.clean.train.ids[done.positions],
                "largest_change": done.largest_change * 127.5,
                "losses": list(done.losses),
            }
        )
        return
    say(found.notes)
    typer.echo(done)
    wrote(output)
