"""Families whose answers are plain integers."""

from __future__ import annotations

from aha.types import Problem

MAX_DIGITS = 9


def integer(text: str) -> int | None:
    """Reads a plain non-negative integer of at most nine digits (surrounding space allowed), or returns None."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None


class IntegerAnswers:
    """How plain integers are judged, and how they vote."""

    def verify(self, problem: Problem, answer: str) -> bool:
        """Equality of plain integers."""
        return integer(answer) == int(problem.answer)

    def canonical(self, problem: Problem, answer: str) -> str | None:
        """The integer in plain digits."""
        number = integer(answer)
        return None if number is None else str(number)
