"""The web pages: files of this package, read once and served by exact name. No build step, no request to elsewhere."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PLACES = {"/": "chat.html", "/run": "run.html"}
"""Pages have short addresses; everything else is at /web/NAME."""


def page_routes() -> list[Route]:
    """One route for each file."""
    folder = files("aha.serve").joinpath("web")
    names = sorted(file.name for file in folder.iterdir())
    places = {**PLACES, **{f"/web/{name}": name for name in names if not name.endswith(".html")}}
    return [_route(path, folder.joinpath(name).read_bytes(), name) for path, name in places.items()]


def _route(path: str, content: bytes, name: str) -> Route:
    kind = KINDS[name[name.rindex(".") :]]

    async def send(http: HttpRequest) -> Response:
        return Response(content, media_type=kind)

    return Route(path, send)
