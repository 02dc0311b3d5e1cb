"""Commands about many predictions, all training data, or the model itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from whence.cli.answers import judged, judgement, print_json, say, told, typed, wrote
from whence.cli.methods import MethodOption, RankingName, method_of
from whence.cli.options import Answer, Interrupted, Json, Output, Page, Rows, possible
from whence.cli.sources import KINDS, Chosen, reads


@reads(*KINDS)
def report(
    source: Chosen,
    output: Page = Path("whence.html"),
    rows: Rows = None,
    k: Annotated[
        int, typer.Option("-k", help="Examples to show on each side of a row.", min=1)
    ] = 5,
    measure: Answer = None,
    method: MethodOption = None,
    as_json: Json = False,
) -> None:
    """Write a page about many predictions, each with the training examples behind it.

    Example: whence report train.csv --target y --rows 200 --output many.html
    """
    found = source.load(rows=rows, most=100)
    from whence.applications.report import report as write_report

    write_report(
        found.objective,
        found.queries,
        output,
        k=k,
        measure=measure,
        method=method_of(method),
        about=told(source, found),
        command=typed(),
    )
    if as_json:
        answer = {"notes": found.notes, **judged(found), "queries": found.names}
        print_json({**answer, "output": str(output)})
        return
    say((*found.notes, *judgement(found)))
    wrote(output)


@reads(*KINDS)
def label_errors(
    source: Chosen,
    k: Annotated[int, typer.Option("-k", help="How many to print.", min=1)] = 20,
    method: Annotated[
        RankingName | None,
        typer.Option(
            help="What to rank by: a loss, or the effect that a method finds of each example on "
            "itself. Default: held_out_loss where other penalties can be tried in a minute or so, "
            "else self_influence."
        ),
    ] = None,
    penalty: Annotated[
        Literal["best", "fitted"] | None,
        typer.Option(
            help="Ask the model at its fitted penalty, or at the best. "
            "Default: best for held_out_loss, else fitted."
        ),
    ] = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Rank training examples by how wrong their labels look.

    Example: whence label-errors train.csv --target y --output labels.html
    """
    found = source.load()
    from whence.applications.label_errors import find_label_errors
    from whence.methods.model_quality import model_quality
    from whence.views.labels import wrong_in_words

    words = (None, "held_out_loss", "class_adjusted", "self_influence", "loss")
    ranking = method if method in words else None
    errors = find_label_errors(
        found.objective,
        method=ranking or method_of(method),  # type: ignore[arg-type]
        penalty=penalty,
    )
    if output is not None:
        errors.report(output, about=told(source, found), command=typed())
    frame = errors.to_frame().head(k)
    if as_json:
        answer = {"notes": found.notes, **judged(found), "ranked_by": errors.ranked_by}
        wrong = None if errors.wrong is None else asdict(errors.wrong)
        print_json({**answer, "wrong_labels": wrong, "suspects": frame})
        return
    quality = model_quality(found.objective)
    many = () if errors.wrong is None else (wrong_in_words(errors.wrong, quality),)
    say((*found.notes, *judgement(found), *many, f"Ranked by {errors.ranked_by}."))
    shown = frame[["id", "label", "suggested", "score", "self_influence", "loss"]]
    typer.echo(shown.to_string(index=False))
    wrote(output)


@reads(*KINDS)
def evaluate(
    source: Chosen,
    rows: Rows = None,
    subsets: Annotated[
        int, typer.Option(help="Random subsets to train on, at least 3.", min=3)
    ] = 50,
    fraction: Annotated[float, typer.Option(help="Of the examples that each keeps.")] = 0.5,
    method: MethodOption = None,
    output: Output = None,
    ensemble: Annotated[
        Path | None,
        typer.Option(
            "--ensemble",
            help="Keep the trainings in this folder, and use those that are there.",
            callback=possible,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train on random subsets, and correlate what comes with what influence predicts (LDS).

    Ctrl-C keeps the finished trainings in --ensemble; the same command trains the others.

    Example: whence evaluate train.csv --target y --subsets 100 --ensemble trainings/
    """
    found = source.load(rows=rows, most=20)
    from whence.applications.evaluate import evaluate as evaluation_of
    from whence.applications.evaluate import report_evaluation

    try:
        score = evaluation_of(
            found.objective,
            found.queries,
            subsets=subsets,
            fraction=fraction,
            directory=ensemble,
            method=method_of(method),
        )
    except KeyboardInterrupt:
        raise Interrupted(
            f"The finished trainings lie in {ensemble}: the same command trains the others."
            if ensemble
            else "Nothing is kept: name a folder with --ensemble to go on another time."
        ) from None
    if output is not None:
        about = (*told(source, found), *judgement(found))
        report_evaluation(score, output, names=found.names, about=about, command=typed())
    if as_json:
        per_query = dict(zip(found.names, score.per_query.tolist(), strict=True))
        content = {"lds": score.mean, "interval": score.interval, "per_query": per_query}
        answer = {"notes": found.notes, **judged(found), **content}
        print_json({**answer, "subsets": subsets, "fraction": fraction})
        return
    say((*found.notes, *judgement(found)))
    low, high = score.interval
    typer.echo(
        f"LDS {score.mean:.3f}, 95 % interval {low:.3f} to {high:.3f}: {len(score.per_query)} "
        f"queries, {subsets} subsets of {fraction:.0%}; a perfect prediction would be 1"
    )
    wrote(output)


@reads(*KINDS)
def diagnose(
    source: Chosen,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Say whether a model is at a minimum, how far from converged, and which damping it needs.

    Example: whence diagnose my_project.models:make_objective
    """
    found = source.load()
    from whence.applications.diagnose import diagnose as diagnosis_of
    from whence.objective.objective import objective_of

    diagnosis = diagnosis_of(objective_of(found.objective))
    if output is not None:
        quality = " ".join(judgement(found))
        about, command = told(source, found), typed()
        diagnosis.report(output, quality=quality, about=about, command=command)
    if as_json:
        print_json({"notes": found.notes, **judged(found), **asdict(diagnosis)})
        return
    say((*found.notes, *judgement(found)))
    typer.echo(diagnosis)
    wrote(output)
