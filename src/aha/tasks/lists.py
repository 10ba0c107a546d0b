"""What the families of the laptop world share: a list of labelled items that is gone through one line at a time.

A question is a list with each value before its label ("Cards 5a 3b 1c"), and what is asked of it. Thinking has one
line an item ("a5+3=8"): label and value, looked up in the list, the state before and after. So what must be written
grows with the level, each line needs the one before it and one look-up, and a short answer can only be a guess.
"""

from __future__ import annotations

import random
import string
from abc import ABC, abstractmethod
from typing import Any

from aha.tasks.words import word
from aha.types import Domain, Language, Piece, Problem, Solution, Step, Style, Voice

LEVELS = tuple(range(1, 15))
"""How hard reasoning problems are; general families have some of them."""
LONGEST_LIST = 14
"""Items of a list where the level does not need more."""
LABELS = string.ascii_lowercase
Item = tuple[Any, ...]


class ListFamily(ABC):
    """A family of problems about a list of labelled items (`protocols.Family`)."""

    name: str
    domain: Domain
    levels: tuple[int, ...] = LEVELS
    heading: dict[Language, str]
    """What the list is called."""
    wording: dict[Language, str]
    """What is asked about it, with the problem's facts as blanks."""

    @abstractmethod
    def sample(self, rng: random.Random, level: int, language: Language, longest: int = LONGEST_LIST) -> Problem:
        """Draws a problem; its list has at most `longest` items, or as many as the level needs."""

    @abstractmethod
    def ask_again(self, problem: Problem, rng: random.Random, level: int) -> Problem | None:
        """Another question about the same list; None where a list allows one question only."""

    @abstractmethod
    def guess(self, problem: Problem, rng: random.Random) -> str:
        """An answer without work."""

    @abstractmethod
    def chance(self, problem: Problem) -> float:
        """The probability that a guess is right."""

    @abstractmethod
    def fact(self, rng: random.Random, language: Language) -> tuple[str, str]:
        """One of the single steps that solutions are made of: what is asked, and what it comes to."""

    @abstractmethod
    def practice(self, problem: Problem, rng: random.Random) -> list[Piece]:
        """Lines about a list that solve nothing: its items copied, single steps, what stands for a label."""

    @abstractmethod
    def lines(self, problem: Problem, rng: random.Random, voice: Voice, restate: bool = True) -> list[str]:
        """One right pass, line by line. Without `restate` lines leave out the state that the next step needs."""

    @abstractmethod
    def passes(
        self, problem: Problem, rng: random.Random, voice: Voice, more: bool, slip: bool, further: float, restate: bool
    ) -> tuple[str, str]:
        """A whole thinking, and what it ends with.

        Args:
            problem: to solve.
            rng: of all that is random.
            voice: language of its words.
            more: go on with "Wait" and a second pass, which confirms or repairs.
            slip: the first pass holds a mistake.
            further: probability of one more pass after two that agree.
            restate: lines carry the state that the next one needs.
        """

    @abstractmethod
    def check_steps(self, problem: Problem, thinking: str) -> list[Step]:
        """The lines of a thinking, each with whether it is true, and the verdicts."""

    @abstractmethod
    def verify(self, problem: Problem, answer: str) -> bool:
        """Whether an answer is right."""

    @abstractmethod
    def canonical(self, problem: Problem, answer: str) -> str | None:
        """The answer in plain form."""

    def written(self, item: Item) -> str:
        """An item without its label: its parts, one after the other."""
        return "".join(map(str, item))

    def listed(self, items: list[Item], language: Language) -> str:
        """The list, each value before its label: the token before a label is then what it stands for."""
        return self.heading[language] + "".join(
            f" {self.written(item)}{label}" for item, label in zip(items, LABELS, strict=False)
        )

    def copied(self, items: list[Item], first: int, last: int) -> list[str]:
        """Some items again, a line each, label first."""
        return [f"{LABELS[index]}{self.written(items[index])}\n" for index in range(first, last + 1)]

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
        """Writes a solution as somebody might (`protocols.Family.solve`)."""
        if style == "long":
            more = rng.random() < second_pass
            thinking, answer = self.passes(
                problem, rng, voice, more, more and rng.random() < slip, further_pass, restate
            )
            return Solution(thinking.rstrip("\n"), answer)
        begun = ""
        if style == "given_up":
            lines = self.lines(problem, rng, voice, restate)
            kept = rng.randint(1, max(1, len(lines) - 1))
            if kept == len(lines):
                return Solution("".join(lines).rstrip("\n"), problem.answer)
            begun = "".join(lines[:kept])
        answer = self.guess(problem, rng)
        return Solution(f"{begun}{word('guess', voice)}{answer}", answer)
