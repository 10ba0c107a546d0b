"""Options that several verbs have."""

from __future__ import annotations

import os
from typing import Annotated

import typer

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting; may be given many times.")
]

Sandbox = Annotated[
    str | None,
    typer.Option(
        envvar="AHA_SANDBOX",
        metavar="URL",
        help="Where programs are graded: a remote sandbox, or limits such as '{seconds: 10}'.",
        show_default="a local one",
        show_envvar=True,
    ),
]


def use_sandbox(sandbox: str | None) -> None:
    """Names the sandbox to this process and to those that it starts."""
    if sandbox is not None:
        os.environ["AHA_SANDBOX"] = sandbox
