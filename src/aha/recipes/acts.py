"""The acts of the command line other than `run`: where their parts meet. Each imports only what it needs."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aha.errors import ConfigError
from aha.files import write_atomic
from aha.references import load_reference
from aha.training.launch import WORKER_SETTINGS

if TYPE_CHECKING:
    from aha.rewards.completions import Graded

REPORT = "aha.report.page:make_report"
"""`module:function`, called with (run folder, output path or None), returns the path of the page it wrote."""

EVALUATION = "aha.recipes.evaluate:evaluate_models"
"""`module:function`, called with (model folders, tasks, ways of asking, preset, overrides, folder or None, seed)."""

SCALING = "aha.recipes.scale:scale"
"""`module:function`, called with (model folder, families, way of asking, overrides, JSON path, SVG path, seed)."""

COMPARISON = "aha.recipes.compare:compare"
"""`module:function`, called with (paths, way of asking, overrides, format, output path or None, seed)."""

SERVING = "aha.recipes.serve:serve"
"""`module:function`, called with (paths, host, port, key or None, way of asking, overrides); serves until stopped."""

CHAT = "aha.recipes.chat:chat"
"""`module:function`, called with (paths, name of a model, way of asking, overrides); talks until the user leaves."""


def make_report(run_folder: Path, out: Path | None) -> Path:
    """Makes the HTML page of a run and returns its path."""
    path: Path = _act(REPORT, "report")(run_folder, out)
    return path


def evaluate_models(
    checkpoints: Sequence[Path],
    tasks: Sequence[str],
    asked: Sequence[str],
    preset: str,
    overrides: Sequence[str],
    out: Path | None,
    seed: int,
) -> None:
    """Measures models and prints the results."""
    _act(EVALUATION, "eval")(checkpoints, tasks, asked, preset, overrides, out, seed)


def compare(
    paths: Sequence[Path], asked: str, overrides: Sequence[str], form: str, out: Path | None, seed: int | None
) -> None:
    """Prints one table of the models of runs and model folders."""
    _act(COMPARISON, "compare")(paths, asked, overrides, form, out, seed)


def scale(
    checkpoint: Path,
    families: Sequence[str],
    asked: str,
    overrides: Sequence[str],
    out: Path | None,
    svg: Path | None,
    seed: int,
) -> None:
    """Draws the curves of test-time scaling of a model folder and prints them as a table."""
    _act(SCALING, "scale")(checkpoint, families, asked, overrides, out, svg, seed)


def serve(
    paths: Sequence[Path], host: str, port: int, api_key: str | None, asked: str, overrides: Sequence[str]
) -> None:
    """Serves the models of runs and model folders until stopped.

    Raises:
        ConfigError: a package that the server needs is not installed.
    """
    missing = [package for package in ("starlette", "uvicorn") if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(f"`aha serve` needs {' and '.join(missing)}: pip install 'aha[serve]'")
    _act(SERVING, "serve")(paths, host, port, api_key, asked, overrides)


def chat(paths: Sequence[Path], model: str, asked: str, overrides: Sequence[str]) -> None:
    """Talks to the models of runs and model folders in the terminal."""
    _act(CHAT, "chat")(paths, model, asked, overrides)


def _act(reference: str, verb: str) -> Any:
    """The function that does an act, with the environment set as workers have it, before torch is imported."""
    for name, value in WORKER_SETTINGS.items():
        os.environ.setdefault(name, value)
    if not reference:
        raise ConfigError(f"`aha {verb}` is not part of this version")
    return load_reference(reference)


def grade_completions(file: Path, name: str, data: Path | None, out: Path | None, strict: bool) -> None:
    """Grades the completions of a file: a JSON line each to `out` or standard output, and a summary.

    Raises:
        UnknownNameError: no such task or family.
        ConfigError: a row of the file is not as expected; the message names file and line.
        GradingError: the task cannot be graded here.
    """
    from aha.rewards.completions import grade_file
    from aha.tasks.datasets import open_dataset
    from aha.tasks.families import FAMILIES

    with contextlib.ExitStack() as stack:
        task = None if name in FAMILIES else stack.enter_context(open_dataset(name))
        if task is not None:
            task.prepare()
        graded = []
        lines = []
        for result in grade_file(file, name, task, data, strict):
            graded.append(result)
            lines.append(json.dumps(asdict(result), ensure_ascii=False))
            if out is None:
                print(lines[-1], flush=True)
    if out is not None:
        write_atomic(out, "".join(f"{line}\n" for line in lines))
    print(_summary(graded), file=sys.stderr if out is None else sys.stdout)


def _summary(graded: Sequence[Graded]) -> str:
    judged = [result for result in graded if result.reward is not None]
    parts = [f"{len(graded)} rows", f"{len(graded) - len(judged)} without a verdict"]
    if judged:
        for part in judged[0].rewards:
            parts.append(f"{part} {sum(result.rewards[part] for result in judged) / len(judged):.1%}")
        parts.append(f"mean reward {sum(result.reward or 0.0 for result in judged) / len(judged):.4f}")
    return ", ".join(parts)
