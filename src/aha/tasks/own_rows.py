"""Rows of the user's own: a question, and an answer to compare with or a reward function that needs none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from aha.data.rows import json_value, text_of, written
from aha.errors import ConfigError
from aha.grading.math_answers import given_answer, number, number_answer
from aha.tasks.file_task import FileTask
from aha.types import Problem

LEVELS = ("1", "2", "3", "4", "5")
MAX_ANSWER_CHARACTERS = 2000


class OwnRows(FileTask):
    """Rows of `question` and, if there is one, `answer`; also `solution`, `id` and a `level` from 1 to 5.

    A gold answer that is a number and nothing else is compared as one; another ("May 5", "12 km") as text, without
    regard to case, space and quotes. The row's other columns are there for reward functions.
    """

    name = "rows"
    files: Mapping[str, str] = {"train": "rows/train.jsonl", "test": "rows/test.jsonl"}

    def problem(self, row: Mapping[str, Any], place: str, index: int) -> Problem:
        """A question with its answer, if it has one."""
        question = text_of(row, place, "question")
        answer = written(row.get("answer"))
        facts: dict[str, Any] = {
            "question": question,
            "_id": str(row.get("id", f"rows/{index}")),
            "_columns": {name: _column(name, value, place) for name, value in row.items()},
        }
        if isinstance(row.get("solution"), str) and row["solution"].strip():
            facts["_solution"] = row["solution"].strip()
        gold = "" if answer is None else str(answer).strip()
        if gold and not _plain(gold):
            raise ConfigError(f"{place}: answer {gold!r} has nothing that could be compared")
        level = str(written(row.get("level"))).strip().removesuffix(".0")
        return self._problem(question, gold, facts, int(level) if level in LEVELS else 1)

    def from_answer(self, answer: str) -> Problem:
        """A problem known by its gold answer."""
        if not answer.strip():
            raise ValueError("answer: is empty")
        return self._problem("", answer.strip(), {"answer": answer.strip()})

    def verify(self, problem: Problem, answer: str) -> bool:
        """Equality with the gold answer; nothing is right where there is none."""
        if not problem.answer:
            return False
        gold = _number_alone(problem.answer)
        if gold is not None:
            return number_answer(answer) == gold
        return _plain(_stated(answer)) == _plain(problem.answer)

    def canonical(self, problem: Problem, answer: str) -> str | None:
        """The number of an answer where numbers are asked for or where it is nothing else, else its text."""
        asked = _number_alone(problem.answer) is not None
        value = number_answer(answer) if asked else _number_alone(_stated(answer))
        return str(value) if value is not None else _plain(_stated(answer)) or None

    def wrong_answers(self, problem: Problem) -> list[str]:
        """More than was asked for, and nothing."""
        value = _number_alone(problem.answer)
        if value is not None:
            return [str(value + 1), f"{value} or {value + 1}", "", "?"]
        return [f"{problem.answer} or not", f"not {problem.answer}", "", "?"]


def _stated(text: str) -> str:
    answer = given_answer(text)
    return answer if len(answer) <= MAX_ANSWER_CHARACTERS else ""


def _number_alone(text: str) -> Fraction | None:
    """The number that a text is: with words beside it, it is a text that has a number in it."""
    words = any(character.isalpha() for character in re.sub(r"\\[A-Za-z]+", "", text))
    return None if words else number(text)


def _plain(text: str) -> str:
    return " ".join(text.split()).strip("*`$\"'. ").casefold()


def _column(name: str, value: Any, place: str) -> Any:
    try:
        return json_value(value)
    except (ValueError, RecursionError) as error:
        fault = "is nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{place}: column {name!r} {fault}") from error
