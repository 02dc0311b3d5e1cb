"""The prediction of a query, in words and as probabilities of the classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from whence.objective.targets import target_classes
from whence.objective.trained import Examples, Trained
from whence.pages import Answer, Scale, Share
from whence.pages.words import number
from whence.views.sequences import Decode, counted, pieces_of

_LONG = 80  # characters of an answer that stand in a title


def class_names(trained: Trained) -> tuple[str, ...]:
    """Return what the classes are called; none for a regression and for sequences.

    Args:
        trained: The model.

    Returns:
        The user's names, or "class 0", ... where there are none.
    """
    if trained.classes:
        return tuple(str(name) for name in trained.classes)
    if not trained.loss.classifies:
        return ()
    outputs = trained.outputs(trained.train.subset(_FIRST))
    if outputs.ndim != 2:
        return ()
    return tuple(f"class {c}" for c in range(max(2, outputs.shape[1])))


def class_of(outputs: Tensor) -> int:
    """Return the predicted class, as a position among the classes.

    Args:
        outputs: Of one query, [c]; [1] for a binary model.

    Returns:
        0 to c − 1; 0 or 1 for a binary model.
    """
    return int(outputs[0] > 0) if len(outputs) == 1 else int(outputs.argmax())


def target_class(target: Tensor) -> int:
    """Return the class of one encoded target, as a position among the classes.

    Args:
        target: An index, 0 or 1, −1 or 1, of no axis or of one; or one number per class.
    """
    return int(target_classes(target.unsqueeze(0))[0])


def label_of(trained: Trained, target: Tensor) -> str:
    """Return a target as the user names it.

    Args:
        trained: The model, which knows the classes.
        target: One encoded target.

    Returns:
        The class name, or the number; empty for a sequence, which is its own target.
    """
    if counted(trained, target) is not None:
        return ""
    if trained.classes:
        return str(trained.classes[target_class(target)])
    if trained.loss.classifies and target.numel() == 1:
        return str(target_class(target))
    decimals = target_decimals(trained)
    return ", ".join(number(value, decimals) for value in target.reshape(-1).tolist())


def predicted_labels(trained: Trained, outputs: Tensor) -> list[str]:
    """Return the class that the model says of each query, as `label_of` names it.

    Args:
        trained: A classifier.
        outputs: Of the queries, [q, c].
    """
    classes = map(class_of, outputs)
    return [str(trained.classes[c]) if trained.classes else str(c) for c in classes]


def _text_of_answer(trained: Trained, answer: Examples, decode: Decode | None) -> str:
    """Return an answer in words: the label or number that it is, or the text.

    Args:
        trained: The model.
        answer: The answer, one.
        decode: From token numbers to text; the numbers themselves if `None`.
    """
    text = "".join(pieces_of(answer, 0, decode)).strip()
    if len(text) > _LONG:
        text = f"…{text[-_LONG:]}"  # two answers to one prompt differ at the end
    return label_of(trained, answer.targets[0]) or text


def words_of_two(
    trained: Trained, answer: Examples, other: Examples, decode: Decode | None
) -> tuple[str, str]:
    """Return what is asked of two answers to one question, and what effects on them are.

    Args:
        trained: The model.
        answer: The answer that is asked about, one.
        other: Another answer to the same question.
        decode: From token numbers to text; the numbers themselves if `None`.

    Returns:
        Why the one and not the other; of classes the one that the model finds likelier is first.
    """
    that = _text_of_answer(trained, other, decode)
    words = f"Effects are on the difference to another answer: “{that}”."
    this = _text_of_answer(trained, answer, decode)
    if this == that or not class_names(trained):
        return f"Why this answer and not “{that}”?", words
    mine, others = (trained.loss(trained.outputs(each), each.targets) for each in (answer, other))
    first, second = (this, that) if mine[0] <= others[0] else (that, this)
    return f"Why “{first}” and not “{second}”?", words


def said_of(trained: Trained, query: Examples, decimals: int | None = None) -> str:
    """Return what the model says of one query, in a sentence.

    Args:
        trained: The model.
        query: One query.
        decimals: Of a predicted number; those that tell predictions apart if `None`.

    Returns:
        The sentence.
    """
    outputs = trained.outputs(query)
    tokens = counted(trained, query.targets[0])
    if tokens is not None:
        loss = float(trained.loss(outputs, query.targets[:1])[0]) / max(tokens, 1)
        expected = share_text(math.exp(-loss))
        each = "the one token" if tokens == 1 else f"each of the {tokens:,} tokens"
        return f"The model expects {each} with probability {expected} (loss {loss:.3f})."
    names = class_names(trained)
    if not names:
        predicted = outputs
        if trained.loss.regresses and outputs.shape[1:] == (1,):
            predicted = trained.loss.prediction(outputs, query.targets)
        digits = prediction_decimals(trained) if decimals is None else decimals
        values = ", ".join(number(value, digits) for value in predicted.reshape(-1).tolist())
        return f"The model predicts {values}."
    best = class_of(outputs[0])
    shares = trained.loss.probabilities(outputs)
    answer = f"The model says {names[best]}"
    if shares is None:
        return f"{answer}."
    share = float(shares[0, best])
    return f"{answer} with probability {share:.{2 if share <= 0.99 else 4}f}."


def target_decimals(trained: Trained) -> int:
    """Return how many decimals the training targets of a regression have.

    Args:
        trained: The model.

    Returns:
        The decimals that write a thousand of them exactly; those of a hundredth of their spread
        where there are none. Of targets that spread over 1e9 and more the latter too, which is a
        number below 0: their last digits say nothing.
    """
    targets = trained.train.targets
    some = targets[torch.linspace(0, len(targets) - 1, min(len(targets), 1000)).long()].double()
    spread = _spread(some)
    if spread < _HUGE:
        rounding = 1e-9 * min(1.0, float(some.abs().max()))
        for decimals in range(5):
            if bool((some.round(decimals=decimals) - some).abs().max() <= rounding):
                return decimals
    return _decimals_of_size((spread or 1.0) / 100)


def prediction_decimals(trained: Trained) -> int:
    """Return the decimals of a predicted number: the targets', more where these tell little.

    Args:
        trained: The model.
    """
    digits, spread = target_decimals(trained), _spread(trained.train.targets.double())
    return (
        digits if digits < 0 or spread == 0 else max(digits, _decimals_of_size(spread / _TELLING))
    )


def _spread(targets: Tensor) -> float:
    """Return the standard deviation of the targets; 0 of one alone, or of none that is finite."""
    spread = float(targets.std()) if targets.numel() > 1 else 0.0
    return spread if math.isfinite(spread) else 0.0


def _decimals_of_size(size: float) -> int:
    """Return the decimals that show a size > 0; below 0 only where it is huge."""
    decimals = math.ceil(-math.log10(size))
    return decimals if decimals > 0 or size >= _HUGE / 100 else 0


def answer_of(
    trained: Trained,
    query: Examples,
    *,
    explained: int | None,
    labeled: bool,
    decimals: int | None = None,
) -> Answer:
    """Return what the model says of a query as a page shows it.

    Args:
        trained: The model.
        query: One query.
        explained: The class that the effects are about, or `None`.
        labeled: Whether the query's label is known.
        decimals: Of a predicted number; those that tell predictions apart if `None`.

    Returns:
        The record.
    """
    words, outputs = said_of(trained, query, decimals), trained.outputs(query)
    names = class_names(trained)
    shares = trained.loss.probabilities(outputs) if names else None
    if shares is not None:
        return Answer(words=words, shares=_shares(names, shares[0], query, explained, labeled))
    if names or not trained.loss.regresses or outputs.shape[1:] != (1,):
        return Answer(words=words)
    digits, targets = target_decimals(trained), trained.train.targets.double()
    low, high = float(targets.min()), float(targets.max())
    predicted = float(trained.loss.prediction(outputs, query.targets)[0])
    actual = float(query.targets.reshape(-1)[0]) if labeled else None
    return Answer(
        words=words,
        scale=Scale(
            low=low,
            high=high,
            predicted=predicted,
            actual=actual,
            texts=(
                number(low, digits),
                number(high, digits),
                number(predicted, prediction_decimals(trained) if decimals is None else decimals),
                "" if actual is None else number(actual, digits),
            ),
        ),
    )


def share_text(share: float) -> str:
    """Return a probability in percent, with decimals where it is near 0, a half or 1.

    Args:
        share: In [0, 1].

    Examples:
        >>> share_text(0.819), share_text(0.9991), share_text(0.502), share_text(1e-9)
        ('82 %', '99.91 %', '50.2 %', 'under 0.01 %')
    """
    if 0 < share < _LEAST:
        return "under 0.01 %"
    if 0 < 1 - share < _LEAST:
        return "over 99.99 %"
    from_half = abs(share - 0.5)
    near = not 0.01 <= share <= 0.99 or 0 < from_half < _LEAST * 10
    return f"{number(100 * share, 2 if near else 1 if 0 < from_half < 0.005 else 0)} %"


def _shares(
    names: tuple[str, ...],
    shares: Tensor,
    query: Examples,
    explained: int | None,
    labeled: bool,
) -> tuple[Share, ...]:
    """Return the predicted class, the label or the runner-up, and all others together."""
    label = target_class(query.targets[0]) if labeled else None
    order = shares.argsort(descending=True).tolist()
    shown = [order[0], order[1] if label in (None, order[0]) else label]
    parts = [
        Share(
            name=f"“{names[c]}”",
            share=float(shares[c]),
            text=share_text(float(shares[c])),
            note="the label in the data" if c == label else "",
            color="toward" if c == explained else "against",
        )
        for c in shown
    ]
    rest = max(0.0, 1 - sum(part.share for part in parts))
    if len(names) > 2:
        name = "all others" if len(names) > 3 else f"“{names[({0, 1, 2} - set(shown)).pop()]}”"
        parts.append(Share(name=name, share=rest, text=share_text(rest), note="", color="against"))
    return tuple(parts)


_TELLING = 20  # parts of the targets' standard deviation that a predicted number tells apart
_HUGE = 1e9  # a spread from which targets are written as powers of ten
_LEAST = 5e-5  # a probability below which percents with two decimals show nothing
_FIRST = torch.zeros(1, dtype=torch.long).numpy()
