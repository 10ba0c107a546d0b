"""`aha serve` and `aha chat`: models are talked to."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from aha.cli.options import Settings
from aha.environment import install_command
from aha.errors import ConfigError


def serve(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN|CKPT...", help="Run folders, or model folders.")],
    host: Annotated[str, typer.Option(help="Where to listen. Other machines can reach it only with a key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="AHA_API_KEY",
            metavar="K",
            help="Required of clients. Rather set the variable.",
            show_default="none",
            show_envvar=True,
        ),
    ] = None,
    style: Annotated[
        str, typer.Option(help="Prompt style of model folders: chat (thinks first), chat_direct, zero.")
    ] = "chat",
    set_: Settings = None,
) -> None:
    """Serve models on a web page, and to OpenAI's clients: /v1/chat/completions, /v1/completions, /v1/models.

    A run folder serves all its models under the names of their stages: the base, V3, R1-Zero, R1, the students. Its
    curves and rollouts are on the page too, also while it is being trained. Thinking comes as `reasoning_content`,
    apart from `content`.

    [bold]Examples[/bold]

      aha serve runs/r1-tiny-seed0

    [dim]One model that does not think, on another port:[/dim]

      aha serve runs/r1-tiny-seed0/v3/model --style chat_direct --port 8080

    [dim]For other machines too:[/dim]

      AHA_API_KEY=... aha serve runs/r1-tiny-seed0 --host 0.0.0.0

    [dim]Then:[/dim]

      curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json'
        -d '{"model": "r1", "messages": [{"role": "user", "content": "Compute 17+25."}]}'
    """
    missing = [package for package in ("fastapi", "uvicorn") if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(f"`aha serve` needs {' and '.join(missing)}: {install_command('serve')}")
    from aha.recipes.serve import serve as serve_models

    serve_models(paths, host, port, api_key, style, set_ or [])


def chat(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN|CKPT...", help="Run folders, or model folders.")],
    model: Annotated[str, typer.Option(metavar="NAME", help="To start with.", show_default="r1, or the last")] = "",
    style: Annotated[
        str, typer.Option(help="Prompt style of model folders: chat (thinks first), chat_direct, zero.")
    ] = "chat",
    set_: Settings = None,
) -> None:
    """Talk to models in the terminal: thinking dimmed, /commands, Ctrl-C stops the answer.

    [bold]Examples[/bold]

      aha chat runs/r1-tiny-seed0

      aha chat runs/r1-tiny-seed0 --model r1-zero
    """
    from aha.recipes.chat import chat as chat_with_models

    chat_with_models(paths, model, style, set_ or [])
