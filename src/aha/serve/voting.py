"""Votes: several samples of one question, and the answer that most of them name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aha.test_time.voting import majority
from aha.text.thinking import final_answer, has_substance

ANSWER_CHARACTERS = 200
"""An answer to be counted is short."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a vote went."""

    winner: int
    """Number of the sample that is shown: the first that named the winning answer."""
    answer: str | None
    count: int
    counts: dict[str, int]


Vote = Callable[[Sequence[str]], Outcome]
"""From the samples' contents, in order, to the one that is shown."""


def named_answer(content: str) -> str | None:
    """The answer that a reply names: after "the answer is", else its last line that says anything."""
    if named := final_answer(content):
        return named[:ANSWER_CHARACTERS]
    lines = [line.strip() for line in content.splitlines() if has_substance(line)]
    return lines[-1].rstrip(".。")[:ANSWER_CHARACTERS] if lines else None


def majority_vote(contents: Sequence[str]) -> Outcome:
    """The most frequent answer; ties go to the one named first. Without any answer the first sample is shown."""
    answers = [named_answer(content) for content in contents]
    chosen = majority(answers)
    counts = dict(Counter(answer for answer in answers if answer is not None).most_common())
    if not isinstance(chosen, str):
        return Outcome(0, None, 0, counts)
    return Outcome(answers.index(chosen), chosen, counts[chosen], counts)
