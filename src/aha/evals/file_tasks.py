"""Tasks from files (gsm8k, humaneval, rows of one's own) as what a command asks, besides the generated families."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from aha.configuration import Config
from aha.tasks.datasets import load_dataset, make_dataset
from aha.types import Problem


class FileTaskSettings(Config):
    """Which tasks from files are asked, and how much of them."""

    tasks: tuple[str, ...] = Field((), description="tasks from files (gsm8k, humaneval, ...), besides the families")
    data: str = Field("", description="their data folder or file; empty: AHA_DATA, else the hub")
    problems_limit: int = Field(
        0, ge=0, description="at most so many problems of each such task, from the front; 0: all"
    )
    instruction: str | None = Field(None, description="said below each of their questions; none: the task's own")

    @model_validator(mode="after")
    def _known_tasks(self) -> Self:
        for name in self.tasks:
            make_dataset(name)
        return self

    def file_problems(self, name: str) -> list[Problem]:
        """The problems of one of the tasks, as they are asked. A question that comes again is asked once.

        Raises:
            ConfigError: its data are not there, or hold no problems.
        """
        task = make_dataset(name)
        told = task.instruction if self.instruction is None else self.instruction
        problems = load_dataset(task, Path(self.data) if self.data else None)
        first = {one.question: one for one in reversed(problems)}
        different = [one for one in problems if first[one.question] is one]
        return [one.with_hint(told) for one in different[: self.problems_limit or None]]
