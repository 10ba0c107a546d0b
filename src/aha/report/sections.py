"""What a page is made of: sections with text, figures, tables and transcripts; and numbers as the page writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Table:
    """A table with a sentence about it."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Transcript:
    """What one model wrote."""

    label: str
    text: str | Markup
    verdict: str = ""
    right: bool | None = None


@dataclass(frozen=True)
class Exchange:
    """One question and what several models made of it."""

    question: str
    transcripts: Sequence[Transcript]


@dataclass(frozen=True)
class Section:
    """A part of the page, with all that it shows in this order."""

    title: str
    text: str = ""
    wide: Markup | None = None
    tables: Sequence[Table] = ()
    figures: Sequence[Markup] = ()
    exchanges: Sequence[Exchange] = ()
    folded: bool = False
    """Shown as a line that unfolds: details for those who want them."""
    anchor: str = ""
    """Its name in links to the page."""


def percent(value: float | None) -> str:
    """A share in percent; a dash for none."""
    return "–" if value is None else f"{100 * value:.1f}%"


def number(value: float | None, digits: int = 1) -> str:
    """A number with so many decimals; a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}"


def count(value: int) -> str:
    """A number of parameters in millions or billions."""
    return f"{value / 1e9:.1f}B" if value >= 1e9 else f"{value / 1e6:.2f}M"
