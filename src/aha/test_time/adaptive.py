"""An adaptive vote: a fixed total of tokens goes where the vote is most in doubt, so harder questions get more.

R1 supplement E.4 shows a trained model spending more on harder questions within one thought. A vote over a fixed number
of samples cannot: it pays as much for 1+1. Here every question gets a few samples, and then the one whose vote is most
in doubt per sample drawn gets the next, until the total is spent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from aha.test_time.voting import doubt


class Drawn(Protocol):
    """A sample as the allocator sees it."""

    @property
    def vote(self) -> str | None:
        """The answer in canonical form, or None."""
        ...

    @property
    def tokens(self) -> int:
        """What it cost."""
        ...


D = TypeVar("D", bound=Drawn)
Draw = Callable[[Sequence[int], int], Sequence[D]]
"""Draws one more sample of each of the questions (by index), of at most so many tokens each."""


def allocate(
    draw: Draw[D],
    questions: int,
    total: int,
    limit: int,
    first: int = 2,
    most: int | None = None,
    at_once: int | None = None,
) -> list[list[D]]:
    """Spends a total of tokens on questions. It is never exceeded: what might not fit is not drawn together.

    Args:
        draw: where samples come from.
        questions: how many there are.
        total: tokens for all of them together. When less than `limit` is left, a sample may use what is left, and if
            that cuts it off it has been paid for all the same.
        limit: tokens that one sample can cost.
        first: samples that every question gets before any gets more.
        most: samples that a question can get; None for any number.
        at_once: questions that are drawn for together after that (an engine likes many, the allocation few); by
            default an eighth of them.

    Returns:
        The samples of each question, in the order they were drawn.

    Raises:
        ValueError: a number that makes no sense.
    """
    if total < 0 or limit < 1 or first < 1 or (most is not None and most < 1):
        raise ValueError(f"total={total}, limit={limit}, first={first}, most={most}: expected at least 0, 1, 1 and 1")
    width = at_once or max(1, questions // 8)
    drawn: list[list[D]] = [[] for _ in range(questions)]
    urgency = [0.0] * questions
    left = total
    while left > 0:
        able = [q for q in range(questions) if most is None or len(drawn[q]) < most]
        new = sorted((q for q in able if len(drawn[q]) < first), key=lambda q: len(drawn[q]))
        ranked = new or sorted(able, key=lambda q: -urgency[q])[:width]
        chosen = ranked[: max(1, left // limit)]
        if not chosen:
            break
        for question, one in zip(chosen, draw(chosen, min(limit, left)), strict=True):
            drawn[question].append(one)
            left -= one.tokens
            votes = [other.vote for other in drawn[question]]
            urgency[question] = doubt(votes) / len(votes)
    return drawn
