"""The tasks that are read from files, by name, beside the generated families of `tasks.families`."""

from __future__ import annotations

import atexit
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aha.data.sources import GYM, HUB, Reading, Source, read_source
from aha.errors import CannotGradeError, ConfigError, GradingError, UnknownNameError
from aha.grading.sandbox.outcome import SandboxConfig, default_sandbox
from aha.protocols import DatasetTask, Judge
from aha.tasks.families import FAMILIES, GENERAL
from aha.tasks.gsm8k import Gsm8k
from aha.tasks.gym import Gym
from aha.tasks.humaneval import HumanEval
from aha.tasks.math_boxed import MathBoxed
from aha.tasks.multiple_choice import MultipleChoice
from aha.tasks.own_rows import OwnRows
from aha.types import Problem

DATASETS: dict[str, Callable[[SandboxConfig], DatasetTask]] = {
    Gsm8k.name: lambda _: Gsm8k(),
    HumanEval.name: HumanEval,
    MathBoxed.name: lambda _: MathBoxed(),
    MultipleChoice.name: lambda _: MultipleChoice(),
    OwnRows.name: lambda _: OwnRows(),
}
"""Each is made anew for whoever uses it, because grading may start processes."""
_judges: dict[str, DatasetTask] = {}


def is_dataset(name: str) -> bool:
    """Whether a task's problems come from files, the hub or reasoning-gym, and not from a family here."""
    return name in DATASETS or name.startswith(GYM)


def make_dataset(name: str) -> DatasetTask:
    """A dataset task; its maker closes it.

    Raises:
        UnknownNameError: with the nearest spelling, of a family's name too.
    """
    if name.startswith(GYM):
        return Gym(name)
    if name not in DATASETS:
        raise UnknownNameError("task", name, [*DATASETS, *FAMILIES])
    return DATASETS[name](default_sandbox())


@contextmanager
def open_dataset(name: str) -> Iterator[DatasetTask]:
    """A dataset task, closed at the end.

    Raises:
        UnknownNameError: as `make_dataset`.
    """
    task = make_dataset(name)
    try:
        yield task
    finally:
        task.close()


def judge_of(name: str) -> Judge:
    """Who judges the answers to the problems of a family or task. A task is opened once and closed with the process.

    Raises:
        UnknownNameError: as `make_dataset`.
        CannotGradeError: answers to the task cannot be judged here.
    """
    family = FAMILIES.get(name) or GENERAL.get(name)
    if family is not None:
        return family
    if name not in _judges:
        judge = make_dataset(name)
        judge.prepare()
        _judges[name] = judge
        atexit.register(judge.close)
    return _judges[name]


def is_right(problem: Problem, answer: str) -> bool:
    """Whether an answer is right; one without a verdict is wrong: nobody may gain by breaking the judge.

    Raises:
        CannotGradeError: answers to the task cannot be judged here.
    """
    try:
        return judge_of(problem.family).verify(problem, answer)
    except CannotGradeError:
        raise
    except GradingError:
        return False


def need_judges(names: Iterable[str]) -> None:
    """Makes sure, before anything is sampled, that answers to these families and tasks can be judged here.

    Raises:
        CannotGradeError: one of them cannot.
    """
    for name in dict.fromkeys(names):
        judge_of(name)


def find_source(task: DatasetTask, split: str, data: Path | None = None) -> Source:
    """Where a split of a task's problems lies: in the data folder, else on the hub.

    Args:
        task: whose.
        split: train or test.
        data: the data folder, or the file itself; else the environment variable AHA_DATA says.

    Raises:
        ConfigError: there is no such folder or file, or the split is not to be found in it.
    """
    if task.name.startswith(GYM):
        return Source(path=task.name, split=split)
    place = data or (Path(os.environ["AHA_DATA"]) if os.environ.get("AHA_DATA") else None)
    if place is None:
        if task.hub and importlib.util.find_spec("datasets") is not None:
            return Source(path=HUB + task.hub, split=split)
        otherwise = f"; or install the package `datasets` to read {task.hub!r} from the hub" if task.hub else ""
        raise ConfigError(
            f"task {task.name!r}: name its file, or the folder that holds it, with --data or AHA_DATA{otherwise}"
        )
    if not place.is_dir():
        if not place.is_file():
            raise ConfigError(f"task {task.name!r}: there is no file {str(place)!r}")
        return Source(path=str(place))
    if split not in task.files:
        raise ConfigError(f"task {task.name!r} has no split {split!r}; it has {', '.join(task.files)}")
    plain = place / task.files[split]
    zipped = plain.with_suffix("") if plain.suffix == ".gz" else plain.with_name(f"{plain.name}.gz")
    for path in (plain, zipped):
        if path.is_file():
            return Source(path=str(path))
    raise ConfigError(f"task {task.name!r}: there is no file {str(plain)!r}")


def read_problems(task: DatasetTask, source: Source, reading: Reading | None = None) -> Iterator[Problem]:
    """Streams the problems of a source.

    Raises:
        ConfigError: as `read_source`.
    """
    reading = reading or Reading()
    return read_source(source, lambda row, place: task.problem(row, place, reading.rows - 1), reading)


def load_dataset(task: DatasetTask, data: Path | None, split: str = "test") -> list[Problem]:
    """All problems of a split.

    Raises:
        ConfigError: as `find_source` and `read_source`, or there are none.
    """
    source = find_source(task, split, data)
    problems = list(read_problems(task, source))
    if not problems:
        raise ConfigError(f"{source.path!r} holds no problems")
    return problems
