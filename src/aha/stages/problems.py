"""Problems from files of the user's: read by a task, and split into training and held-out ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from pydantic import Field, model_validator

from aha.configuration import Config
from aha.data.conversations import Conversation, write_conversations
from aha.data.sources import Reading, Source, source_identity
from aha.errors import ConfigError
from aha.files import write_json
from aha.protocols import DatasetTask
from aha.stages.sft import EXAMPLES
from aha.tasks.datasets import make_dataset, open_dataset, read_problems
from aha.tasks.stored import HELD_OUT, TRAIN, stored_problems, write_problems
from aha.training.stage import StageContext, StageResult
from aha.types import Problem

AUDIT = "audit.json"


class ProblemsConfig(Config):
    """A task's problems, and where they come from."""

    task: str = Field(min_length=1, description="gsm8k, math, humaneval, choice, or rows of your own")
    train: Source | None = Field(None, description="what is trained on; none: the problems are for evaluation only")
    held_out: Source | None = Field(None, description="what is measured by; none: a share of the training rows")
    held_out_share: float = Field(0.05, gt=0, lt=1, description="that share, decided by each problem's hash")
    instruction: str | None = Field(None, description="said below each question; none: the task's own; empty: nothing")

    def data_identity(self) -> str:
        """Of the rows."""
        return " ".join(source_identity(source) for source in (self.train, self.held_out) if source is not None)

    @model_validator(mode="after")
    def _known(self) -> ProblemsConfig:
        make_dataset(self.task)
        if self.train is None and self.held_out is None:
            raise ValueError("name a source: train, held_out, or both")
        return self


class Problems:
    """The stage: writes `train.jsonl`, `held_out.jsonl`, `audit.json`, and `examples.jsonl` for supervised training."""

    kind: ClassVar[str] = "problems"

    def run(self, context: StageContext[ProblemsConfig]) -> StageResult:
        """Reads both sources. Training problems that are held out as well are left out of training."""
        config = context.config
        audit: dict[str, Any] = {}
        if context.distributed.is_first:
            with open_dataset(config.task) as task:
                task.prepare()
                audit = _Splitting(task, context).write()
            write_json(context.folder / AUDIT, audit)
            for complaint in audit["complaints"]:
                context.progress.notify(f"{context.name}: skipped {complaint}")
            context.progress.notify(f"{context.name}: {audit['train']} training problems, {audit['held_out']} held out")
        audit = context.distributed.broadcast_object(audit if context.distributed.is_first else None)
        return StageResult(audit)


class _Splitting:
    """Streams the sources into the stage's files."""

    def __init__(self, task: DatasetTask, context: StageContext[ProblemsConfig]) -> None:
        config = context.config
        self._config, self._task, self._context = config, task, context
        self._reading, self._held_reading = Reading(), Reading()
        self._held_keys: set[str] = set()
        self._seen: set[str] = set()
        self._twice = 0

    def write(self) -> dict[str, Any]:
        folder = self._context.folder
        with self._context.progress.task(self._context.name, 2, 0) as task:
            held_out = write_problems(folder / HELD_OUT, self._held_out())
            task.update(1, {"held out": held_out})
            train = write_problems(folder / TRAIN, self._training())
            task.update(2, {"train": train})
        if held_out == 0:
            raise ConfigError(f"{self._context.name}: no problem is held out; raise held_out_share or name a source")
        if self._config.train is not None and train == 0:
            raise ConfigError(f"{self._context.name}: no problem is left to train on")
        examples = write_conversations(folder / EXAMPLES, self._examples(stored_problems(folder / TRAIN)))
        return {
            "task": self._config.task,
            "rows": self._reading.rows + self._held_reading.rows,
            "bad_rows": self._reading.bad + self._held_reading.bad,
            "complaints": [*self._reading.complaints, *self._held_reading.complaints],
            "dropped_twice": self._twice,
            "train": train,
            "held_out": held_out,
            "solutions": examples,
        }

    def _held_out(self) -> Iterator[Problem]:
        source, by_hash = self._config.held_out, self._config.held_out is None
        reading = Reading() if by_hash else self._held_reading
        for problem in self._problems(source or self._config.train, reading):
            if (not by_hash or self._is_held_out(problem)) and problem.key not in self._held_keys:
                self._held_keys.add(problem.key)
                yield problem

    def _training(self) -> Iterator[Problem]:
        for problem in self._problems(self._config.train, self._reading):
            if problem.key in self._held_keys:
                self._twice += self._config.held_out is not None
            elif problem.key in self._seen:
                self._twice += 1
            else:
                self._seen.add(problem.key)
                yield problem

    def _is_held_out(self, problem: Problem) -> bool:
        return int(problem.key, 16) / 16 ** len(problem.key) < self._config.held_out_share

    def _problems(self, source: Source | None, reading: Reading) -> Iterator[Problem]:
        if source is None:
            return
        told = self._task.instruction if self._config.instruction is None else self._config.instruction
        for problem in read_problems(self._task, source, reading):
            yield problem.with_hint(told)

    def _examples(self, problems: Iterable[Problem]) -> Iterator[Conversation]:
        for problem in problems:
            solution = self._task.solution(problem)
            if solution is not None:
                about = {"source": problem.family, "level": problem.level, "problem": problem.key}
                answer = f"The answer is {solution.answer}."
                yield Conversation.of(problem.question, answer, solution.thinking, **about)
