"""What the terminal shows: thinking dimmed behind a bar, answers, votes, verdicts.

What a model writes cannot steer the terminal: its control characters are shown, not sent.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aha.serve.judging import Judgement

BAR = "│ "


class Screen:
    """Writes to a console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, text: str) -> None:
        """A remark of the program."""
        self._console.print(_text(text, "dim"))

    def fault(self, text: str) -> None:
        """What was wrong."""
        self._console.print(_text(text, "red"))

    def write(self, text: str, title: str = "") -> None:
        """Somebody's words."""
        self._console.print(_text(title, "bold cyan") + _text(text))

    def pairs(self, rows: Iterable[tuple[str, str]]) -> None:
        """Names with what they mean."""
        table = Table(box=None, show_header=False)
        for name, meaning in rows:
            table.add_row(_text(name), _text(meaning, "dim"))
        self._console.print(table)

    def go_on(self, word: str) -> None:
        """The word with which a thinking goes on; its `stream` follows on the same line."""
        self._console.print(_text(f"{BAR}... {word}", "dim"), end="")

    def stream(self, silent: bool, thinking: bool) -> Stream:
        """One answer to be shown as it comes; for the arguments see `Stream`."""
        return Stream(self._console, silent, thinking)

    def votes(self, judgement: Judgement) -> None:
        """Groups of answers, the most frequent first."""
        table = Table("answer", "votes", box=None, header_style="dim")
        for number, group in enumerate(judgement.groups):
            score = next(reply.score for reply in judgement.replies if reply.group == number)
            mark = "" if score is None else " ✓" if score == 1 else " ✗"
            table.add_row(_text(group.answer + mark), f"{group.count} of {len(judgement.replies)}")
        self._console.print(table)

    def verdict(self, judgement: Judgement) -> None:
        """What the verifier says about the answer that won."""
        score = judgement.replies[judgement.winner].score or 0.0
        if score == 1:
            self._console.print(Text("✓ right", style="green"))
        else:
            words = f"{score:.0%} of what was asked" if score else "✗ wrong"
            self._console.print(Text(words, style="red"), _text(f"a right answer: {judgement.gold}", "dim"))


class Stream:
    """One answer on its way to the screen: thinking dimmed and behind a bar, then the answer.

    Args:
        console: where to write.
        silent: write nothing.
        thinking: the beginning of the thinking is there already.
    """

    def __init__(self, console: Console, silent: bool, thinking: bool) -> None:
        self._console = console
        self._silent = silent
        self._thinking = thinking
        self._said = False

    def add(self, reasoning: str, content: str) -> None:
        """Shows a piece."""
        if self._silent:
            return
        if reasoning:
            opening = "" if self._thinking or self._said else BAR
            self._thinking = True
            self._write(opening + reasoning.replace("\n", f"\n{BAR}"), "dim")
        if content:
            self._write(("\n\n" if self._thinking and not self._said else "") + content, "")
            self._said = True

    def end(self) -> None:
        """Ends the line."""
        if self._thinking or self._said:
            self._write("\n", "")

    def _write(self, text: str, style: str) -> None:
        self._console.print(_text(text, style), end="", soft_wrap=True)
        self._console.file.flush()


def _text(text: str, style: str = "") -> Text:
    return Text(visible(text), style=style)


def visible(text: str) -> str:
    """A model's text without power over the terminal: control characters and such as turn the writing become signs."""
    return "".join(
        character if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs") else "\ufffd"
        for character in text
    )
