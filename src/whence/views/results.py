"""What the pages about a flip set, a comparison, a diagnosis and an evaluation show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from whence.arrays import Floats
from whence.methods.model_quality import ModelQuality
from whence.methods.prediction import MeasureLike
from whence.objective.losses import measure_of
from whence.objective.trained import Examples, Trained
from whence.pages import Answer, Curve, Fact, Item, Listed, Listing, ResultPage, Status
from whence.pages.words import number
from whence.scores import Scores
from whence.views.answer import answer_of, class_names, target_class, target_decimals
from whence.views.columns import NONE, columns_of
from whence.views.examples import item_of
from whence.views.made import Made
from whence.views.quantity import quantity_of
from whence.views.statuses import quality_of, statuses_of

LISTED = 6  # examples of a comparison, on each side and for each model


def flip_page(
    trained: Trained,
    refitted: Trained,
    query: Examples,
    positions: NDArray[np.intp],
    course: Sequence[tuple[int, float]],
    *,
    said: str,
    labeled: bool,
    tried: int,
    quality: ModelQuality | None,
    made: Made,
) -> ResultPage:
    """Return what the page of a flip set shows.

    Args:
        trained: The model.
        refitted: The same, fitted again without the set.
        query: The one query.
        positions: The set, the most supportive first, [m]; empty if none was found.
        course: (number removed, lead of the predicted class after retraining) pairs, 0 first; in
            points where the model has probabilities, else of its outputs.
        said: The result in a sentence.
        labeled: Whether the query's label is known; else it is what the model predicts.
        tried: How many sets were retrained without.
        quality: How good the model is on what it has not seen, or `None`.
        made: How the page was made.
    """
    n, m = len(trained.train), len(positions)
    items, columns = _items(trained, positions, made)
    lines = tuple(
        Listed(name=str(name), numbers=(str(rank),), item=item)
        for rank, (name, item) in enumerate(
            zip(trained.train.ids[positions], items, strict=True), 1
        )
    )
    of_label = partial(
        answer_of, query=query, explained=target_class(query.targets[0]), labeled=labeled
    )
    answer = of_label(trained)
    answers = [("With all of the training data", answer)]
    facts = [Fact(figure=f"{tried:,}", words="sets were removed and the model fitted again.")]
    if m:
        after = _in_order_of(answer, of_label(refitted))
        answers.append((f"Fitted again without these {m:,}", after))
        share = f"{100 * m / n:.3g} %"
        facts.insert(0, Fact(figure=f"{m:,} of {n:,}", words=f"examples carry it: {share}."))
    names = class_names(trained)
    return ResultPage(
        said=said,
        facts=tuple(facts),
        answers=tuple(answers),
        curve=_lead(course, percent=bool(answer.shares)) if len(course) > 1 else None,
        curve_heading="The lead as they are removed",
        curve_words=f"{'The probability' if answer.shares else 'The output'} of the predicted "
        "class less that of the other one, as the set is removed, the most supportive first. "
        "Every point was retrained.",
        listings=(
            Listing(
                heading="Without these the answer changes",
                noun="training example",
                heads=("order",),
                lines=lines,
                columns=columns,
                words="A small set, found by their influence; a smaller one may exist.",
            ),
        )
        if m
        else (),
        statuses=(
            Status(level="good", title="The change of the answer was confirmed by retraining.")
            if m
            else Status(level="unknown", title="No set was found; that does not say none exists."),
            quality_of(quality, names, target_decimals(trained)),
        ),
        method="Examples in the order of their influence on the lead; the number by retraining.",
        **made.common(made.data(f"A model fitted on {n:,} training examples.")),
    )


def _in_order_of(first: Answer, answer: Answer) -> Answer:
    """Return an answer with its classes in the order of another, so that meters are compared."""
    places = [share.name for share in first.shares]
    inside = [share for share in answer.shares if share.name in places]
    rest = [share for share in answer.shares if share.name not in places]
    kept = (*sorted(inside, key=lambda share: places.index(share.name)), *rest)
    return replace(answer, shares=kept)


def _lead(course: Sequence[tuple[int, float]], *, percent: bool) -> Curve:
    """Return the lead of the predicted class as examples are removed."""
    return Curve(
        points=tuple((float(at), lead) for at, lead in course),
        across="training examples removed",
        up="lead",
        unit=" %" if percent else "",
        threshold=0.0,
        threshold_words="below this line the answer is another",
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Compared:
    """One of two models that are compared on one query.

    Args:
        name: What it is called.
        trained: The model.
        query: The query as it takes it.
        scores: Scores of all training examples, [1, n].
        shown: Scores of those that may be shown, refined where the model is convex, [1, m].
        sized: Whether the sizes of these are to be trusted.
        measure: What the scores are of.
        quality: How good the model is on what it has not seen, or `None`.
    """

    name: str
    trained: Trained
    query: Examples
    scores: Scores
    shown: Scores
    sized: bool
    measure: MeasureLike
    quality: ModelQuality | None


def comparison_page(
    models: tuple[Compared, Compared], *, agreement: float, shared: int, made: Made
) -> ResultPage:
    """Return what the page of a comparison of two models shows.

    Args:
        models: The two; the examples of the first are shown.
        agreement: Spearman correlation of the scores.
        shared: How many of the ten most helpful examples they have in common.
        made: How the page was made.
    """
    first = models[0]
    label = target_class(first.query.targets[0]) if class_names(first.trained) else None
    return ResultPage(
        said=f"Of the 10 training examples that push most to the {_target(first)}, {shared} are "
        "the same.",
        answers=tuple(
            (
                f"What {each.name} says",
                answer_of(each.trained, each.query, explained=label, labeled=True),
            )
            for each in models
        ),
        facts=(
            Fact(
                figure=number(agreement, 2),
                words="is how alike they order all training examples: 1 is the same order, 0 is "
                "unrelated (rank correlation).",
            ),
        ),
        listings=tuple(
            _pushing(first.trained, own, other.scores.values[0], made, toward=toward)
            for own, other in (models, models[::-1])
            for toward in (True, False)
        ),
        statuses=(*_of_both(models), *map(_quality_of, models)),
        method=" / ".join(dict.fromkeys(f"{each.shown.method}." for each in models)),
        **made.common(made.data(f"Two models of {len(first.trained.train):,} training examples.")),
    )


def _target(of: Compared) -> str:
    """Return what the target of the query is called."""
    return "value in the data" if of.trained.loss.regresses else "label"


def _pushing(
    trained: Trained, own: Compared, others: Floats, made: Made, *, toward: bool
) -> Listing:
    """Return the strongest examples under one model, either to the label or away from it."""
    away = own.shown.values[0] * (-1 if toward else 1)
    best = [at for at in np.argsort(away, kind="stable")[:LISTED] if away[at] < 0]
    values, where = own.shown.values[0][best], own.shown.positions[best]
    largest = float(np.abs(own.shown.values).max()) or 1.0
    ranks = np.argsort(np.argsort(-others, kind="stable"), kind="stable") + 1
    items, columns = _items(trained, where, made)
    head, texts = _without(own, values)
    sizes = [(text,) if own.sized else () for text in texts]
    return Listing(
        heading=f"{'Push to' if toward else 'Push away from'} the {_target(own)} under {own.name}",
        noun="training example",
        heads=(*((head,) * own.sized), "rank in the other"),
        columns=columns,
        lines=tuple(
            Listed(
                name=str(trained.train.ids[at]),
                numbers=(*size, f"{ranks[at]:,}"),
                item=item,
                size=value / largest,
                color="toward" if toward else "against",
            )
            for at, value, size, item in zip(
                where.tolist(), values.tolist(), sizes, items, strict=True
            )
        ),
        words="" if own.sized else "The bars show the order; the sizes are not known.",
    )


def _without(own: Compared, changes: Floats) -> tuple[str, tuple[str, ...]]:
    """Return what the answer would be without examples, and what it is called."""
    quantity = quantity_of(own.trained, own.query, own.measure)
    outputs = own.trained.outputs(own.query)
    value = float(measure_of(own.trained.loss, own.measure)(outputs, own.query.targets)[0])
    now = quantity.read(value)
    after = [quantity.read(value + change) for change in changes.tolist()]
    decimals = quantity.decimals(each - now for each in after)
    texts = tuple(quantity.text(each, decimals) for each in after)
    return f"without it, {quantity.name} is", texts


def _of_both(models: tuple[Compared, Compared]) -> tuple[Status, ...]:
    """Return how far to trust two rows of scores: once what holds of both, else by the name."""
    first, second = (statuses_of(own.shown.diagnostics, sized=own.sized) for own in models)
    if [(each.level, each.title) for each in first] == [(x.level, x.title) for x in second]:
        return tuple(
            replace(one, numbers=" ".join(dict.fromkeys(filter(None, (one.numbers, two.numbers)))))
            for one, two in zip(first, second, strict=True)
        )
    return tuple(
        _named(model, status)
        for model, own in zip(models, (first, second), strict=True)
        for status in own
    )


def _quality_of(model: Compared) -> Status:
    """Return how good one of the models is."""
    names, decimals = class_names(model.trained), target_decimals(model.trained)
    return _named(model, quality_of(model.quality, names, decimals))


def _named(model: Compared, status: Status) -> Status:
    """Return a status that names its model."""
    return replace(status, title=f"{model.name[0].upper()}{model.name[1:]}: {status.title}")


def evaluation_page(
    per_query: Floats,
    names: Sequence[str],
    *,
    mean: float,
    interval: tuple[float, float],
    confidence: float,
    ceiling: float | None,
    subsets: int,
    made: Made,
) -> ResultPage:
    """Return what the page of an evaluation shows.

    Args:
        per_query: The score of each query, [q]; NaN where its outcomes do not vary.
        names: What the queries are called, q of them.
        mean: Of the scores.
        interval: Of the mean.
        confidence: What it aims to cover.
        ceiling: What a perfect prediction would reach, or `None` where that is not known.
        subsets: How many subsets were trained on.
        made: How the page was made.
    """
    order = np.argsort(-np.nan_to_num(per_query, nan=-2.0), kind="stable")
    facts = [
        Fact(figure=number(mean, 3), words="is the mean rank correlation, the LDS."),
        Fact(
            figure=f"{number(interval[0], 3)} to {number(interval[1], 3)}",
            words=f"is its {confidence:.0%} interval, over subsets and queries.",
        ),
    ]
    if ceiling is not None:
        facts.append(Fact(figure=number(ceiling, 3), words="is what a perfect one would reach."))
    return ResultPage(
        said=f"Scores order what {subsets:,} retrainings on random parts of the data do with a "
        f"rank correlation of {number(mean, 3)}; a perfect prediction would have 1.",
        facts=tuple(facts),
        listings=(
            Listing(
                heading=f"The {len(per_query):,} queries",
                noun="query",
                heads=("rank correlation",),
                lines=tuple(
                    Listed(
                        name=str(names[at]),
                        numbers=(number(float(per_query[at]), 3),),
                        size=float(np.nan_to_num(per_query[at])),
                        color="toward" if per_query[at] > 0 else "against",
                    )
                    for at in order
                ),
                words="Of what the scores predict for each part of the data and what training on "
                "it gave.",
            ),
        ),
        statuses=(Status(level="good", title=f"{subsets:,} models were trained to say this."),),
        method="The linear datamodeling score (Park et al., 2023).",
        **made.common(made.data(f"{len(per_query):,} queries, each scored and then compared.")),
    )


def diagnosis_page(
    questions: Sequence[tuple[Status, str]], *, quality: str, made: Made
) -> ResultPage:
    """Return what the page of a diagnosis shows.

    Args:
        questions: The answers, each with the question.
        quality: How good the model is on what it has not seen, in a sentence; may be empty.
        made: How the page was made.
    """
    firm = all(answer.level == "good" for answer, _ in questions)
    lead = " ".join(filter(None, (made.data(), quality)))
    return ResultPage(
        said="Influence can be trusted on this model."
        if firm
        else "Read influence on this model with care.",
        listings=(
            Listing(
                heading="What was asked",
                noun="question",
                heads=("answer", "numbers"),
                lines=tuple(
                    Listed(name=question, numbers=(answer.title, answer.numbers))
                    for answer, question in questions
                ),
            ),
        ),
        statuses=(),
        method="The gradient, the ends of the spectrum of the Hessian by Lanczos, and the rule "
        "for the damping.",
        **made.common(lead or "Is the model at a minimum, and converged?"),
    )


def _items(
    trained: Trained, where: NDArray[np.intp], made: Made
) -> tuple[list[Item], tuple[str, ...]]:
    """Return examples as they are shown, and the names of their cells."""
    if not len(where):
        return [], ()
    shown = trained.train.subset(where)
    columns = columns_of([shown.inputs]) if made.image_shape is None else NONE
    items = [
        item_of(
            trained,
            shown,
            index,
            title=f"Training example {name}",
            image_shape=made.image_shape,
            columns=columns,
        )
        for index, name in enumerate(shown.ids)
    ]
    return items, columns.names
