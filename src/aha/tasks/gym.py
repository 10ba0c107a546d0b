"""Any dataset of reasoning-gym as a task: `gym:NAME`, with puzzles made as they are asked for."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from typing import Any

from aha.data.reasoning_gym import COMPARED, MOST_CHARACTERS, REFUSED, same_text
from aha.data.rows import text_of
from aha.data.sources import GYM
from aha.errors import ConfigError, GradingError
from aha.tasks.file_task import FileTask
from aha.types import Domain, Problem
from aha.workers import KillableWorker

SECONDS_PER_ANSWER = 5.0
_CUE = re.compile(r"answer\s*(?:is)?\s*[:：]|answer is", re.IGNORECASE)


class Gym(FileTask):
    """One dataset.

    Args:
        name: `gym:` and the dataset's name.

    Raises:
        ConfigError: the dataset's judge executes answers.
    """

    domain: Domain = "logic"
    files: Mapping[str, str] = {}
    needs_problem = True
    instruction = 'Think step by step, and end with "The answer is:" and nothing but the answer.'

    def __init__(self, name: str) -> None:
        self.name = name
        self._dataset = name.removeprefix(GYM)
        if self._dataset in REFUSED:
            raise ConfigError(
                f"task {name!r} is refused: reasoning-gym's judge of it executes the text of an answer. Refused are "
                f"{', '.join(sorted(REFUSED))}"
            )
        self._worker: KillableWorker | None = None

    def problem(self, row: Mapping[str, Any], place: str, index: int) -> Problem:
        """A puzzle; what its judge needs is kept beside it."""
        question, entry = text_of(row, place, "question"), row.get("entry")
        if not isinstance(entry, dict):
            raise ConfigError(f"{place}: no 'entry': rows of {self.name!r} are made by reasoning-gym")
        answer = row.get("answer")
        facts = {"question": question, "_id": f"{self.name}/{index}", "_entry": entry}
        return self._problem(question, "" if answer is None else str(answer), facts)

    def from_answer(self, answer: str) -> Problem:
        """There is no telling from an answer what was asked."""
        raise ValueError(f"answers to {self.name!r} are judged by the puzzle: name the problem")

    def prepare(self) -> None:
        """Makes the worker.

        Raises:
            GradingError: reasoning-gym is not installed.
        """
        if importlib.util.find_spec("reasoning_gym") is None:
            raise GradingError("these puzzles are reasoning-gym's, an extra: pip install 'aha[gym]'")
        if self._worker is None:
            self._worker = KillableWorker("aha.data.gym_worker:score", SECONDS_PER_ANSWER)

    def verify(self, problem: Problem, answer: str) -> bool:
        """Whether what a text gives as its answer is wholly right.

        Raises:
            GradingError: the judge did not come to an end.
        """
        given, entry = stated(answer), problem.facts["_entry"]
        if self._dataset in COMPARED:
            return len(given) <= MOST_CHARACTERS and same_text(given, str(entry["answer"]))
        self.prepare()
        assert self._worker is not None
        (right,) = self._worker.grade([[self._dataset, given.encode(errors="replace").decode(), entry]])
        if right is None:
            raise GradingError(f"no verdict on {given[:40]!r} within {SECONDS_PER_ANSWER:g} s")
        return right is True

    def canonical(self, problem: Problem, answer: str) -> str | None:
        """The answer's words."""
        return " ".join(stated(answer).split()) or None

    def wrong_answers(self, problem: Problem) -> list[str]:
        """Nonsense, some of which reasoning-gym's own judges pay for."""
        return ["", "nan", "0.5 or 7", "None of it", "I do not know"]

    def close(self) -> None:
        """Ends the worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def stated(text: str) -> str:
    """What follows the last "answer is" or "answer:", of however many lines; else the whole text."""
    return _CUE.split(text)[-1].strip().removeprefix(":").strip()
