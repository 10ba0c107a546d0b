"""What the web pages need: their files, example problems, and the verifier's verdict on what models say to them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import Field

from aha.serve.judging import Judgement, ProblemName, find_problem, judge
from aha.serve.schemas import MAX_VOTES, Strict
from aha.tasks.families import FAMILIES, GENERAL
from aha.tasks.words import REFLECTION_WORDS
from aha.test_time.budget_forcing import WAIT

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PLACES = {"/": "chat.html", "/run": "run.html"}
"""Pages have short addresses; everything else is at /web/NAME."""


class JudgeRequest(Strict):
    """POST /api/judge: what replies say, without their thinking."""

    problem: ProblemName | None = None
    replies: Annotated[list[str], Field(min_length=1, max_length=MAX_VOTES)]


def page_routes() -> APIRouter:
    """The routes of the page: its files, each by its exact name, and problems."""
    router = APIRouter(include_in_schema=False)
    folder = files("aha.serve").joinpath("web")
    names = sorted(file.name for file in folder.iterdir())
    for path, name in {**PLACES, **{f"/web/{name}": name for name in names if not name.endswith(".html")}}.items():
        content, kind = folder.joinpath(name).read_bytes(), KINDS[name[name.rindex(".") :]]
        router.add_api_route(path, _sender(content, kind), methods=["GET"])

    @router.get("/api/page")
    async def page() -> dict[str, Any]:
        """What the page does not know by itself.

        `wait` takes the place of the end of a thinking that is to go on; `reflection` is marked in thinkings.
        """
        every = (*FAMILIES.values(), *GENERAL.values())
        families = [{"name": one.name, "domain": one.domain, "levels": list(one.levels)} for one in every]
        return {"families": families, "wait": WAIT, "reflection": REFLECTION_WORDS}

    @router.post("/api/problem")
    async def problem(request: ProblemName) -> dict[str, str]:
        """A held-out problem, without its answer."""
        found = find_problem(request)
        return {"question": found.question, "domain": found.domain}

    @router.post("/api/judge")
    async def judged(request: JudgeRequest) -> Judgement:
        named = find_problem(request.problem) if request.problem else None
        return await asyncio.to_thread(judge, request.replies, named)

    return router


def _sender(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return Response(content, media_type=kind)

    return send
