"""GSM8K: school word problems whose answers are numbers, the gold one after `####` (Cobbe et al., arXiv:2110.14168)."""

from __future__ import annotations

from pathlib import Path

from aha.grading.math_answers import number, number_answer, same_number
from aha.tasks.rows import read_rows, text_of
from aha.types import Domain, Problem


class Gsm8k:
    """Rows of `question` and `answer`; ids are `gsm8k/<row from 0>`."""

    name = "gsm8k"
    domain: Domain = "math"
    file = "gsm8k/test.jsonl"
    needs_problem = False

    def load(self, path: Path) -> list[Problem]:
        """Reads the problems."""
        problems = []
        for index, (place, row) in enumerate(read_rows(path)):
            facts = {"question": text_of(row, place, "question"), "_id": f"gsm8k/{index}"}
            answer = text_of(row, place, "answer")
            problems.append(Problem(self.name, self.domain, 1, "en", facts["question"], _final(answer, place), facts))
        return problems

    def from_answer(self, answer: str) -> Problem:
        """A problem known by its gold answer: a number, or a solution that ends with `#### number`."""
        return Problem(self.name, self.domain, 1, "en", "", _final(answer, "answer"), {"answer": answer})

    def prepare(self) -> None:
        """Nothing is needed."""

    def verify(self, problem: Problem, answer: str) -> bool:
        """Equality of the two numbers, exactly."""
        return same_number(answer, problem.answer)

    def gold(self, problem: Problem) -> str:
        """The number."""
        return problem.answer

    def wrong_answers(self, problem: Problem) -> list[str]:
        """Off by one, the sign, ten times as much, two numbers, and no number."""
        value = number_answer(problem.answer)
        assert value is not None
        return [str(value + 1), str(-value - 1), str(value * 10 + 1), f"{value} or {value + 1}", "", "nan", "#### "]

    def close(self) -> None:
        """Nothing is held."""


def _final(answer: str, place: str) -> str:
    final = answer.rsplit("####", 1)[-1].strip()
    if number(final) is None:
        raise ValueError(f"{place}: {final[:40]!r} is not a number")
    return final
