"""Pages to open, read and send: plain records in, one self-contained HTML file out."""

from whence.report.page import ExplanationPage, Item, Light, Scatter
from whence.report.render import render, write

__all__ = ["ExplanationPage", "Item", "Light", "Scatter", "render", "write"]
