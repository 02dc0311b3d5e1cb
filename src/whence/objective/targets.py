"""What losses ask of labels and outputs."""

from __future__ import annotations

from torch import Tensor

from whence.errors import InvalidInput, UnsupportedModel


def check_labels(outputs: Tensor, targets: Tensor, classes: int) -> None:
    """Raise unless every target is a whole number from 0 to the number of classes less 1.

    Args:
        outputs: f, [b, c].
        targets: y, [b], or [b, 1] of one output.
        classes: How many there are.

    Raises:
        InvalidInput: If a label is another.
    """
    several = outputs.ndim == 2 and outputs.shape[1] > 1
    if targets.shape == outputs.shape and several:
        raise InvalidInput(
            f"Expected one label per example, shape {tuple(outputs.shape[:-1])}. Got one for each "
            f"output, {tuple(targets.shape)}. For several labels of each, or shares of classes, "
            "pass a function, such as lambda f, y: "
            "binary_cross_entropy_with_logits(f, y, reduction='none').sum(1)."
        )
    targets = targets.squeeze(-1) if targets.shape == outputs.shape and not several else targets
    if classes == 1:
        raise InvalidInput(
            "Expected an output for each class. Got one output. Use whence.Logistic() for two "
            "classes, or whence.SquaredError() for quantities."
        )
    if targets.shape != outputs.shape[:-1]:
        raise InvalidInput(
            f"Expected one label per output row, shape {tuple(outputs.shape[:-1])}. "
            f"Got {tuple(targets.shape)}."
        )
    wrong = (targets != targets.round()) | (targets < 0) | (targets >= classes)
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0, 0])
        raise InvalidInput(
            f"Expected labels that are whole numbers from 0 to {classes - 1}. "
            f"Got {targets[at].tolist()} for example {at}. Encode the labels first."
        )


def target_classes(targets: Tensor) -> Tensor:
    """Return the class of each encoded target, as a position among the classes, [b].

    Args:
        targets: Indices, 0 and 1, or −1 and 1, [b] or in one column [b, 1]; or one number per
            class, [b, c].

    Examples:
        >>> import torch
        >>> target_classes(torch.tensor([[1.0], [0.0]])), target_classes(torch.tensor([[0, 1]]))
        (tensor([1, 0]), tensor([1]))
    """
    if targets.ndim == 2 and targets.shape[1] > 1:
        return targets.argmax(1)
    return targets.reshape(len(targets)).clamp_min(0).long()


def counted(targets: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    """Return class indices, 0 for targets without a loss, and which targets have one.

    Args:
        targets: Class indices, [b] or [b, t].
        ignored: The number that marks a target without a loss.
    """
    counts = targets != ignored
    return targets.masked_fill(~counts, 0).long(), counts


def signs_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return targets 0/1 as −1/+1 in the shape of the outputs.

    Args:
        outputs: f, [b, 1] or [b, c].
        targets: y, [b] or [b, c].
    """
    return (2 * targets.to(outputs.dtype) - 1).reshape(outputs.shape)


def single_output(outputs: Tensor) -> Tensor:
    """Return the one output of each example, [b].

    Args:
        outputs: f, [b, 1].

    Raises:
        UnsupportedModel: If there are several.
    """
    if outputs.ndim != 2 or outputs.shape[1] != 1:
        raise UnsupportedModel(
            "Expected one output per example for measure='prediction'. Got outputs of shape "
            f"{list(outputs.shape)}. Name one of them by a function: lambda f, y: f[:, 0]."
        )
    return outputs.squeeze(1)
