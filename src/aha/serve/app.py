"""The application: its routes, and every error in OpenAI's shape."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from aha import __version__
from aha.errors import ConfigError
from aha.serve.completions import completion_routes
from aha.serve.config import ServeConfig
from aha.serve.errors import ApiError
from aha.serve.guard import HEALTH, Guard
from aha.serve.pages import page_routes
from aha.serve.responses import ErrorBody
from aha.serve.runs import RunSource, run_routes
from aha.serve.schemas import refusal
from aha.serve.served import ServedModel


def create_app(
    models: Sequence[ServedModel], config: ServeConfig, api_key: str | None = None, runs: Sequence[RunSource] = ()
) -> FastAPI:
    """Puts the server together.

    Args:
        models: that are asked, each by its name. A name is looked up and never anything else: it is not a path.
        config: limits.
        api_key: required on every route but /health; None for use on this machine alone.
        runs: folders that the run page shows.

    Raises:
        ConfigError: two models have one name.
    """
    by_name = {model.name: model for model in models}
    if len(by_name) < len(models):
        raise ConfigError("two models have one name")

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        for model in models:
            model.worker.close()

    app = FastAPI(
        title="aha",
        version=__version__,
        docs_url=None,  # its pages fetch scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        lifespan=lifespan,
        responses={"default": {"model": ErrorBody, "description": "refused"}},
    )
    app.add_middleware(Guard, api_key=api_key, config=config)
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(HTTPException, _unrouted)
    app.add_exception_handler(RequestValidationError, _invalid)

    @app.get(HEALTH)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    app.include_router(completion_routes(by_name))
    app.include_router(page_routes())
    app.include_router(run_routes(runs))
    return app


async def _refused(http: Request, error: Exception) -> Response:
    refused = cast(ApiError, error)
    return JSONResponse(refused.body(), refused.status, refused.headers)


async def _unrouted(http: Request, error: Exception) -> Response:
    status, headers = cast(HTTPException, error).status_code, cast(HTTPException, error).headers
    words = {
        404: ("there is nothing at this path", "not_found"),
        405: ("this path does not take that method", "method_not_allowed"),
    }
    message, code = words.get(status, ("the body cannot be read", None))
    return await _refused(http, ApiError(status, message, code=code, headers=headers))


async def _invalid(http: Request, error: Exception) -> Response:
    fault = cast(RequestValidationError, error).errors()[0]
    schema = http.scope["route"].body_field.field_info.annotation
    return await _refused(http, refusal(schema, {**fault, "loc": fault["loc"][1:]}))
