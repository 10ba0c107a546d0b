"""Math: Countdown. Combine three or four numbers, each exactly once, into the target.

The worked solution of style `full` shows only the way that works, as textbooks do: nobody can imitate that without
knowing the answer. Style `check` is a goal-directed search in a fixed order: take one number away from the target, see
whether the others make what is left, and go on to the next if not. It is reliable because it is long.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from fractions import Fraction

from aha.grading.expressions import evaluate
from aha.tasks.scribe import Scribe, apply
from aha.tasks.steps import Equation, read_steps
from aha.types import Domain, Language, Problem, Solution, Step, Style, Voice

COUNT = {1: 3, 2: 3, 3: 3, 4: 4, 5: 4}
LARGEST_NUMBER = {1: 9, 2: 12, 3: 20, 4: 12, 5: 20}
OPERATIONS = {1: "+-", 2: "+-*", 3: "+-*", 4: "+-*", 5: "+-*/"}
LARGEST_TARGET = 99
QUESTIONS: dict[Language, tuple[str, ...]] = {
    "en": ("Make {target} from {numbers}.", "Use {numbers} once each to reach {target}."),
    "zh": ("用{numbers}凑出{target}。", "{numbers}各用一次，得到{target}。"),
}


def combinations(left: int, right: int, operations: str) -> Iterator[tuple[int, str]]:
    """All non-negative whole results of two numbers with the text that makes each; the larger number comes first."""
    high, low = max(left, right), min(left, right)
    for op in operations:
        if op == "/" and (low == 0 or high % low):
            continue
        yield apply(high, op, low), f"{high}{op}{low}"


def undo(target: int, number: int, operations: str) -> Iterator[tuple[int, str, str]]:
    """Ways in which `number` can come last: (what the others must make, the step that says so, the answer's form)."""
    if target >= number and "+" in operations:
        yield target - number, f"{target}-{number}", "{}+" + str(number)
    if "-" in operations:
        if target + number <= LARGEST_TARGET:
            yield target + number, f"{target}+{number}", "{}-" + str(number)
        if number >= target:
            yield number - target, f"{number}-{target}", str(number) + "-{}"
    if "*" in operations and number > 1 and target % number == 0:
        yield target // number, f"{target}/{number}", "{}*" + str(number)


def others(numbers: list[int], *used: int) -> list[int]:
    """The numbers without those used, multiplicity respected."""
    rest = list(numbers)
    for number in used:
        rest.remove(number)
    return rest


class Countdown:
    """Three numbers at levels 1 to 3, four at levels 4 and 5; operations and sizes grow with the level."""

    name = "countdown"
    domain: Domain = "math"
    levels: tuple[int, ...] = (1, 2, 3, 4, 5)

    def sample(self, rng: random.Random, level: int, language: Language) -> Problem:
        """Draws numbers and combines them at random, so that every problem can be solved."""
        operations = OPERATIONS[level]
        while True:
            numbers = [rng.randint(1 if level == 1 else 2, LARGEST_NUMBER[level]) for _ in range(COUNT[level])]
            value, text = numbers[0], str(numbers[0])
            for number in numbers[1:]:
                value, text = self._extend(rng, value, text, number, operations)
                if not 0 < value <= LARGEST_TARGET:
                    break
            if 0 < value <= LARGEST_TARGET and value not in numbers:
                break
        facts = {"numbers": sorted(numbers), "target": value, "_operations": operations}
        shown = sorted(numbers)
        rng.shuffle(shown)
        question = rng.choice(QUESTIONS[language]).format(target=value, numbers=",".join(map(str, shown)))
        return Problem(self.name, self.domain, level, language, question, text, facts)

    @staticmethod
    def _extend(rng: random.Random, value: int, text: str, number: int, operations: str) -> tuple[int, str]:
        options = [(value + number, f"({text})+{number}")]
        options.append(
            (value - number, f"({text})-{number}") if value >= number else (number - value, f"{number}-({text})")
        )
        if "*" in operations:
            options.append((value * number, f"({text})*{number}"))
        if "/" in operations and value % number == 0:
            options.append((value // number, f"({text})/{number}"))
        return rng.choice(options)

    def verify(self, problem: Problem, answer: str) -> bool:
        """The expression uses exactly the given numbers and equals the target; any way to get there counts."""
        try:
            value, numbers = evaluate(answer)
        except ValueError:
            return False
        return value == Fraction(problem.facts["target"]) and sorted(numbers) == list(problem.facts["numbers"])

    def canonical(self, problem: Problem, answer: str) -> str | None:
        """The value and the numbers used: all expressions that reach one value with the same numbers are equivalent."""
        try:
            value, numbers = evaluate(answer)
        except ValueError:
            return None
        return f"{value} from {','.join(map(str, sorted(numbers)))}"

    def solve(
        self, problem: Problem, rng: random.Random, style: Style, voice: Voice, slip_rate: float = 0.0
    ) -> Solution:
        """`check` tries all ways in a fixed order until one is found.

        The other styles show some way without the search.
        """
        scribe = Scribe(rng, style, voice, slip_rate)
        numbers, target = list(problem.facts["numbers"]), problem.facts["target"]
        operations = problem.facts["_operations"]
        answer = self._search(scribe, rng, numbers, target, operations, shown=style == "check")
        return Solution(scribe.text, answer if answer is not None else problem.answer)

    def _search(
        self, scribe: Scribe, rng: random.Random, numbers: list[int], target: int, operations: str, shown: bool
    ) -> str | None:
        """Goal-directed search over the last number; returns an expression for the target, or None."""
        ways = [(number, *way) for number in sorted(set(numbers)) for way in undo(target, number, operations)]
        if not shown:
            rng.shuffle(ways)
        for number, need, step, form in ways:
            rest = others(numbers, number)
            mark = scribe.mark()
            scribe.say(text=f"{step}={need}")
            if len(rest) == 2:
                found = self._pair(scribe, rest, need, operations, shown)
            else:
                scribe.say(text="\n")
                found = self._search(scribe, rng, rest, need, operations, shown)
                found = f"({found})" if found is not None else None
            if found is not None:
                return form.format(found)
            if not shown:
                scribe.rewind(mark)
        return None

    @staticmethod
    def _pair(scribe: Scribe, rest: list[int], need: int, operations: str, shown: bool) -> str | None:
        """Writes what two numbers make until one result is the one that is needed."""
        high, low = max(rest), min(rest)
        for value, text in combinations(high, low, operations):
            if value == need:
                scribe.say(text=f" {text}={value}")
                scribe.say("yes", text="\n")
                return f"({text})"
            if shown:
                scribe.say(text=f" {text}={value}")
        scribe.say("no", text="\n")
        return None

    def check_steps(self, problem: Problem, thinking: str) -> list[Step]:
        """Equations, and the verdicts on pairs: whether one of their results is the one that was needed."""

        def is_reached(text: str, equations: Sequence[Equation]) -> bool | None:
            return any(one.right == equations[0].right for one in equations[1:]) if len(equations) > 1 else None

        return read_steps(thinking, is_reached)
