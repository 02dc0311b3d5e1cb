"""The methods that a command can be asked for by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

if TYPE_CHECKING:
    from whence.methods.method import Method

Name: TypeAlias = Literal[
    "influence",
    "newton",
    "refined",
    "ekfac",
    "kfac",
    "tracin",
    "gradient-cosine",
    "projected",
    "trak",
    "representer",
    "metagradient",
    "unrolled",
    "leave-one-out",
    "bm25",
    "tfidf-cosine",
    "hidden-cosine",
    "whitened-cosine",
]
RankingName: TypeAlias = Literal["held_out_loss", "class_adjusted", "self_influence", "loss", Name]
MethodOption = Annotated[
    Name | None,
    typer.Option(
        "--method",
        help="What scores the training examples: influence by default; newton and refined are its "
        "other orders, ekfac and kfac its curvature for networks; metagradient and unrolled need a "
        "recorded training.",
    ),
]


def method_of(name: Name | None) -> Method | None:
    """Return the method of a name; `None` for the default of the command.

    Args:
        name: As typed.

    Returns:
        The method, its options the defaults.
    """
    import whence

    match name:
        case None:
            return None
        case "influence":
            return whence.Influence()
        case "newton":
            return whence.Influence(order="newton")
        case "refined":
            return whence.Influence(order="refined")
        case "ekfac":
            return whence.Influence(solver=whence.EKFAC())
        case "kfac":
            return whence.Influence(solver=whence.KFAC())
        case "tracin":
            return whence.TracIn()
        case "gradient-cosine":
            return whence.TracIn(cosine=True)
        case "projected":
            return whence.Projected()
        case "trak":
            return whence.Projected(output="margin", projection="dense")
        case "representer":
            return whence.Representer()
        case "metagradient":
            return whence.Metagradient()
        case "unrolled":
            return whence.Unrolled()
        case "leave-one-out":
            return whence.LeaveOneOut()
        case "bm25":
            return whence.BM25()
        case "tfidf-cosine":
            return whence.TfIdfCosine()
        case "hidden-cosine":
            return whence.HiddenCosine()
        case "whitened-cosine":
            return whence.HiddenCosine(whiten=True)
