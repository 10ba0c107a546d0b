"""Votes: several samples of one question, and the answer that most of them name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aha.grading.math_answers import MAX_CHARACTERS, boxed, number
from aha.test_time.voting import majority
from aha.text.thinking import final_answer, has_substance

ANSWER_CHARACTERS = 200
"""An answer to be counted is short."""
_NUMERIC = re.compile(r"(?:\\[dt]?frac|\\[,;:! $%]|[-+−0-9\s.,/$€£¥%*`(){}=])+")
"""What may stand in an answer that is nothing but a number: not the words that make two answers different things."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a vote went."""

    winner: int
    """Number of the sample that is shown: the first that named the winning answer."""
    answer: str | None
    """As the winner puts it."""
    count: int
    counts: dict[str, int]
    """Of every answer, as the first that named it puts it, the most frequent first."""


Vote = Callable[[Sequence[str]], Outcome]
"""From the samples' contents, in order, to the one that is shown."""


def named_answer(content: str) -> str | None:
    r"""The answer that a reply names: after "the answer is", else in its last `\boxed{}`, else its last line.

    A box after "the answer is" is opened too. A line that says nothing, without a letter or a digit, is none.
    """
    if named := final_answer(content) or _last_box(content):
        return (_last_box(named) or named)[:ANSWER_CHARACTERS]
    lines = [line.strip() for line in content.splitlines() if has_substance(line)]
    return lines[-1].rstrip(".。")[:ANSWER_CHARACTERS] if lines else None


def _last_box(text: str) -> str:
    start = max(text.rfind(r"\boxed"), text.rfind(r"\fbox"))
    return next(reversed(boxed(text[start : start + MAX_CHARACTERS])), "") if start >= 0 else ""


def canonical(answer: str) -> str:
    r"""What an answer to a free question counts as: a number by its value (0.5, 1/2, \frac{1}{2}), else its text."""
    value = number(answer) if _NUMERIC.fullmatch(answer) else None
    return answer if value is None else str(value)


def majority_vote(contents: Sequence[str]) -> Outcome:
    """The most frequent answer; ties go to the one named first. Without any answer the first sample is shown."""
    answers = [named_answer(content) for content in contents]
    votes = [None if answer is None else canonical(answer) for answer in answers]
    spelled = {vote: answer for vote, answer in reversed(list(zip(votes, answers, strict=True))) if answer is not None}
    ordered = Counter(vote for vote in votes if vote is not None).most_common()
    counts = {spelled[vote]: count for vote, count in ordered}
    chosen = majority(votes)
    if chosen is None:
        return Outcome(0, None, 0, counts)
    return Outcome(votes.index(chosen), spelled[chosen], counts[spelled[chosen]], counts)
