"""Pages to open, read and send: plain records in, one self-contained HTML file out."""

from whence.pages.page import AttackPage, ExplanationPage, Item, Light, Scatter
from whence.pages.render import Page, render, write
from whence.pages.table import BatchPage, QueryRow, RankedPage, RankedRow

__all__ = [
    "AttackPage",
    "BatchPage",
    "ExplanationPage",
    "Item",
    "Light",
    "Page",
    "QueryRow",
    "RankedPage",
    "RankedRow",
    "Scatter",
    "render",
    "write",
]
