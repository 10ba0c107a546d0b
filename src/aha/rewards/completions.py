"""Completions that exist already, in a file: graded by a task's rules, without a model.

Two parts, as in R1 2.2.2: `accuracy` and `format`. The format is the strict form of `text.thinking`. Accuracy is judged
on what follows the thinking, in whatever form other models write it; `strict` counts it in the strict form only, as
training does. What stands in the thinking is never an answer, and thinking that does not end has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aha.data.rows import good_rows, text_of, text_or_number
from aha.errors import ConfigError, GradingError, nearest
from aha.protocols import DatasetTask
from aha.rewards.rubric import RubricConfig, add_up
from aha.tasks.datasets import load_dataset
from aha.tasks.families import get_family
from aha.text.thinking import parse
from aha.text.tokenizer import ANSWER, END_ANSWER, END_THINK, THINK
from aha.types import Problem


@dataclass(frozen=True, slots=True)
class Graded:
    """One row's result. `reward` is None where no verdict could be given, and `why` says why."""

    row: int
    """From 1."""
    problem: str | None
    reward: float | None
    rewards: Mapping[str, float]
    why: str = ""


def answer_of(completion: str, truncated: bool = False, strict: bool = False) -> tuple[str | None, bool]:
    """The part of a completion that answers, and whether the completion has the strict form.

    Returns:
        None for the answer where there is none: the thinking does not end, answers are several, or `strict` is not met.
    """
    parsed = parse(completion, truncated=truncated)
    if parsed.well_formed:
        return parsed.answer, True
    if strict or truncated or (THINK in completion and END_THINK not in completion):
        return None, False
    rest = completion.rsplit(END_THINK, 1)[-1]
    if ANSWER in rest or END_ANSWER in rest:
        before, _, inner = rest.partition(ANSWER)
        content, closing, after = inner.partition(END_ANSWER)
        if not closing or END_ANSWER in before or ANSWER in content + after or END_ANSWER in after:
            return None, False
        rest = content
    return rest, False


def grade_file(
    path: Path, name: str, task: DatasetTask | None, data: Path | None, strict: bool = False
) -> Iterator[Graded]:
    """Grades every row of a JSONL file.

    Args:
        path: rows with `completion`, and `problem` (an id, a question, or a whole problem as an object) or `answer`
            (the gold one). `finish_reason: "length"` marks a truncated completion.
        name: of the task or family.
        task: the dataset task; None for a family.
        data: where the task's problems lie, needed for rows that name one.
        strict: see above.

    Raises:
        ConfigError: a row is not as expected, and the message names file and line; or there are no rows.
    """
    find = _Finder(name, task, data)
    weights = RubricConfig().weights()
    verify: Callable[[Problem, str], bool] = get_family(name).verify if task is None else task.verify
    number = 0
    for number, (place, row) in enumerate(good_rows(path), start=1):
        completion = row.get("completion")
        if not isinstance(completion, str):
            present = "" if "completion" in row else f"; the row has {', '.join(map(repr, row)) or 'nothing'}"
            raise ConfigError(f"{place}: 'completion' must be a text{present}")
        problem = find(row, place)
        identity = problem.facts.get("_id")
        answer, well_formed = answer_of(completion, row.get("finish_reason") == "length", strict)
        try:
            right = answer is not None and verify(problem, answer)
        except GradingError as error:
            yield Graded(number, identity, None, {}, str(error))
            continue
        grade = add_up({"accuracy": float(right), "format": float(well_formed)}, weights)
        assert grade is not None
        yield Graded(number, identity, grade.reward, grade.parts)
    if not number:
        raise ConfigError(f"{str(path)!r} has no rows: it must hold at least one, with 'completion'")


class _Finder:
    """Finds the problem that a row is about; the task's file is read when the first row names one."""

    def __init__(self, name: str, task: DatasetTask | None, data: Path | None) -> None:
        self._name, self._task, self._data = name, task, data
        self._known: dict[str, Problem] = {}

    def __call__(self, row: dict[str, Any], place: str) -> Problem:
        named = row.get("problem")
        if isinstance(named, dict):
            return self._whole(named, place)
        if self._task is None:
            raise ConfigError(
                f"{place}: family {self._name!r} is judged by a problem's facts: 'problem' must hold it all"
            )
        if "answer" in row and not self._task.needs_problem:
            answer = text_or_number(row, place, "answer")
            try:
                return self._task.from_answer(answer)
            except ValueError as error:
                raise ConfigError(f"{place}: {error}") from error
        if "problem" not in row and "answer" in row:
            raise ConfigError(f"{place}: task {self._name!r} is judged by its problem: name it by its id in 'problem'")
        if "problem" not in row:
            raise ConfigError(f"{place}: neither 'problem' nor 'answer'; it has {', '.join(map(repr, row))}")
        named = text_of(row, place, "problem")
        if not self._known:
            for problem in load_dataset(self._task, self._data):
                self._known |= {problem.question: problem, str(problem.facts["_id"]): problem}
        if named not in self._known:
            raise ConfigError(f"{place}: no problem {named[:60]!r}{nearest(named[:60], self._known)}")
        return self._known[named]

    def _whole(self, fields: dict[str, Any], place: str) -> Problem:
        try:
            problem = Problem(**fields)
        except TypeError as error:
            raise ConfigError(f"{place}: 'problem' is not a problem: {error}") from error
        if problem.family != self._name or not isinstance(problem.facts, dict):
            raise ConfigError(f"{place}: the problem is of family {problem.family!r}, not {self._name!r}")
        return problem
