"""Families whose answers are plain integers."""

from __future__ import annotations

from aha.grading.expressions import integer
from aha.types import Problem


class IntegerAnswers:
    """How plain integers are judged, and how they vote."""

    def verify(self, problem: Problem, answer: str) -> bool:
        """Equality of plain integers."""
        return integer(answer) == int(problem.answer)

    def canonical(self, problem: Problem, answer: str) -> str | None:
        """The integer in plain digits."""
        number = integer(answer)
        return None if number is None else str(number)
