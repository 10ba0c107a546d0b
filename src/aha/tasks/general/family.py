"""What all general families share: the score decides what is right, and a solution is a thought and a response."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod

from aha.tasks.general.lexicon import Word
from aha.types import Domain, Language, Problem, Solution, Step, Style, Voice


class ScoredFamily(ABC):
    """A family whose answers the world scores (`protocols.GeneralFamily`)."""

    name: str
    kind: Word
    """What a request of the family is called."""
    domain: Domain = "general"
    levels: tuple[int, ...]

    @abstractmethod
    def sample(self, rng: random.Random, level: int, language: Language) -> Problem:
        """Draws a problem."""

    @abstractmethod
    def score(self, problem: Problem, response: str) -> float:
        """How good a response is, in [0, 1]. Never raises."""

    def think(self, problem: Problem) -> str:
        """What kind of request it is, in a word or two: there is little to work out, but the form wants a thought."""
        return self.kind.within(problem.language)

    @abstractmethod
    def respond(self, problem: Problem, rng: random.Random, quality: float = 1.0) -> str:
        """A response; with probability 1 - `quality` a careless one."""

    def verify(self, problem: Problem, answer: str) -> bool:
        """A perfect score."""
        return self.score(problem, answer) == 1.0

    def canonical(self, problem: Problem, answer: str) -> str | None:
        """The text itself, without the space around it: of answers like these no two that differ are the same."""
        return answer.strip() or None

    def solve(
        self,
        problem: Problem,
        rng: random.Random,
        style: Style,
        voice: Voice,
        second_pass: float = 0.0,
        slip: float = 0.0,
        further_pass: float = 0.0,
        restate: bool = True,
    ) -> Solution:
        """The thought, and a response: a careless one for a guess."""
        return Solution(self.think(problem), self.respond(problem, rng, 0.0 if style == "guess" else 1.0))

    def check_steps(self, problem: Problem, thinking: str) -> list[Step]:
        """There are no steps to check."""
        return []
