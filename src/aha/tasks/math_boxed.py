r"""MATH-style problems: the gold answer in `\boxed`, judged by math-verify in a worker process that can be killed.

(Hendrycks et al., arXiv:2103.03874.) Rows have `problem` or `question`, and `answer` or a `solution` with a box.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from typing import Any

from aha.data.rows import text_of, written
from aha.environment import install_command
from aha.errors import CannotGradeError, ConfigError, GradingError
from aha.grading.math_answers import boxed, number, stated
from aha.tasks.file_task import FileTask
from aha.types import Problem
from aha.workers import KillableWorker

SECONDS_PER_ANSWER = 6.0
MAX_ANSWER_CHARACTERS = 1000


class MathBoxed(FileTask):
    """Problems with LaTeX answers; ids are the row's `unique_id`, else `math/<row from 0>`."""

    name = "math"
    files: Mapping[str, str] = {"train": "math/train.jsonl", "test": "math/test.jsonl"}
    hub = "HuggingFaceH4/MATH-500"

    def __init__(self) -> None:
        self._worker: KillableWorker | None = None

    def problem(self, row: Mapping[str, Any], place: str, index: int) -> Problem:
        """A problem with its boxed answer."""
        question = text_of(row, place, "problem", "question")
        answer = written(row.get("answer"))
        if not isinstance(answer, str) or not answer.strip():
            answer = self._boxed(text_of(row, place, "solution", "answer"), place)
        facts = {"question": question, "_id": str(row.get("unique_id", f"math/{index}"))}
        if isinstance(row.get("solution"), str):
            facts["_solution"] = row["solution"].strip()
        return self._problem(question, answer.strip(), facts, _level(row))

    def _boxed(self, solution: str, place: str) -> str:
        boxes = boxed(solution)
        if not boxes:
            raise ConfigError(f"{place}: neither an 'answer' nor a \\boxed in the 'solution'")
        return boxes[-1]

    def from_answer(self, answer: str) -> Problem:
        """A problem known by its gold answer, with or without a box around it."""
        final = (boxed(answer) or [answer.strip()])[-1]
        if not final:
            raise ValueError("answer: is empty")
        return self._problem("", final, {"answer": final})

    def prepare(self) -> None:
        """Makes the worker.

        Raises:
            GradingError: math-verify is not installed.
        """
        if importlib.util.find_spec("math_verify") is None:
            raise CannotGradeError(f"LaTeX answers are judged by math-verify, an extra: {install_command('math')}")
        if self._worker is None:
            self._worker = KillableWorker("aha.grading.latex_answers:same_latex", SECONDS_PER_ANSWER)

    def verify(self, problem: Problem, answer: str) -> bool:
        """Equality of the boxed or stated answer with the gold one, by math-verify.

        Raises:
            GradingError: math-verify is not installed, or an answer made its worker die or run out of time.
        """
        final = _final(answer)
        if not final:
            return False
        self.prepare()
        assert self._worker is not None
        (same,) = self._worker.grade([[problem.answer, final.encode(errors="replace").decode()]])
        if same is None:
            raise GradingError(
                f"no verdict on {final[:40]!r}: math-verify failed or took over {SECONDS_PER_ANSWER:g} s"
            )
        return same is True

    def canonical(self, problem: Problem, answer: str) -> str | None:
        r"""The number, where the answer is one (0.5, 1/2, \dfrac{1}{2}); else its LaTeX without spaces and sizes.

        Other expressions that math-verify would call equal count apart.
        """
        final = _final(answer)
        value = number(final)
        if value is not None:
            return str(value)
        return "".join(re.sub(r"\\(?:left|right)(?![a-z])|(?<=\\)[dt](?=frac)", "", final).split()) or None

    def gold(self, problem: Problem) -> str:
        """The answer, boxed."""
        return rf"\boxed{{{problem.answer}}}"

    def wrong_answers(self, problem: Problem) -> list[str]:
        """One more, two boxes, both at once, and nothing."""
        gold = problem.answer
        more = rf"\boxed{{({gold})+1}}"
        return [more, rf"\boxed{{{gold}}} \boxed{{0.123}}", rf"\boxed{{{gold}, 0.123}}", r"\boxed{}", "", "nan"]

    def close(self) -> None:
        """Ends the worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def _final(answer: str) -> str:
    """The one answer that a text states, bare; empty where there is none, or one of absurd length."""
    final = stated(answer)
    if final is None:
        final = "" if boxed(answer) or "\n" in answer.strip() else answer
    final = final.strip().strip("$").removesuffix(".").strip("$").strip()
    return final if len(final) <= MAX_ANSWER_CHARACTERS else ""


def _level(row: Mapping[str, object]) -> int:
    """MATH writes "Level 3" or 3."""
    digits = [int(character) for character in str(row.get("level", "1")) if character in "12345"]
    return digits[0] if digits else 1
