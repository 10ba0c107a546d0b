"""Example problems for the page, and the verifier's verdict on what models say to them.

A problem is named by family, level, language and number, and drawn again whenever it is named: nothing is kept between
requests, and no client can say what the right answer is.
"""

from __future__ import annotations

import asyncio
import random
from typing import Annotated

from pydantic import BaseModel, Field
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from aha.errors import UnknownNameError
from aha.serve.body import read_body
from aha.serve.config import ServeConfig
from aha.serve.errors import ApiError
from aha.serve.schemas import MAX_VOTES, Name, Strict, read
from aha.serve.sse import json_response
from aha.serve.voting import named_answer
from aha.tasks.families import FAMILIES, GENERAL, draw, get_family
from aha.test_time.budget_forcing import WAIT
from aha.test_time.voting import majority
from aha.types import Language, Problem

NUMBERS = 2**31


class ProblemName(Strict):
    """Which problem: POST /api/problem, and the one that answers are judged by."""

    family: Name
    level: int = Field(ge=1, le=9)
    language: Language = "en"
    number: int = Field(0, ge=0, lt=NUMBERS)


class JudgeRequest(Strict):
    """POST /api/judge: what replies say, without their thinking."""

    problem: ProblemName | None = None
    replies: Annotated[list[str], Field(min_length=1, max_length=MAX_VOTES)]


class FamilyCard(BaseModel):
    """A family of problems."""

    name: str
    domain: str
    levels: list[int]


class PageFacts(BaseModel):
    """The answer of GET /api/page: what the page does not know by itself."""

    families: list[FamilyCard]
    wait: dict[Language, str] = WAIT
    """What takes the place of the end of a thinking that is to go on."""


class ProblemCard(BaseModel):
    """A held-out problem, without its answer."""

    question: str
    domain: str


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
    """The answer of POST /api/judge."""

    replies: list[Judged]
    groups: list[AnswerGroup]
    """The most frequent first; of two that are equal the one that was named first."""
    winner: int
    """Number of the first reply of the first group; 0 where no reply names an answer."""
    gold: str | None
    """A right answer, where a problem was named."""


def problem_routes(config: ServeConfig) -> list[Route]:
    """The routes of problems and verdicts."""
    facts = PageFacts(
        families=[
            FamilyCard(name=family.name, domain=family.domain, levels=list(family.levels))
            for family in (*FAMILIES.values(), *GENERAL.values())
        ]
    )

    async def page(http: HttpRequest) -> Response:
        return json_response(facts)

    async def problem(http: HttpRequest) -> Response:
        found = find_problem(read(ProblemName, await read_body(http, config)))
        return json_response(ProblemCard(question=found.question, domain=found.domain))

    async def judged(http: HttpRequest) -> Response:
        request = read(JudgeRequest, await read_body(http, config))
        named = find_problem(request.problem) if request.problem else None
        return json_response(await asyncio.to_thread(judge, request.replies, named))

    return [
        Route("/api/page", page),
        Route("/api/problem", problem, methods=["POST"]),
        Route("/api/judge", judged, methods=["POST"]),
    ]


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


def judge(replies: list[str], problem: Problem | None) -> Judgement:
    """Groups what replies answer, by the family's equivalence or as text, and scores it where there is a problem."""
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


def _answer(reply: str, problem: Problem | None) -> str | None:
    """Reasoning has a named answer; elsewhere the whole reply is the answer."""
    if problem is not None and problem.family in GENERAL:
        return reply.strip() or None
    return named_answer(reply)


def _vote(answer: str | None, problem: Problem | None) -> str | None:
    if answer is None or problem is None:
        return answer
    return get_family(problem.family).canonical(problem, answer)


def _score(answer: str | None, problem: Problem) -> float:
    if answer is None:
        return 0.0
    if problem.family in GENERAL:
        return GENERAL[problem.family].score(problem, answer)
    return float(FAMILIES[problem.family].verify(problem, answer))
