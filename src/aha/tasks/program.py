"""Code: write a small program from examples and a description; it is judged by running it on hidden inputs."""

from __future__ import annotations

import random
from collections.abc import Sequence

from aha.grading.interpreter import Program as Instructions
from aha.grading.interpreter import format_program, parse_program, run_program
from aha.tasks.scribe import Scribe
from aha.tasks.steps import Equation, read_steps
from aha.types import Domain, Language, Problem, Solution, Step, Style, Voice

HIDDEN_INPUTS = (0, 1, 2, 3, 5, 8, 13, 21, 34, 100)
DESCRIPTIONS: dict[str, dict[Language, str]] = {
    "one": {"en": "one step", "zh": "一步"},
    "mul+add": {"en": "multiply, then add", "zh": "先乘后加"},
    "mul+any": {"en": "multiply, then add or subtract", "zh": "先乘后加减"},
}
QUESTIONS: dict[Language, tuple[str, ...]] = {
    "en": ("Write a program: {what}. {examples}", "Program wanted, {what}: {examples}"),
    "zh": ("写程序：{what}。{examples}", "求程序，{what}：{examples}"),
}


class Program:
    """Level 1: one instruction of an unknown kind. Levels 2 to 5: a line.

    A line y = m x ± b with less said and larger numbers.
    """

    name = "program"
    domain: Domain = "code"
    levels: tuple[int, ...] = (1, 2, 3, 4, 5)

    def sample(self, rng: random.Random, level: int, language: Language) -> Problem:
        """Draws a program and two examples of what it does."""
        kind = {1: "one", 2: "mul+add"}.get(level, "mul+any")
        while True:
            program, inputs = self._draw(rng, level)
            examples = [[x, run_program(program, x)] for x in inputs]
            if all(0 <= y <= (99 if level <= 3 else 999) for _, y in examples) and examples[0][1] != examples[1][1]:
                break
        shown = "; ".join(f"{x}->{y}" for x, y in examples)
        question = rng.choice(QUESTIONS[language]).format(what=DESCRIPTIONS[kind][language], examples=shown)
        facts = {
            "examples": sorted(examples),
            "_examples": examples,
            "_kind": kind,
            "_program": [list(step) for step in program],
        }
        return Problem(self.name, self.domain, level, language, question, format_program(program), facts)

    @staticmethod
    def _draw(rng: random.Random, level: int) -> tuple[Instructions, list[int]]:
        if level == 1:
            kind = rng.choice(("add", "sub", "mul"))
            number = rng.randint(2, 9) if kind == "mul" else rng.randint(1, 30)
            return [(kind, number)], rng.sample(range(1, 11 if kind == "mul" else 40), 2)
        second = "add" if level == 2 else rng.choice(("add", "sub"))
        largest_slope, largest_input, largest_step = {2: (9, 9, 1), 3: (9, 9, 3), 4: (12, 20, 4), 5: (19, 40, 9)}[level]
        first = rng.randint(1, largest_input)
        inputs = [first, first + rng.randint(1, largest_step)]
        return [("mul", rng.randint(2, largest_slope)), (second, rng.randint(1, 20 if level <= 3 else 60))], inputs

    def verify(self, problem: Problem, answer: str) -> bool:
        """Runs the answer on the examples and on hidden inputs beside the program that made them."""
        try:
            program = parse_program(answer)
        except ValueError:
            return False
        truth: Instructions = [(str(name), int(number)) for name, number in problem.facts["_program"]]
        return all(run_program(program, x) == run_program(truth, x) for x in self._inputs(problem))

    @staticmethod
    def _inputs(problem: Problem) -> tuple[int, ...]:
        """What programs are run on: the hidden inputs and those of the examples."""
        return (*HIDDEN_INPUTS, *(x for x, _ in problem.facts["examples"]))

    def canonical(self, problem: Problem, answer: str) -> str | None:
        """What the program does to the examples' and the hidden inputs: however it is written, that is what counts."""
        try:
            program = parse_program(answer)
        except ValueError:
            return None
        return ",".join(str(run_program(program, x)) for x in self._inputs(problem))

    def solve(
        self, problem: Problem, rng: random.Random, style: Style, voice: Voice, slip_rate: float = 0.0
    ) -> Solution:
        """One instruction: try the kinds in order against the second example.

        A line: slope from two examples, then the rest.
        """
        scribe = Scribe(rng, style, voice, slip_rate)
        (x1, y1), (x2, y2) = problem.facts["_examples"]
        if problem.facts["_kind"] == "one":
            answer = self._one(scribe, problem, x1, y1, x2, y2)
        else:
            answer = self._line(scribe, style, problem, x1, y1, x2, y2)
        return Solution(scribe.text, answer)

    @staticmethod
    def _one(scribe: Scribe, problem: Problem, x1: int, y1: int, x2: int, y2: int) -> str:
        true_kind = problem.facts["_program"][0][0]
        ways = [("add", "+", "-", y1 - x1), ("sub", "-", "", x1 - y1)]
        if y1 % x1 == 0:
            ways.append(("mul", "*", "/", y1 // x1))
        ways = [way for way in ways if way[3] > 0 and not (way[0] == "sub" and x2 < way[3])]
        if scribe.style != "check":
            ways = [way for way in ways if way[0] == true_kind]
        for kind, op, back, number in ways:
            step = f"{y1}{back}{x1}={number}" if back else f"{x1}-{y1}={number}"
            result = x2 + number if op == "+" else x2 - number if op == "-" else x2 * number
            scribe.say("try", text=f"{kind}: {step}")
            if scribe.style == "check":
                scribe.say("check", text=f"{x2}{op}{number}={result}")
                scribe.say("yes" if result == y2 else "no", text="\n")
            if scribe.style != "check" or result == y2:
                return f"{kind} {number}"
        raise AssertionError("the true kind is among the ways")

    @staticmethod
    def _line(scribe: Scribe, style: Style, problem: Problem, x1: int, y1: int, x2: int, y2: int) -> str:
        rise = scribe.compute(y2, "-", y1) if style != "brief" else y2 - y1
        run = x2 - x1
        if run > 1 and rise % run == 0:
            if style != "brief":
                scribe.say(text=f"{x2}-{x1}={run}\n")
            slope = scribe.compute(rise, "/", run)
        else:
            slope = max(1, rise // run)
        scribe.say("slope", text=f"{slope}\n")
        product = scribe.compute(x1, "*", slope) if style != "brief" else x1 * slope
        if product <= y1:
            tail = ("add", scribe.compute(y1, "-", product))
        else:
            tail = ("sub", scribe.compute(product, "-", y1))
        if style == "check":
            whole = scribe.compute(x2, "*", slope)
            op = "+" if tail[0] == "add" else "-"
            scribe.say("check", text=f"{whole}{op}{tail[1]}={y2}")
            scribe.say("yes", text="\n")
        return format_program([("mul", slope)] if tail[1] == 0 else [("mul", slope), tail])

    def check_steps(self, problem: Problem, thinking: str) -> list[Step]:
        """Equations, and the verdicts on programs: whether the last equation before each is the second example."""
        _, (_, wanted) = problem.facts["_examples"]

        def explains(text: str, equations: Sequence[Equation]) -> bool | None:
            return equations[-1].value == wanted if len(equations) > 1 else None

        return read_steps(thinking, explains)
