"""Pages to open, read and send: plain records in, one self-contained HTML file out."""

from whence.pages.attack import AttackPage
from whence.pages.explanation import (
    Answer,
    Color,
    ExplanationPage,
    Fact,
    Share,
    Shown,
    Side,
)
from whence.pages.explore import ExplorePage, LogPage, LogRow
from whence.pages.figures import Curve, Scale, Scatter
from whence.pages.item import Item, Level, Status
from whence.pages.page import Page
from whence.pages.render import explorer_module, render, write
from whence.pages.result import Listed, Listing, ResultPage
from whence.pages.table import BatchPage, Carrier, Effect, QueryRow, RankedPage, RankedRow

__all__ = [
    "Answer",
    "AttackPage",
    "BatchPage",
    "Carrier",
    "Color",
    "Curve",
    "Effect",
    "ExplanationPage",
    "ExplorePage",
    "Fact",
    "Item",
    "Level",
    "Listed",
    "Listing",
    "LogPage",
    "LogRow",
    "Page",
    "QueryRow",
    "RankedPage",
    "RankedRow",
    "ResultPage",
    "Scale",
    "Scatter",
    "Share",
    "Shown",
    "Side",
    "Status",
    "explorer_module",
    "render",
    "write",
]
