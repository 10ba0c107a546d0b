"""Run folders for the page: their curves, and a browser of their rollouts; `RunSource` stands for what reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, Field
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aha.errors import AhaError
from aha.serve.body import read_body
from aha.serve.config import ServeConfig
from aha.serve.deadline import in_time
from aha.serve.errors import ApiError
from aha.serve.schemas import Name, Note, Strict, read
from aha.serve.sse import json_response

Outcome = Literal["right", "mixed", "wrong"]
"""Of the completions of one prompt: all are right, some, none."""
RUN_THREADS = 2
T = TypeVar("T")


UNREADABLE = "run_unreadable"
"""The code of a run folder's fault."""


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
    outcome: Outcome | None = None
    reflecting: bool | None = None
    text: Note | None = None
    offset: int = Field(0, ge=0)
    limit: int = Field(50, ge=1, le=200)

    @property
    def filters(self) -> dict[str, Any]:
        """Those that are given."""
        return self.model_dump(exclude={"run", "stage", "offset", "limit"}, exclude_none=True)


class GroupRequest(StageRequest):
    """POST /api/runs/group."""

    at: int = Field(ge=0)


class RunList(BaseModel):
    """The answer of GET /api/runs."""

    data: list[dict[str, Any]]


def run_routes(runs: Sequence[RunSource], config: ServeConfig) -> list[Route]:
    """The routes of the run page."""
    by_name = {run.name: run for run in runs}
    # Searches of long logs have threads of their own: chats never wait for one.
    threads = ThreadPoolExecutor(RUN_THREADS, thread_name_prefix="runs")

    async def overview(run: RunSource) -> dict[str, Any]:
        """A run that cannot be read does not hide the others."""
        try:
            return await _read(config, threads, run.overview)
        except ApiError as error:
            if error.code != UNREADABLE:
                raise
            return {"name": run.name, "recipe": None, "seed": None, "live": False, "stages": [], "fault": error.message}

    async def listed(http: HttpRequest) -> Response:
        return json_response(RunList(data=[await overview(run) for run in runs]))

    async def panels(http: HttpRequest) -> Response:
        request = read(StageRequest, await read_body(http, config))
        run = _find(by_name, request.run)
        return JSONResponse({"panels": await _read(config, threads, lambda: run.panels(request.stage))})

    async def search(http: HttpRequest) -> Response:
        request = read(SearchRequest, await read_body(http, config))
        run = _find(by_name, request.run)
        return JSONResponse(
            await _read(
                config, threads, lambda: run.search(request.stage, request.filters, request.offset, request.limit)
            )
        )

    async def group(http: HttpRequest) -> Response:
        request = read(GroupRequest, await read_body(http, config))
        run = _find(by_name, request.run)
        return JSONResponse(await _read(config, threads, lambda: run.group(request.stage, request.at)))

    return [
        Route("/api/runs", listed),
        Route("/api/runs/panels", panels, methods=["POST"]),
        Route("/api/runs/search", search, methods=["POST"]),
        Route("/api/runs/group", group, methods=["POST"]),
    ]


def _find(runs: dict[str, RunSource], name: str) -> RunSource:
    run = runs.get(name)
    if run is None:
        raise ApiError(404, "there is no such run", "run", "run_not_found")
    return run


async def _read(config: ServeConfig, threads: Executor, work: Callable[[], T]) -> T:
    """Reads files beside the event loop."""
    try:
        return await in_time(config, work, threads)
    except LookupError:
        raise ApiError(404, "the run has no such stage or rollout", code="not_found") from None
    except AhaError:
        raise ApiError(503, "the run folder cannot be read at present", code=UNREADABLE) from None
