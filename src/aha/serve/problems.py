"""The page's routes for example problems, and for the verifier's verdict on what models say to them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from aha.serve.body import read_body
from aha.serve.config import ServeConfig
from aha.serve.deadline import in_time
from aha.serve.judging import ProblemName, find_problem, judge
from aha.serve.schemas import MAX_VOTES, Strict, read
from aha.serve.sse import json_response
from aha.tasks.families import FAMILIES, GENERAL
from aha.test_time.budget_forcing import WAIT
from aha.types import Language


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
        return json_response(await in_time(config, lambda: judge(request.replies, named)))

    return [
        Route("/api/page", page),
        Route("/api/problem", problem, methods=["POST"]),
        Route("/api/judge", judged, methods=["POST"]),
    ]
