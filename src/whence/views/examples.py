"""Examples, predictions and diagnostics in words and pictures, for pages and terminals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from whence.errors import InvalidInput
from whence.linear.objective import LinearExamples
from whence.network.examples import ModuleExamples
from whence.objective.losses import CrossEntropy, Logistic
from whence.objective.objective import Objective
from whence.objective.trained import Examples
from whence.pages import Item, Light
from whence.scores import Diagnostics
from whence.views.sequences import Decode, counted, pieces_of

Floats = NDArray[np.float64]
_SHOWN_COLUMNS = 6


def label_of(objective: Objective, target: Tensor) -> str:
    """Return a target as the user names it.

    Args:
        objective: R, which knows the classes.
        target: One encoded target.

    Returns:
        The class name, or the number; empty for a sequence, which is its own target.
    """
    if counted(objective, target) is not None:
        return ""
    if objective.classes:
        index = int(target.argmax()) if target.ndim else int(target.clamp_min(0))
        return str(objective.classes[index])
    return ", ".join(f"{value:.4g}" for value in target.reshape(-1).tolist())


def class_of(outputs: Tensor) -> int:
    """Return the predicted class, as a position among the classes.

    Args:
        outputs: Of one query, [c]; [1] for a binary model.

    Returns:
        0 to c − 1; 0 or 1 for a binary model.
    """
    return int(outputs[0] > 0) if len(outputs) == 1 else int(outputs.argmax())


def said_of(objective: Objective, queries: Examples) -> str:
    """Return what the model says of one query, in a sentence.

    Args:
        objective: R at θ̂.
        queries: One query.

    Returns:
        The sentence.
    """
    outputs = objective.outputs(queries)[0]
    tokens = counted(objective, queries.targets[0])
    if tokens is not None:
        loss = float(objective.loss(outputs.unsqueeze(0), queries.targets[:1])[0])
        return f"The model reads {tokens} tokens with a loss of {loss / max(tokens, 1):.3f} each."
    if not objective.classes and isinstance(objective.loss, CrossEntropy):
        best = class_of(outputs)
        probability = torch.softmax(outputs, 0)[best]
        return f"The model says class {best} with probability {float(probability):.2f}."
    if not objective.classes:
        values = outputs if outputs.ndim else outputs.reshape(1)
        return f"The model predicts {', '.join(f'{value:.4g}' for value in values.tolist())}."
    best = class_of(outputs)
    if len(outputs) == 1:
        probability = torch.sigmoid(outputs[0].abs())
    else:
        probability = torch.softmax(outputs, 0)[best]
    answer = f"The model says {objective.classes[best]}"
    if isinstance(objective.loss, (CrossEntropy, Logistic)):
        return f"{answer} with probability {float(probability):.2f}."
    return f"{answer}."


def item_of(
    objective: Objective,
    examples: Examples,
    index: int,
    *,
    title: str,
    image_shape: tuple[int, ...] | None,
    predicted: str | None = None,
    acting: Floats | None = None,
    effect: float | None = None,
    actual: float | None = None,
    decode: Decode | None = None,
) -> Item:
    """Return one example as a page shows it.

    Args:
        objective: R, which knows the classes.
        examples: The examples it is one of.
        index: Its position among them.
        title: What to call it.
        image_shape: (h, w) or (h, w, 3) if a row is an image laid out flat; else `None`.
        predicted: What the model says of it, where that is shown.
        acting: The derivative of the query's measure in its inputs, [d]; of tokens, the part of
            the effect that each has, [t].
        effect: The predicted change if it is removed.
        actual: The change that retraining made.
        decode: From token numbers to text, such as a tokenizer's decode.

    Returns:
        The record.
    """
    row = _row(examples, index)
    label = label_of(objective, examples.targets[index])
    image: NDArray[np.uint8] | None = None
    columns: tuple[tuple[str, str], ...] = ()
    drawn: Floats | None = None
    images = _images(examples)
    if images is not None:
        image = _picture(images, images[index])
        drawn = None if acting is None else _channels_last(acting)
    elif row is not None and image_shape is not None:
        image = _image(_numbers(examples), _numbers(examples)[index], image_shape)
        drawn = None if acting is None else acting.reshape(image_shape)
    elif row is not None:
        columns, drawn = _columns(row, acting)
    tokens = () if image is not None else pieces_of(examples, index, decode)
    return Item(
        title=title,
        label=label,
        predicted=predicted,
        image=image,
        tokens=tokens,
        columns=columns,
        acting=acting if tokens else drawn,
        effect=effect,
        actual=actual,
    )


def lights_of(diagnostics: Diagnostics, *, convex: bool) -> tuple[Light, ...]:
    """Return diagnostics as traffic lights.

    Args:
        diagnostics: What a result says about itself.
        convex: Whether the model is known to be convex.

    Returns:
        One light per question a reader should ask.
    """
    far, residual = diagnostics.gradient_in_examples, diagnostics.residual
    fit = Light(
        level="caution"
        if far is None
        else "good"
        if far <= 0.1
        else "caution"
        if far <= 1
        else "bad",
        title="Was the model trained to its optimum?",
        words="Not measured."
        if far is None
        else f"Gradient norm {diagnostics.gradient_norm:.1e}: as far from the optimum as removing "
        f"{far:.2g} typical examples would bring it."
        + ("" if far <= 1 else " Train further, or continue with objective.refit()."),
    )
    solve = Light(
        level="caution" if residual is None else "good" if diagnostics.converged else "bad",
        title="Was the linear system solved?",
        words=f"{diagnostics.solver or 'No curvature was inverted'}; "
        + (
            "no residual was measured."
            if residual is None
            else f"relative residual {residual:.0e}."
        )
        + ("" if diagnostics.converged else " Allow more iterations, or add damping."),
    )
    damping = Light(
        level="good" if convex and diagnostics.damping == 0 else "caution",
        title="Was the curvature changed?",
        words=f"Damping {diagnostics.damping:.3g} ({diagnostics.damping_reason or 'none'}).",
    )
    notes = tuple(Light(level="caution", title="Note", words=note) for note in diagnostics.notes)
    return fit, solve, damping, *notes


def _row(examples: Examples, index: int) -> Any:
    """Return one of the user's rows, or `None` where the examples are not rows."""
    if not isinstance(examples, LinearExamples) or isinstance(examples.inputs, Tensor | None):
        return None
    rows = examples.inputs
    if isinstance(rows, pd.DataFrame):
        return rows.iloc[index]
    is_sparse: bool = sparse.issparse(rows)
    dense = rows[[index]].toarray()[0] if is_sparse else np.asarray(rows[index])
    return pd.Series(dense, index=[f"column {j}" for j in range(len(dense))])


