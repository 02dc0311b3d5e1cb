"""Commands about one prediction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from whence.cli.answers import (
    explained,
    grouped,
    judged,
    judgement,
    print_json,
    said,
    say,
    scored,
    told,
    typed,
    wrote,
)
from whence.cli.methods import MethodOption, method_of
from whence.cli.options import (
    Against,
    Answer,
    Image,
    Interrupted,
    Json,
    Output,
    Row,
    one,
    possible,
)
from whence.cli.sources import KINDS, Chosen, EntryOptions, ImageOptions, reads

if TYPE_CHECKING:  # each takes a second to import, which completion and help do without
    from whence.scores import Ranking, Scores
    from whence.views.quantity import Quantity

Count = Annotated[int, typer.Option("-k", help="How many examples to show on each side.", min=1)]


@reads(*KINDS)
def explain(
    source: Chosen,
    row: Row = None,
    image: Image = None,
    against: Against = None,
    k: Count = 10,
    measure: Answer = None,
    method: MethodOption = None,
    output: Output = None,
    verify: Annotated[
        int | None,
        typer.Option(
            help="Removals to retrain for the page; 20 of a convex model by default.", min=0
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which training examples made the model say what it says of one.

    The default model is fitted on all but the one asked about.
    Tables: logistic regression for labels, ridge for quantities,
    on standardized numbers, one-hot levels and the words of free text
    (TF-IDF), missing values imputed.
    Images: logistic regression on frozen features.

    Example: whence explain train.csv --target y --row 17 --output why.html

    Example: whence explain photos/ --image odd.png --output why.html
    """
    if verify is not None and output is None:
        raise typer.BadParameter(
            "Expected --verify with --output FILE, whose page shows it. Got it alone: leave it "
            "out, or use whence verify, which prints it."
        )
    found = source.load(**one(row, image), against=against)
    from whence.applications.explain import explain as explain_one

    scorer = method_of(method)
    explanation = explain_one(
        found.objective, found.asked, against=found.against, k=k, measure=measure, method=scorer
    )
    if output is not None:
        name = found.names[0]
        explanation.report(
            output, verify=verify, command=typed(), query_name=name, about=told(source, found)
        )
    if as_json:
        answer = {
            **said(found),
            **judged(found),
            "measure": explanation.scores.measure,
            "value": explanation.value,
            "order_only": not explanation.sized,
        }
        answer |= {"scores": explained(explanation), "groups": grouped(explanation)}
        print_json({"notes": found.notes, **answer})
        return
    say(found.notes)
    typer.echo("\n".join(explanation.lines()))  # rows are named by their numbers here
    wrote(output)


