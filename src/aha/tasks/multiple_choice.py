"""Multiple choice: rows of `question`, `choices` and the right one's letter, index or text as `answer`."""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from aha.data.rows import text_of
from aha.errors import ConfigError
from aha.grading.math_answers import letter
from aha.tasks.file_task import FileTask
from aha.types import Domain, Problem


class MultipleChoice(FileTask):
    """Questions with lettered choices; ids are the row's `id`, else `choice/<row from 0>`."""

    name = "choice"
    domain: Domain = "science"
    files: Mapping[str, str] = {"train": "choice/train.jsonl", "test": "choice/test.jsonl"}
    instruction = 'Think step by step, and end with "The answer is" and the letter of the right choice.'

    def problem(self, row: Mapping[str, Any], place: str, index: int) -> Problem:
        """A question with its choices below."""
        question, choices = text_of(row, place, "question"), row.get("choices")
        if (
            not isinstance(choices, list)
            or not 2 <= len(choices) <= len(ascii_uppercase)
            or not all(isinstance(choice, str) and choice.strip() for choice in choices)
        ):
            raise ConfigError(f"{place}: 'choices' must be a list of 2 to 26 texts")
        lettered = dict(zip(ascii_uppercase, choices, strict=False))
        shown = "\n".join([question, *(f"{name}. {choice}" for name, choice in lettered.items())])
        facts = {"question": question, "choices": lettered, "_id": str(row.get("id", f"choice/{index}"))}
        return self._problem(shown, _right_letter(row.get("answer"), lettered, place), facts)

    def from_answer(self, answer: str) -> Problem:
        """A problem known by its right letter."""
        if len(answer.strip()) != 1 or answer.strip() not in ascii_uppercase:
            raise ValueError(f"answer: {answer[:40]!r} is not a letter from A to Z")
        return self._problem("", answer.strip(), {"answer": answer.strip()})

    def verify(self, problem: Problem, answer: str) -> bool:
        """Whether exactly the right letter, or the right choice in full, is chosen."""
        return letter(answer, problem.facts.get("choices")) == problem.answer

    def canonical(self, problem: Problem, answer: str) -> str | None:
        """The letter."""
        return letter(answer, problem.facts.get("choices"))

    def wrong_answers(self, problem: Problem) -> list[str]:
        """Every other letter, two at once, and none."""
        names = list(problem.facts.get("choices", ascii_uppercase[:4]))
        others = [name for name in names if name != problem.answer]
        return [*others, f"{problem.answer} or {others[0]}", f"({problem.answer}) ({others[0]})", "", "?"]


def _right_letter(answer: Any, choices: dict[str, str], place: str) -> str:
    names = list(choices)
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(names):
        return names[answer]
    if isinstance(answer, str) and answer.strip() in choices:
        return answer.strip()
    matches = [name for name, text in choices.items() if text == answer]
    if len(matches) != 1:
        raise ConfigError(f"{place}: 'answer' must be a choice's letter, its index from 0, or its text")
    return matches[0]
