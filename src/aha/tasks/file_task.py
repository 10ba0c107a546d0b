"""What tasks that are read from files have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aha.text.language import language_of
from aha.types import Domain, Problem, Solution, Step

BOXED = r"Think step by step, and put your final answer in \boxed{}."


class FileTask:
    """A task with one level, whose answers are judged without further ado. Subclasses say the rest."""

    name: str
    domain: Domain = "math"
    files: Mapping[str, str]
    hub: str = ""
    needs_problem: bool = False
    instruction: str = BOXED

    def _problem(self, question: str, answer: str, facts: Mapping[str, Any], level: int = 1) -> Problem:
        return Problem(self.name, self.domain, level, language_of(question), question, answer, facts)

    def prepare(self) -> None:
        """Nothing is needed."""

    def check_steps(self, problem: Problem, thinking: str) -> list[Step]:
        """Nobody checks the steps of such solutions."""
        return []

    def gold(self, problem: Problem) -> str | None:
        """The answer, if one is known."""
        return problem.answer or None

    def solution(self, problem: Problem) -> Solution | None:
        """What the row tells, if it tells any."""
        thinking, answer = problem.facts.get("_solution"), self.gold(problem)
        return Solution(thinking, answer) if thinking and answer else None

    def close(self) -> None:
        """Nothing is held."""
