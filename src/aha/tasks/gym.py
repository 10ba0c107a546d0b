"""Any dataset of reasoning-gym as a task: `gym:NAME`, with puzzles made as they are asked for."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aha.data
from aha.data.reasoning_gym import COMPARED, MOST_CHARACTERS, REFUSED, same_text
from aha.data.rows import text_of
from aha.data.sources import GYM
from aha.environment import install_command
from aha.errors import CannotGradeError, ConfigError, GradingError
from aha.grading.sandbox.library import Library
from aha.grading.sandbox.local import Sandbox
from aha.grading.sandbox.outcome import SandboxConfig
from aha.tasks.file_task import FileTask
from aha.types import Domain, Problem

SECONDS_PER_ANSWER = 5.0
MEMORY_MIB = 2048
"""Address space of a judge: numpy and sympy are loaded."""
JUDGE = tuple(Path(aha.data.__file__).with_name(f"{name}.py") for name in ("gym_worker", "reasoning_gym"))
"""What of this package the sandbox sees beside reasoning-gym."""
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
        self._sandbox: Sandbox | None = None

    def problem(self, row: Mapping[str, Any], place: str, index: int) -> Problem:
        """A puzzle; what its judge needs is kept beside it."""
        question, entry = text_of(row, place, "question"), row.get("entry")
        if not isinstance(entry, dict):
            raise ConfigError(f"{place}: no 'entry': rows of {self.name!r} are made by reasoning-gym")
        answer = row.get("answer")
        facts = {"question": question, "_id": f"{self.name}/{index}", "_entry": entry}
        return self._problem(question, "" if answer is None else str(answer), facts)

    def from_answer(self, answer: str) -> Problem:
        """What was asked cannot be told from an answer alone."""
        raise ValueError(f"answers to {self.name!r} are judged by the puzzle: name the problem")

    def prepare(self) -> None:
        """Starts the sandbox in which answers are judged: a judge may be led to run what it reads.

        Raises:
            GradingError: reasoning-gym is not installed, or no isolation proves itself here.
        """
        if importlib.util.find_spec("reasoning_gym") is None:
            raise CannotGradeError(f"these puzzles are reasoning-gym's, an extra: {install_command('gym')}")
        if self._sandbox is None and self._dataset not in COMPARED:
            library = Library(("reasoning-gym",), JUDGE, "aha.data.gym_worker:score", (self._dataset, "0", {}))
            sandbox = Sandbox(SandboxConfig(seconds=SECONDS_PER_ANSWER, memory_mib=MEMORY_MIB), library=library)
            sandbox.start()
            self._sandbox = sandbox

    def verify(self, problem: Problem, answer: str) -> bool:
        """Whether what a text gives as its answer is wholly right.

        Raises:
            GradingError: the judge did not come to an end.
        """
        given, entry = stated(answer), problem.facts["_entry"]
        if self._dataset in COMPARED:
            return len(given) <= MOST_CHARACTERS and same_text(given, str(entry["answer"]))
        self.prepare()
        assert self._sandbox is not None
        try:
            verdict: object = self._sandbox.call(self._dataset, given.encode(errors="replace").decode(), entry)
        except GradingError as error:
            raise GradingError(f"no verdict on {given[:40]!r}: {error}") from error
        return verdict is True

    def canonical(self, problem: Problem, answer: str) -> str | None:
        """The answer's words."""
        return " ".join(stated(answer).split()) or None

    def wrong_answers(self, problem: Problem) -> list[str]:
        """Nonsense, some of which reasoning-gym's own judges pay for."""
        return ["", "nan", "0.5 or 7", "None of it", "I do not know"]

    def close(self) -> None:
        """Ends the sandbox."""
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None


def stated(text: str) -> str:
    """What follows the last "answer is" or "answer:", of however many lines; else the whole text."""
    return _CUE.split(text)[-1].strip().removeprefix(":").strip()
