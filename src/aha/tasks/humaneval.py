"""HumanEval-style code: complete a function, judged by its tests in a sandbox (Chen et al., arXiv:2107.03374).

Rows have `task_id`, `prompt`, `entry_point`, `test` (which defines `check(candidate)`) and, for showing what is right,
`canonical_solution`. The tests' expected outputs are never where the program is: see `aha.grading.sandbox.checks`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aha.data.rows import text_of
from aha.grading.sandbox.checks import make_runner
from aha.grading.sandbox.outcome import CodeRunner, FunctionTest, SandboxConfig
from aha.tasks.file_task import FileTask
from aha.types import Domain, Problem, Solution

MAX_PROGRAM_CHARACTERS = 100_000
_FENCE = re.compile(
    r"^```[ \t]*(?:python|py|python3)?[ \t]*\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE | re.IGNORECASE
)


class HumanEval(FileTask):
    """Functions to complete. The sandbox is started, and has to prove itself, when the first answer is judged.

    Args:
        config: the sandbox's limits, or its URL.
    """

    name = "humaneval"
    domain: Domain = "code"
    files: Mapping[str, str] = {"test": "humaneval/HumanEval.jsonl.gz"}
    hub = "openai/openai_humaneval"
    needs_problem = True
    instruction = "Complete this Python function. Answer with the whole function in one code block."

    def __init__(self, config: SandboxConfig | None = None) -> None:
        self.config = config or SandboxConfig()
        self._runner: CodeRunner | None = None

    def problem(self, row: Mapping[str, Any], place: str, index: int) -> Problem:
        """A function's beginning, with its tests."""
        facts = {name: text_of(row, place, name) for name in ("prompt", "entry_point", "test")}
        facts["_id"] = text_of(row, place, "task_id")
        return self._problem(facts["prompt"], str(row.get("canonical_solution") or ""), facts)

    def from_answer(self, answer: str) -> Problem:
        """There is no telling from a solution what its tests are."""
        raise ValueError("a code task is judged by its tests: name the problem by its id")

    def extract(self, text: str) -> str:
        """The last fenced block of Python, else the text."""
        blocks = [match["code"] for match in _FENCE.finditer(text)]
        return blocks[-1] if blocks else text

    def prepare(self) -> None:
        """Starts the sandbox.

        Raises:
            GradingError: no isolation proves itself; the message says how to get one.
        """
        if self._runner is None:
            self._runner = make_runner(self.config)

    def verify(self, problem: Problem, answer: str) -> bool:
        """Whether the function passes its tests.

        Raises:
            GradingError: no isolation proves itself, or the sandbox broke down.
        """
        program = self.program(problem, self.extract(answer))
        if not answer.strip() or len(program) > MAX_PROGRAM_CHARACTERS:
            return False
        self.prepare()
        assert self._runner is not None
        facts = problem.facts
        return self._runner.check(program, FunctionTest(facts["entry_point"], facts["test"], facts["prompt"])).passed

    def program(self, problem: Problem, code: str) -> str:
        """The whole program: a full function goes behind the prompt and replaces its stub, a body continues it."""
        prompt, name = problem.facts["prompt"], re.escape(problem.facts["entry_point"])
        whole = re.search(rf"^(?:(?:async\s+)?def\s+{name}\s*\(|{name}\s*[=:]|class\s+{name}\b)", code, re.MULTILINE)
        stub = " pass" if prompt.rstrip().endswith(":") else ""  # without a docstring it has no body of its own
        return f"{prompt.rstrip()}{stub}\n\n{code}" if whole else prompt + code

    def canonical(self, problem: Problem, answer: str) -> str | None:
        """The program itself: two programs are one answer only if they are the same, up to space at the ends of lines.

        What they do on inputs is not asked: running other programs' tests in a vote would be looking at the truth.
        """
        code = "\n".join(line.rstrip() for line in self.extract(answer).strip("\n").split("\n"))
        return code if code.strip() else None

    def solution(self, problem: Problem) -> Solution | None:
        """None: the data hold functions without the thinking behind them, and they are for evaluation."""
        return None

    def wrong_answers(self, problem: Problem) -> list[str]:
        """No body, a constant, ways out, and a function that claims to equal everything."""
        return [
            "    pass\n",
            "    return 0\n",
            "    import os; os._exit(0)\n",
            "    raise SystemExit(0)\n",
            "    class Yes(str):\n        __eq__ = lambda *_: True\n        __hash__ = None\n    return Yes('?')\n",
            "    import builtins; builtins.AssertionError = Exception\n    print('passed')\n",
        ]

    def close(self) -> None:
        """Ends the sandbox."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None
