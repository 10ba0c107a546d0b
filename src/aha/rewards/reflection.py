"""What a thinking says about itself, counted: its verdicts on its own attempts, and whether it gives up.

Nothing here is rewarded. Whether more thinking can help at all depends on the two error rates of the verdicts: where
the share of right attempts that are rejected and that of wrong ones that are accepted add up to more than 1, trying
again makes answers worse (2510.12157).
"""

from __future__ import annotations

from aha.tasks.datasets import judge_of
from aha.tasks.words import GUESS
from aha.text.thinking import Parsed
from aha.types import Problem


def reflection(problem: Problem, parsed: Parsed) -> dict[str, int]:
    """Attempts by what they were and what the thinking made of them, and 1 for `gives_up` where it ends in a guess.

    Empty for a completion that is not well formed.
    """
    if not parsed.well_formed:
        return {}
    verdicts = [step for step in judge_of(problem.family).check_steps(problem, parsed.thinking)
                if step.accepts is not None]  # fmt: skip
    right = [step for step in verdicts if step.accepts == step.true]
    wrong = [step for step in verdicts if step.accepts != step.true]
    return {
        "right_attempts": len(right),
        "right_rejected": sum(not step.accepts for step in right),
        "wrong_attempts": len(wrong),
        "wrong_accepted": sum(bool(step.accepts) for step in wrong),
        "gives_up": int(gives_up(parsed.thinking)),
    }


def gives_up(thinking: str) -> bool:
    """Whether a thinking ends in a guess after some work."""
    lines = [line for line in thinking.splitlines() if line.strip()]
    return len(lines) > 1 and any(guess in lines[-1] for guess in GUESS.values())
