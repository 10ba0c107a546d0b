"""Step checking: which of the written steps are true. Steps are equations, and the verdicts on what was tried."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aha.grading.expressions import evaluate
from aha.tasks.scribe import WORDS
from aha.types import Step

_EQUATION = r"(?<![0-9+\-*/=.])(?P<left>[0-9]{1,6}(?:[+\-*/][0-9]{1,6})+)=(?P<right>[0-9]{1,9})(?![0-9])"
VERDICTS = {form.strip(): name for name in ("yes", "no", "ok", "wait") for form in WORDS[name].values()}
_VERDICT = "|".join(
    rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])" for word in sorted(VERDICTS, key=lambda word: (-len(word), word))
)
_STEP = re.compile(rf"{_EQUATION}|(?P<verdict>{_VERDICT})", re.ASCII)
MAX_STEPS = 400
"""Steps of one text that are read; the rest is left alone."""


@dataclass(frozen=True, slots=True)
class Equation:
    """A written equation ``left=right``."""

    left: str
    right: int

    @property
    def value(self) -> int | None:
        """What the left side is; None where that is no whole number."""
        try:
            value = evaluate(self.left)[0]
        except ValueError:
            return None
        return int(value) if value.denominator == 1 else None

    @property
    def holds(self) -> bool:
        """Whether both sides are equal."""
        return self.value == self.right


Fits = Callable[[str, Sequence[Equation]], bool | None]
"""Whether an attempt, as it was written, is what the problem asks for; None where that cannot be told."""


def read_steps(thinking: str, fits: Fits = lambda text, equations: None) -> list[Step]:
    """The steps of a text in order, each with whether it is true; at most the first 400.

    An equation is true where both sides are equal. A check's verdict ("ok", "Wait, no.") is on the equations before it
    in its line: "ok" is true where all of them hold, "Wait, no." where the first, which was checked, does not. The
    verdict of a search ("yes", "no") is on the attempt before it, and the problem says whether it fits.
    """
    steps: list[Step] = []
    for number, line in enumerate(thinking.splitlines()):
        equations: list[Equation] = []
        start = 0
        for match in _STEP.finditer(line):
            if len(steps) == MAX_STEPS:
                return steps
            if match["verdict"] is None:
                equations.append(Equation(match["left"], int(match["right"])))
                steps.append(Step(match[0], equations[-1].holds, number))
                continue
            name = VERDICTS[match["verdict"]]
            true = _verdict_is_true(name, line[start : match.start()], equations, fits)
            if true is not None:
                steps.append(Step(match[0], true, number, rejects=name in ("no", "wait")))
            equations, start = [], match.end()
    return steps


def _verdict_is_true(name: str, text: str, equations: Sequence[Equation], fits: Fits) -> bool | None:
    """None where there is nothing that the verdict is on."""
    if name in ("ok", "wait"):
        if not equations:
            return None
        return all(one.holds for one in equations) if name == "ok" else not equations[0].holds
    right = fits(text, equations)
    return None if right is None else right == (name == "yes")


def abandoned(steps: Sequence[Step]) -> tuple[int, int]:
    """Attempts that a thinking rejects and goes on from: (those that were wrong, all)."""
    last = max((step.line for step in steps), default=0)
    rejections = [step for step in steps if step.rejects and step.line < last]
    return sum(step.true for step in rejections), len(rejections)
