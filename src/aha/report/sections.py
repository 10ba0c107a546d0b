"""What a page is made of: sections with text, figures, tables and transcripts. The template shows them alike."""

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