@reads(*KINDS)
def influence(
    source: Chosen,
    row: Row = None,
    image: Image = None,
    k: Count = 10,
    order: Annotated[
        Literal["first", "newton", "refined"],
        typer.Option(
            help="The derivative, one Newton step, or two steps more: slower, closer to retraining."
        ),
    ] = "first",
    method: MethodOption = None,
    measure: Answer = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Score training examples by the predicted change of one prediction if they were removed.

    Example: whence influence train.csv --target y --row 17 -k 5 --output influence.html
    """
    if method is not None and order != "first":
        raise typer.BadParameter(
            "Expected --order, which is influence's own, or --method. Got both: leave one out."
        )
    found = source.load(**one(row, image))
    from whence.methods.choose import chosen
    from whence.methods.influence import Influence
    from whence.views.quantity import default_measure, quantity_of

    named = Influence(order=order) if order != "first" else method_of(method)
    scorer = chosen(found.objective, named)
    queries = found.objective.examples(found.queries)
    # By default what people read, as explain shows it.
    about = default_measure(found.objective, queries) if measure is None else measure
    attribution = scorer.fit(found.objective)
    scores = attribution.scores(found.queries, measure=about)
    top, bottom = scores.top(k), scores.bottom(k)
    if output is not None:
        from whence.applications.report import report

        report(
            found.objective,
            found.asked,
            output,
            k=k,
            measure=measure,
            method=named,
            title=f"What is behind the answer for {found.names[0]}?",
            about=told(source, found),
            command=typed(),
        )
    if as_json:
        ends = (
            (int(at), {"score": float(value)})
            for part in (top, bottom)
            for at, value in zip(part.positions[0], part.values[0], strict=True)
        )
        answer = {**said(found), "measure": about, "order_only": scores.order_only}
        answer["size_error"] = None if scores.diagnostics is None else scores.diagnostics.size_error
        answer["scores"] = scored(found.objective, ends)
        print_json({"notes": found.notes, **judged(found), **answer})
        return
    say((*found.notes, *judgement(found)))
    quantity = quantity_of(found.objective, queries, about, unit=attribution.unit)
    unit = {"loss": found.objective.loss.unit, "prediction": ""}.get(about, about)
    # A relative score has no unit: the phrase says of what it is.
    _echo(scores, (top, bottom), quantity, about, "" if attribution.unit else unit)
    wrote(output)


def _echo(
    scores: Scores, ends: tuple[Ranking, Ranking], quantity: Quantity, about: str, unit: str
) -> None:
    """Print the strongest examples of either side, by size or in their order."""
    from whence.pages.words import digits_of, signed
    from whence.views.printed import plain

    phrases = quantity.phrases[::-1] if quantity.rising else quantity.phrases
    width = max([12, *(len(str(name)) for ranking in ends for name, _ in ranking)])
    if not scores.order_only:
        typer.echo(f"{'without':>{width}}  the {about} of the query changes by")
    shown = (float(value) for part in ends for value in part.values[0])
    decimals = digits_of(shown, least=quantity.least if quantity.predicts else 5)
    for phrase, ranking in zip(phrases, ends, strict=True):
        for rank, (name, value) in enumerate(ranking, 1):
            size = f"{plain(signed(value, decimals))} {unit}".rstrip()
            size = f"rank {rank}" if scores.order_only else size
            typer.echo(f"{name!s:>{width}}  {size}  pushes {phrase}")
    if scores.order_only:
        typer.echo(scores.caution)
    typer.echo(scores.diagnostics)


@reads(*KINDS)
def verify(
    source: Chosen,
    row: Row = None,
    image: Image = None,
    k: Annotated[int, typer.Option("-k", help="How many removals to retrain.", min=1)] = 20,
    measure: Answer = None,
    method: MethodOption = None,
    as_json: Json = False,
) -> None:
    """Retrain without the most influential examples, and compare with what was predicted.

    Example: whence verify train.csv --target y --row 17 -k 50
    """
    found = source.load(**one(row, image))
    from whence.applications.explain import explain as explain_one

    scorer = method_of(method)
    shown = max(1, min(10, (k + 1) // 2))  # on each side: no more are refined than are retrained
    explanation = explain_one(found.objective, found.asked, k=shown, measure=measure, method=scorer)
    checked = explanation.verify(k)
    if as_json:
        removals = checked.to_frame()[["id", "predicted", "actual"]]
        answer = {**said(found), **judged(found), "measure": explanation.scores.measure}
        agreement = {"r": checked.r, "slope": checked.slope, "chance": checked.by_chance}
        agreement |= {"own_fits": checked.own_fits, "removals": removals}
        print_json({"notes": found.notes, **answer, **agreement})
        return
    say((*found.notes, *judgement(found)))
    typer.echo(checked)


@reads(*KINDS)
def flip_set(
    source: Chosen,
    row: Row = None,
    image: Image = None,
    method: MethodOption = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Find the fewest training examples without which the model says something else.

    Every answer is confirmed by fitting the model again without them.

    Example: whence flip-set train.csv --target y --row 17 --output flip.html
    """
    found = source.load(**one(row, image))
    from whence.applications.flip_set import flip_set as flip_set_of

    done = flip_set_of(found.objective, found.asked, method=method_of(method))
    if output is not None:
        title = f"How few training examples carry the answer for {found.names[0]}?"
        done.report(output, title=title, about=told(source, found), command=typed())
    if as_json:
        outcome = {"found": done.found, "removed": done.ids, "retrained": done.tried}
        print_json({"notes": found.notes, **said(found), **judged(found), **outcome})
        return
    say((*found.notes, *judgement(found)))
    typer.echo(done)
    if done.found:
        typer.echo(", ".join(str(name) for name in done.ids))
    wrote(output)


@reads(
    ImageOptions,
    EntryOptions,
    otherwise="For a table, whence flip-set finds the fewest rows without which the answer turns.",
)
def attack(
    source: Chosen,
    row: Row = None,
    image: Image = None,
    changed: Annotated[
        int, typer.Option(help="How many training images may be changed.", min=1)
    ] = 1,
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
        typer.Option(
            help="Keep the changed images in this file; go on from it if it is there.",
            callback=possible,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Audit: how few training images, changed how little, turn what the model says of one?

    Ctrl-C writes what there is; the same command with --save goes on from there.

    Example: whence attack photos/ --image odd.png --changed 5 --levels 4 --output attack.html
    """
    found = source.load(**one(row, image))
    from whence.applications import attacks
    from whence.objective.objective import objective_of

    objective = objective_of(found.objective)
    queries = attacks.as_predicted(objective, found.queries)
    start = None
    if save is not None and save.exists():
        start = attacks.resume(objective, queries, save)
    budget = levels / 127.5
    done = attacks.attack(
        objective,
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
    typer.echo(f"No pixel changed by more than {done.largest_change * 127.5:.3g} levels of 255.")
    wrote(output)
