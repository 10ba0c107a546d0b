"""Chat templates of checkpoints: Jinja source from strangers, rendered where it reaches nothing.

The template sees the conversation and nothing else: no attribute with an underscore, no file, nothing that it could
change (Jinja's immutable sandbox, as transformers uses it). Output is cut off at a length. Time and memory have no
bound in Python itself, so this runs in a process that can be killed: see `aha.text.chat_template`.

Unlike transformers there is no `strftime_now`: a prompt is a function of its conversation, and templates that ask for
the date have a fixed one to fall back on.
"""

from __future__ import annotations

import functools
import json
import resource
from collections.abc import Mapping
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_CHARACTERS = 4_000_000
"""Of a rendered conversation: more than the longest contexts hold."""
MOST_SOURCE = 1_000_000
"""Characters of a template; released ones have some thousands."""
MOST_WORDS = 300
"""Characters of what a template says when it fails."""
MEMORY_BYTES = 1 << 30


class _Generation(Extension):
    """`{% generation %}`, which marks what an assistant wrote, is transparent here."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The block's own contents."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class RefusalError(TemplateError):
    """The template says that it does not take this conversation."""


def _raise(message: object = "") -> NoReturn:
    raise RefusalError(str(message))


def _to_json(value: Any, indent: int | None = None) -> str:
    """JSON without the escapes for HTML that Jinja's own filter makes."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    known = {name: environment.globals[name] for name in ("range", "namespace", "dict")}
    environment.globals = known | {"raise_exception": _raise}
    return environment


@functools.cache
def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def render(source: str, variables: Mapping[str, Any]) -> dict[str, str]:
    """Renders a template and limits the memory of the process for good: for workers only.

    Returns:
        {"text": ...}, or {"refusal": the template's own words}, or {"error": why not}.
    """
    _limit_memory()
    if len(source) > MOST_SOURCE:
        return {"error": f"it has {len(source):,} characters, at most {MOST_SOURCE:,} are read"}
    pieces: list[str] = []
    size = 0
    try:
        for piece in _environment().from_string(source).generate(**variables):
            size += len(piece)
            if size > MOST_CHARACTERS:
                return {"error": f"it makes more than {MOST_CHARACTERS:,} characters"}
            pieces.append(piece)
    except RefusalError as refusal:
        return {"refusal": str(refusal)[:MOST_WORDS]}
    except Exception as error:  # noqa: BLE001 - a stranger's program may raise anything
        return {"error": f"{type(error).__name__}: {str(error)[:MOST_WORDS]}"}
    return {"text": "".join(pieces)}
