"""Math: chains of additions and subtractions, opened by a product at the higher levels, worked from left to right."""

from __future__ import annotations

import random
from collections.abc import Sequence

from aha.tasks.integer_answers import IntegerAnswers
from aha.tasks.scribe import Scribe, apply
from aha.tasks.steps import read_steps
from aha.types import Domain, Language, Problem, Solution, Step, Style, Voice

TERMS = {1: 3, 2: 4, 3: 5, 4: 7, 5: 9}
LARGEST_TERM = 20
LARGEST_RESULT = 99
QUESTIONS: dict[Language, tuple[str, ...]] = {
    "en": ("What is {}?", "Compute {}.", "Find the value of {}."),
    "zh": ("计算{}。", "{}等于多少？", "求{}的值。"),
}


def canonical_sum(terms: Sequence[int], ops: Sequence[str]) -> dict[str, list[int]]:
    """A chain whatever the order of its terms: what is added and taken away, and the product that it opens with."""
    opens = 2 if ops and ops[0] == "*" else 1
    rest = [term if op == "+" else -term for op, term in zip(ops[opens - 1 :], terms[opens:], strict=True)]
    return {"product": sorted(terms[:2]), "sum": sorted(rest)} if opens == 2 else {"sum": sorted([terms[0], *rest])}


class Arithmetic(IntegerAnswers):
    """Chains of `TERMS[level]` numbers whose running result stays within 0 and 99."""

    name = "arithmetic"
    domain: Domain = "math"
    levels: tuple[int, ...] = (1, 2, 3, 4, 5)

    def sample(self, rng: random.Random, level: int, language: Language) -> Problem:
        """Draws a chain; from level 2 half of them open with a product."""
        terms = [rng.randint(1, LARGEST_TERM)]
        ops: list[str] = []
        value = terms[0]
        if level >= 2 and rng.random() < 0.5:
            terms = [rng.randint(2, 9), rng.randint(2, 9)]
            ops = ["*"]
            value = terms[0] * terms[1]
        while len(terms) < TERMS[level]:
            term = rng.randint(1, LARGEST_TERM)
            choices = [op for op in "+-" if 0 <= apply(value, op, term) <= LARGEST_RESULT]
            op = rng.choice(choices)
            terms.append(term)
            ops.append(op)
            value = apply(value, op, term)
        expression = str(terms[0]) + "".join(f"{op}{term}" for op, term in zip(ops, terms[1:], strict=True))
        question = rng.choice(QUESTIONS[language]).format(expression)
        facts = {**canonical_sum(terms, ops), "_terms": terms, "_ops": "".join(ops)}
        return Problem(self.name, self.domain, level, language, question, str(value), facts)

    def solve(
        self, problem: Problem, rng: random.Random, style: Style, voice: Voice, slip_rate: float = 0.0
    ) -> Solution:
        """Works from left to right; `brief` takes two operations a line."""
        scribe = Scribe(rng, style, voice, slip_rate)
        terms, ops = problem.facts["_terms"], problem.facts["_ops"]
        value, at = terms[0], 0
        while at < len(ops):
            if style == "brief" and at + 1 < len(ops):
                written = f"{value}{ops[at]}{terms[at + 1]}{ops[at + 1]}{terms[at + 2]}"
                true = apply(apply(value, ops[at], terms[at + 1]), ops[at + 1], terms[at + 2])
                value = scribe.slip(true, "+", 0) if rng.random() < slip_rate else true
                scribe.say(text=f"{written}={value}\n")
                at += 2
            else:
                value = scribe.compute(value, ops[at], terms[at + 1])
                at += 1
        return Solution(scribe.text, str(value))

    def check_steps(self, problem: Problem, thinking: str) -> list[Step]:
        """Equations, and what checks say of them."""
        return read_steps(thinking)
