"""GSM8K: school word problems whose answers are numbers, the gold one after `####` (Cobbe et al., arXiv:2110.14168)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aha.data.rows import text_of, text_or_number
from aha.errors import ConfigError
from aha.grading.math_answers import number, number_answer, same_number
from aha.tasks.file_task import FileTask
from aha.types import Problem

_CALCULATOR = re.compile(r"<<[^<>]*>>")
"""Annotations that the solutions carry: <<48/2=24>>."""


class Gsm8k(FileTask):
    """Rows of `question` and `answer`; ids are `gsm8k/<row from 0>`."""

    name = "gsm8k"
    files: Mapping[str, str] = {"train": "gsm8k/train.jsonl", "test": "gsm8k/test.jsonl"}
    hub = "openai/gsm8k:main"

    def problem(self, row: Mapping[str, Any], place: str, index: int) -> Problem:
        """A question with its number; the solution without the calculator's annotations."""
        question, answer = text_of(row, place, "question"), text_or_number(row, place, "answer")
        try:
            final = _final(answer)
        except ValueError as error:
            raise ConfigError(f"{place}: {error}") from error
        solution = _CALCULATOR.sub("", answer.rpartition("####")[0]).strip()
        return self._problem(question, final, {"question": question, "_id": f"gsm8k/{index}", "_solution": solution})

    def from_answer(self, answer: str) -> Problem:
        """A problem known by its gold answer: a number, or a solution that ends with `#### number`."""
        return self._problem("", _final(answer), {"answer": answer})

    def verify(self, problem: Problem, answer: str) -> bool:
        """Equality of the two numbers, exactly."""
        return same_number(answer, problem.answer)

    def canonical(self, problem: Problem, answer: str) -> str | None:
        """The number."""
        value = number_answer(answer)
        return None if value is None else str(value)

    def wrong_answers(self, problem: Problem) -> list[str]:
        """Off by one, the sign, ten times as much, two numbers, and no number."""
        value = number_answer(problem.answer)
        assert value is not None
        return [str(value + 1), str(-value - 1), str(value * 10 + 1), f"{value} or {value + 1}", "", "nan", "#### "]


def _final(answer: str) -> str:
    final = answer.rsplit("####", 1)[-1].strip()
    if number(final) is None:
        raise ValueError(f"answer: {final[:40]!r} is not a number")
    return final
