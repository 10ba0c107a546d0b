"""The verifier's verdict on what models say to held-out problems, and which answers say the same.

A problem is named by family, level, language and number, and drawn again whenever it is named: nothing is kept between
requests, and no client can say what the right answer is.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from pydantic import BaseModel, Field

from aha.errors import UnknownNameError
from aha.grading.math_answers import MAX_CHARACTERS, boxed, number
from aha.serve.errors import ApiError
from aha.serve.schemas import Name, Strict
from aha.tasks.families import FAMILIES, GENERAL, draw, get_family
from aha.test_time.voting import majority
from aha.text.thinking import final_answer, has_substance
from aha.types import Language, Problem

NUMBERS = 2**31
ANSWER_CHARACTERS = 200
"""An answer to be counted is short."""
_NUMERIC = re.compile(r"(?:\\[dt]?frac|\\[,;:! $%]|[-+−0-9\s.,/$€£¥%*`(){}=])+")
"""What may stand in an answer that is nothing but a number: not the words that make two answers different things."""


class ProblemName(Strict):
    """Which problem."""

    family: Name
    level: int = Field(ge=1, le=99)
    language: Language = "en"
    number: int = Field(0, ge=0, lt=NUMBERS)


class Judged(BaseModel):
    """What one reply says."""

    answer: str | None
    """What it names as the answer; null where it names none."""
    group: int | None
    """Number of the group of equivalent answers that it belongs to."""
    score: float | None
    """How good it is, in [0, 1], where a problem was named."""


class AnswerGroup(BaseModel):
    """Equivalent answers."""

    answer: str
    """As the first of them puts it."""
    count: int


class Judgement(BaseModel):
    """What all replies say together."""

    replies: list[Judged]
    groups: list[AnswerGroup]
    """The most frequent first; of two that are equal the one that was named first."""
    winner: int
    """Number of the first reply of the first group; 0 where no reply names an answer."""
    gold: str | None
    """A right answer, where a problem was named."""


def find_problem(name: ProblemName) -> Problem:
    """The held-out problem of that name.

    Raises:
        ApiError: 404, there is no such family or level, or the level has no held-out problem.
    """
    try:
        family = get_family(name.family)
    except UnknownNameError:
        raise ApiError(404, "there is no such family of problems", "family", "family_not_found") from None
    if name.level not in family.levels:
        levels = ", ".join(map(str, family.levels))
        raise ApiError(404, f"{family.name!r} has the levels {levels}", "level", "level_not_found")
    rng = random.Random(f"page {family.name} {name.level} {name.language} {name.number}")
    try:
        return draw(rng, family, name.level, name.language, held_out=True)
    except LookupError:
        raise ApiError(404, "no held-out problem was found at this level", "level", "level_not_found") from None


def judge(replies: Sequence[str], problem: Problem | None = None) -> Judgement:
    """Groups what replies answer, by the family's equivalence or by value, and scores it where there is a problem."""
    answers = [_answer(reply, problem) for reply in replies]
    votes = [_vote(answer, problem) for answer in answers]
    order = sorted(dict.fromkeys(vote for vote in votes if vote is not None), key=lambda vote: -votes.count(vote))
    chosen = majority(votes)
    return Judgement(
        replies=[
            Judged(
                answer=answer,
                group=None if vote is None else order.index(vote),
                score=None if problem is None else _score(answer, problem),
            )
            for answer, vote in zip(answers, votes, strict=True)
        ],
        groups=[AnswerGroup(answer=answers[votes.index(vote)] or "", count=votes.count(vote)) for vote in order],
        winner=0 if chosen is None else votes.index(chosen),
        gold=None if problem is None else problem.answer,
    )


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


def _answer(reply: str, problem: Problem | None) -> str | None:
    """Reasoning has a named answer; elsewhere the whole reply is the answer."""
    if problem is not None and problem.family in GENERAL:
        return reply.strip() or None
    return named_answer(reply)


def _vote(answer: str | None, problem: Problem | None) -> str | None:
    if answer is None:
        return None
    return canonical(answer) if problem is None else get_family(problem.family).canonical(problem, answer)


def _score(answer: str | None, problem: Problem) -> float:
    if answer is None:
        return 0.0
    if problem.family in GENERAL:
        return GENERAL[problem.family].score(problem, answer)
    return float(FAMILIES[problem.family].verify(problem, answer))