def _numbers(examples: Examples) -> Floats:
    """Return the user's rows as numbers."""
    assert isinstance(examples, LinearExamples)
    return np.asarray(examples.inputs, dtype=np.float64)


def _image(rows: Floats, row: Floats, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a row as an image, black to white over the range of all rows."""
    if len(shape) not in (2, 3) or int(np.prod(shape)) != row.size:
        raise InvalidInput(
            f"Expected image_shape to multiply to the {row.size} columns of a row. Got {shape}."
        )
    low, high = float(rows.min()), float(rows.max())
    scaled = (row - low) / (high - low or 1.0)
    return np.asarray(scaled.reshape(shape) * 255).round().astype(np.uint8)


def _images(examples: Examples) -> Tensor | None:
    """Return a network's inputs if they are images: [b, h, w], [b, 1, h, w] or [b, 3, h, w]."""
    inputs = examples.inputs if isinstance(examples, ModuleExamples | LinearExamples) else None
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        return None
    shaped = inputs.ndim == 3 or (inputs.ndim == 4 and inputs.shape[1] in (1, 3))
    return inputs if shaped else None


def _picture(inputs: Tensor, image: Tensor) -> NDArray[np.uint8]:
    """Return an image of a module's inputs, black to white over the range of all of them."""
    low, high = float(inputs.min()), float(inputs.max())
    scaled = _channels_last(image.detach().cpu().numpy().astype(np.float64))
    return np.asarray((scaled - low) / (high - low or 1.0) * 255).round().astype(np.uint8)


def _channels_last(values: Floats) -> Floats:
    """Return [c, h, w] as [h, w, c], or [h, w] where there is one channel."""
    if values.ndim == 2:
        return values
    return values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)


def _columns(row: Any, acting: Floats | None) -> tuple[tuple[tuple[str, str], ...], Floats | None]:
    """Return the columns of a row that act most, or the first, with what they do."""
    if acting is None or len(acting) != len(row):
        shown = np.arange(min(_SHOWN_COLUMNS, len(row)))
        kept = None
    else:
        shown = np.argsort(-np.abs(acting))[:_SHOWN_COLUMNS]
        kept = acting[shown]
    pairs = tuple((str(row.index[j]), _value(row.iloc[j])) for j in shown)
    return pairs, kept


def _value(value: Any) -> str:
    """Return a cell as text, numbers in four digits."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "missing"
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)
