"""The tasks that are read from files, by name, beside the generated families of `tasks.families`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aha.errors import ConfigError, UnknownNameError
from aha.grading.sandbox.outcome import SandboxConfig
from aha.protocols import DatasetTask
from aha.tasks.families import FAMILIES
from aha.tasks.gsm8k import Gsm8k
from aha.tasks.humaneval import HumanEval
from aha.tasks.math_boxed import MathBoxed
from aha.tasks.multiple_choice import MultipleChoice
from aha.types import Problem

DATASETS: dict[str, Callable[[SandboxConfig], DatasetTask]] = {
    Gsm8k.name: lambda _: Gsm8k(),
    HumanEval.name: HumanEval,
    MathBoxed.name: lambda _: MathBoxed(),
    MultipleChoice.name: lambda _: MultipleChoice(),
}
"""Each is made anew for whoever uses it, because grading may start processes."""


@contextmanager
def open_dataset(name: str, sandbox: SandboxConfig | None = None) -> Iterator[DatasetTask]:
    """A dataset task, closed at the end.

    Raises:
        UnknownNameError: with the nearest spelling, of a family's name too.
    """
    if name not in DATASETS:
        raise UnknownNameError("task", name, [*DATASETS, *FAMILIES])
    task = DATASETS[name](sandbox or SandboxConfig())
    try:
        yield task
    finally:
        task.close()


def load_dataset(task: DatasetTask, data: Path | None) -> list[Problem]:
    """Reads a task's problems.

    Args:
        task: whose.
        data: the data folder, or the file itself; else the environment variable AHA_DATA says.

    Raises:
        ConfigError: there is no such folder or file, or it is not as expected.
    """
    place = data or (Path(os.environ["AHA_DATA"]) if os.environ.get("AHA_DATA") else None)
    if place is None:
        raise ConfigError(f"task {task.name!r} reads {task.file!r}: name the data folder with --data or AHA_DATA")
    path = place
    if place.is_dir():
        plain = place / task.file
        candidates = (plain, plain.with_suffix("") if plain.suffix == ".gz" else plain.with_suffix(".jsonl.gz"))
        path = next((candidate for candidate in candidates if candidate.is_file()), plain)
    if not path.is_file():
        raise ConfigError(f"task {task.name!r}: there is no file {str(path)!r}")
    try:
        problems = task.load(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not problems:
        raise ConfigError(f"{str(path)!r} holds no problems")
    return problems
