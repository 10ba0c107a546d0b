"""The application: routes, errors in OpenAI's shape, the pages, and the guard around them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from aha.serve.catalog import Catalog
from aha.serve.chat import ChatEndpoint
from aha.serve.completions import CompletionEndpoint
from aha.serve.errors import ApiError
from aha.serve.guard import HEALTH, Guard
from aha.serve.openapi import document
from aha.serve.pages import page_routes
from aha.serve.problems import problem_routes
from aha.serve.runs import RunSource, run_routes
from aha.serve.sse import error_response, json_response


def create_app(catalog: Catalog, api_key: str | None = None, runs: Sequence[RunSource] = ()) -> Guard:
    """Puts the server together.

    Args:
        catalog: the models.
        api_key: required on every route but /health; None for use on this machine alone.
        runs: folders that the run page shows.
    """
    description = document()

    async def health(http: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def openapi(http: Request) -> Response:
        return JSONResponse(description)

    async def models(http: Request) -> Response:
        return json_response(catalog.list())

    async def model(http: Request) -> Response:
        return json_response(catalog.find(http.path_params["model"]).card)

    routes = [
        Route(HEALTH, health),
        Route("/openapi.json", openapi),
        Route("/v1/models", models),
        Route("/v1/models/{model}", model),
        Route("/v1/chat/completions", ChatEndpoint(catalog).answer, methods=["POST"]),
        Route("/v1/completions", CompletionEndpoint(catalog).answer, methods=["POST"]),
        *problem_routes(catalog.config),
        *run_routes(runs, catalog.config),
        *page_routes(),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        catalog.close()

    router = Router(routes, redirect_slashes=False, lifespan=lifespan)
    handled = ExceptionMiddleware(router, handlers={HTTPException: _unrouted, ApiError: _refused})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = router  # what makes starlette raise for an unknown path, where it would answer by itself
        await handled(scope, receive, send)

    return Guard(app, api_key, {route.path for route in routes})


async def _refused(http: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _unrouted(http: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refusal = ApiError(405, "this path does not take that method", code="method_not_allowed", headers=error.headers)
    else:
        refusal = ApiError(error.status_code, "there is nothing at this path", code="not_found")
    return error_response(refusal)
