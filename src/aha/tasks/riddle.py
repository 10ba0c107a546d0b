"""Logic: number riddles. Clues leave exactly one number; it is found by elimination.

Style `check` goes through the candidates of the first clue in order and rejects each by the clue it breaks; `full`
shows only the number that fits and why, as a textbook would; `brief` names it. Guessing is hard and eliminating is
easy.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from aha.tasks.integer_answers import IntegerAnswers
from aha.tasks.scribe import Scribe
from aha.tasks.steps import Equation, read_steps
from aha.types import Domain, Language, Problem, Solution, Step, Style, Voice

QUESTIONS: dict[Language, str] = {
    "en": "A multiple of {step} from {low} to {high}{rest}, digit sum {digits}. Which number?",
    "zh": "{low}到{high}中{step}的倍数{rest}，数字和{digits}。是几？",
}
REMAINDERS: dict[Language, str] = {"en": ", {r} more than a multiple of {m}", "zh": "，比{m}的倍数多{r}"}
STEPS = {1: (3, 9), 2: (3, 9), 3: (3, 9), 4: (2, 12), 5: (2, 12)}
LARGEST = {1: 99, 2: 199, 3: 299, 4: 299, 5: 599}
SPANS = {1: 6, 2: 8, 3: 8, 4: 12, 5: 16}
"""Candidates that the first clue leaves, at most."""


def digit_sum(number: int) -> int:
    """Sum of the decimal digits."""
    return sum(map(int, str(number)))


class Riddle(IntegerAnswers):
    """A multiple in a range with a digit sum; from level 4 also a remainder."""

    name = "riddle"
    domain: Domain = "logic"
    levels: tuple[int, ...] = (1, 2, 3, 4, 5)

    def sample(self, rng: random.Random, level: int, language: Language) -> Problem:
        """Draws clues until exactly one number fits."""
        while True:
            step = rng.randint(*STEPS[level])
            first = rng.randint(2, LARGEST[level] // step) * step
            count = rng.randint(3, SPANS[level])
            candidates = [n for n in range(first, first + count * step, step) if 10 <= n <= LARGEST[level]]
            if len(candidates) < 3:
                continue
            number = rng.choice(candidates)
            facts: dict[str, int] = {
                "step": step,
                "first": candidates[0],
                "last": candidates[-1],
                "digits": digit_sum(number),
            }
            low, high = candidates[0] - rng.randint(0, step - 1), candidates[-1] + rng.randint(0, step - 1)
            if level >= 4:
                facts["m"] = rng.choice([m for m in range(3, 8) if m != step])
                facts["r"] = number % facts["m"]
            if len([n for n in candidates if fits(n, facts)]) == 1:
                break
        rest = REMAINDERS[language].format(**facts) if "m" in facts else ""
        question = QUESTIONS[language].format(rest=rest, low=low, high=high, **facts)
        return Problem(self.name, self.domain, level, language, question, str(number), facts)

    def solve(
        self, problem: Problem, rng: random.Random, style: Style, voice: Voice, slip_rate: float = 0.0
    ) -> Solution:
        """Eliminates in order, or shows only the number that fits.

        A slip takes a neighbouring candidate; the search makes none, since it tests each.
        """
        scribe = Scribe(rng, style, voice, slip_rate)
        facts, number = problem.facts, int(problem.answer)
        if style != "check":
            if rng.random() < slip_rate:
                number += facts["step"] if rng.random() < 0.5 or number - facts["step"] < 10 else -facts["step"]
            self._examine(scribe, number, facts, style == "brief")
            scribe.say("yes")
            return Solution(scribe.text, str(number))
        candidate = facts["first"]
        while True:
            if self._examine(scribe, candidate, facts, brief=False):
                scribe.say("yes", text="\n")
                return Solution(scribe.text, str(candidate))
            scribe.say("no", text="\n")
            candidate += facts["step"]

    @staticmethod
    def _examine(scribe: Scribe, number: int, facts: Mapping[str, Any], brief: bool) -> bool:
        """Writes what the clues say of a candidate, up to the first that it breaks."""
        scribe.say(text=f"{number}:")
        if brief:
            return True
        scribe.say(text=f"{'+'.join(str(number))}={digit_sum(number)}")
        if digit_sum(number) != facts["digits"]:
            return False
        if "m" in facts:
            quotient, rest = divmod(number, facts["m"])
            scribe.say(text=f",{quotient}*{facts['m']}+{rest}={number}")
            return bool(rest == facts["r"])
        return True

    def check_steps(self, problem: Problem, thinking: str) -> list[Step]:
        """Equations, and the verdicts on candidates: whether each satisfies the clues."""
        facts = problem.facts

        def is_the_number(text: str, equations: Sequence[Equation]) -> bool | None:
            candidate = re.match(r"\s*([0-9]{1,9}):", text, re.ASCII)
            if candidate is None:
                return None
            number = int(candidate[1])
            return number in range(facts["first"], facts["last"] + 1, facts["step"]) and fits(number, facts)

        return read_steps(thinking, is_the_number)


def fits(number: int, facts: Mapping[str, Any]) -> bool:
    """Whether a multiple within the range satisfies the other clues."""
    return digit_sum(number) == facts["digits"] and ("m" not in facts or number % facts["m"] == facts["r"])
