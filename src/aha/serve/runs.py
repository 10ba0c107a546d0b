"""Run folders for the page: their curves, and a browser of their rollouts; `RunSource` stands for what reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from aha.errors import AhaError
from aha.serve.errors import ApiError
from aha.serve.schemas import Name, Note, Strict

RUN_THREADS = 2
UNREADABLE = "the run folder cannot be read at present"


class RunSource(Protocol):
    """A run folder, finished or growing, as plain JSON values."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def overview(self) -> dict[str, Any]:
        """The run and its stages, with how far each is."""
        ...

    def panels(self, stage: str) -> list[dict[str, Any]]:
        """The curves of a stage. Raises LookupError where there is no such stage."""
        ...

    def search(self, stage: str, filters: dict[str, Any], offset: int, limit: int) -> dict[str, Any]:
        """Groups of rollouts that pass the filters. Raises LookupError where there is no such stage."""
        ...

    def group(self, stage: str, at: int) -> dict[str, Any]:
        """One group as it is in the log. Raises LookupError where there is none at that place."""
        ...


class StageRequest(Strict):
    """POST /api/runs/panels."""

    run: Name
    stage: Name


class SearchRequest(StageRequest):
    """POST /api/runs/search: what is left out filters nothing."""

    family: Name | None = None
    level: int | None = None
    model: Name | None = None
    first_step: int | None = None
    last_step: int | None = None
    outcome: Literal["right", "mixed", "wrong"] | None = None
    """Of the completions of one prompt: all are right, some, none."""
    reflecting: bool | None = None
    text: Note | None = None
    offset: int = Field(0, ge=0)
    limit: int = Field(50, ge=1, le=200)


class GroupRequest(StageRequest):
    """POST /api/runs/group."""

    at: int = Field(ge=0)


def run_routes(runs: Sequence[RunSource]) -> APIRouter:
    """The routes of the run page."""
    router = APIRouter(prefix="/api/runs", include_in_schema=False)
    by_name = {run.name: run for run in runs}
    # Searches of long logs have threads of their own: chats never wait for one.
    threads = ThreadPoolExecutor(RUN_THREADS, thread_name_prefix="runs")

    async def read(name: str, work: Callable[[RunSource], dict[str, Any]]) -> Response:
        if name not in by_name:
            raise ApiError(404, "there is no such run", "run", "run_not_found")
        try:
            found = await asyncio.get_running_loop().run_in_executor(threads, work, by_name[name])
        except LookupError:
            raise ApiError(404, "the run has no such stage or rollout", code="not_found") from None
        except AhaError:
            raise ApiError(503, UNREADABLE, code="run_unreadable") from None
        return JSONResponse(found)

    @router.get("")
    async def listed() -> Response:
        found = [await asyncio.get_running_loop().run_in_executor(threads, _overview, run) for run in runs]
        return JSONResponse({"data": found})

    @router.post("/panels")
    async def panels(request: StageRequest) -> Response:
        return await read(request.run, lambda run: {"panels": run.panels(request.stage)})

    @router.post("/search")
    async def search(request: SearchRequest) -> Response:
        filters = request.model_dump(exclude={"run", "stage", "offset", "limit"}, exclude_none=True)
        return await read(request.run, lambda run: run.search(request.stage, filters, request.offset, request.limit))

    @router.post("/group")
    async def group(request: GroupRequest) -> Response:
        return await read(request.run, lambda run: run.group(request.stage, request.at))

    return router


def _overview(run: RunSource) -> dict[str, Any]:
    """A run that cannot be read does not hide the others."""
    try:
        return run.overview()
    except AhaError:
        return {"name": run.name, "recipe": None, "seed": None, "live": False, "stages": [], "fault": UNREADABLE}
