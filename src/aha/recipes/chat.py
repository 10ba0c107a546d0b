"""`aha chat`: the models of run folders and model folders, in the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from aha.configuration import override_config
from aha.errors import ConfigError
from aha.recipes.talk_models import find_models, load
from aha.serve.config import ServeConfig
from aha.serve.errors import ApiError
from aha.serve.terminal import Terminal, start_model


def chat(paths: Sequence[Path], model: str, style: str, overrides: Sequence[str]) -> None:
    """Talks to the models that the paths hold, each loaded when it is first asked; one that cannot be is said to be so.

    Args:
        paths: run folders, or model folders.
        model: the one to start with; empty for R1, or the last.
        style: the prompt style of model folders.
        overrides: ``a.b=c`` settings of `ServeConfig`.

    Raises:
        ConfigError: a path holds no model, there is none of that name, or a setting is wrong.
    """
    config = override_config(ServeConfig(), {}, overrides)
    found = {one.name: one for one in find_models(paths, style)}
    if not found:
        raise ConfigError("no model is finished yet: let `aha run` go on")
    try:
        first = start_model(list(found), model)
    except ApiError as error:
        raise ConfigError(error.message) from None
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its history and editing
    console = Console(highlight=False, emoji=False)
    terminal = Terminal(
        {name: one.style for name, one in found.items()}, lambda name: load(found[name], config), first, console
    )
    with contextlib.closing(terminal):
        terminal.run()
