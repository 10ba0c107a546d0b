"""The application: its verbs, and how the process ends."""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Annotated

import typer

from aha import __version__
from aha.cli.measure import compare, evaluate, probe, scale
from aha.cli.models import export, model, push
from aha.cli.problems import grade, task
from aha.cli.run import RunCommand, report, run
from aha.cli.talk import chat, serve
from aha.errors import AhaError
from aha.files import cannot_write
from aha.training.interrupts import StopRequested
from aha.training.launch import WORKER_SETTINGS

app = typer.Typer(
    name="aha",
    help="DeepSeek-R1 in PyTorch, from random weights on a laptop to a GPU node.",
    epilog="Start with: aha run r1-zero-tiny",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.command(cls=RunCommand)(run)
app.command()(report)
app.command("eval")(evaluate)
for verb in (compare, scale, probe, serve, chat, model, export, push, task, grade):
    app.command()(verb)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"aha {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """DeepSeek-R1 in PyTorch, from random weights on a laptop to a GPU node."""
    for name, value in WORKER_SETTINGS.items():  # every verb computes as the workers do; set before torch is imported
        os.environ.setdefault(name, value)


def main() -> None:
    """Runs the command line and ends the process."""
    worker = "RANK" in os.environ
    try:
        app()
    except SystemExit as done:
        if not worker:
            raise
        _leave(done.code if isinstance(done.code, int) else int(done.code is not None), worker)
    except StopRequested as stop:
        _leave(stop.exit_code, worker)
    except AhaError as error:
        _fail(str(error), worker)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            _fail(cannot_write(Path(error.filename or "."), error), worker)
        if not worker:
            raise
        traceback.print_exc()
        _leave(1, worker)


def _fail(message: str, worker: bool) -> None:
    """Says why in one line and ends with 1. Where all processes of a run fail alike, only rank 0 comes to speak."""
    if worker and int(os.environ["RANK"]) > 0:
        time.sleep(1.0)
    print(f"aha: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    _leave(1, worker)


def _leave(code: int, worker: bool) -> None:
    """Ends the process. A worker skips the libraries' farewells: gloo's threads abort if the peers are gone already."""
    if worker:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
