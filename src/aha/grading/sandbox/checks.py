"""Programs tested here: the program in one sandbox, the tests of its function in another, the parent in between.

The tests call the function through the parent, which carries arguments one way and results the other, as text. So the
program is never where the expected outputs and the assertions are: there is nothing to read, to patch or to skip, and
the only thing it can say is what its function returns. The tests are not trusted either, they are somebody's data;
that is why they run in a sandbox too.

What remains: the program sees the arguments, so tests can be answered by a table of them, as anywhere; results travel
as plain data (`inside.values`), so tests that need the very object, its identity or its side effects on an argument
cannot pass; and the kernel is shared, so its bugs are, too.
"""

from __future__ import annotations

from typing import Any

from aha.errors import CannotGradeError, GradingError
from aha.grading.sandbox.local import Sandbox
from aha.grading.sandbox.outcome import CodeRunner, Ending, FunctionTest, Outcome, SandboxConfig, Verdict, is_answer
from aha.grading.sandbox.remote import RemoteSandbox


class LocalRunner:
    """Two sandboxes of this machine: one for programs, one for tests, started when first needed."""

    def __init__(self, config: SandboxConfig) -> None:
        self.programs = Sandbox(config)
        self.tests = Sandbox(config)

    def run(self, source: str, stdin: str = "") -> Outcome:
        """Runs a program to its end."""
        return self.programs.run(source, stdin)

    def check(self, source: str, test: FunctionTest) -> Verdict:
        """Tests a program's function within the time limit, definition and tests together.

        Raises:
            GradingError: no isolation proves itself, it broke down, or the tests themselves do not run.
        """
        with self.programs.turn, self.tests.turn:
            self.tests.start()
            program = self.programs.open({"mode": "calls", "source": source, "entry_point": test.entry_point})
            try:
                defined = program.receive()
                if not isinstance(defined, dict) or defined.get("defined") is not True:
                    return Verdict(False, _why(defined, program.finish()))
                request = {"mode": "check", "entry_point": test.entry_point, "test": test.test, "prompt": test.prompt}
                tests = self.tests.open(request)
                try:
                    return self._converse(program, tests)
                finally:
                    tests.finish(at_once=True)
            finally:
                program.finish(at_once=True)

    def _converse(self, program: Any, tests: Any) -> Verdict:
        while True:
            word = tests.receive()
            if not isinstance(word, dict):
                return Verdict(False, f"the tests: {tests.finish().ending}")
            if "broken" in word:
                raise GradingError(f"the tests do not run: {str(word['broken'])[:300]}")
            if "call" not in word:
                return Verdict(word.get("passed") is True, str(word.get("why", ""))[:500])
            program.send({"call": word["call"]})
            answer = program.receive()
            if not is_answer(answer):
                return Verdict(False, _why(answer, program.finish()))
            tests.send(answer)

    def close(self) -> None:
        """Ends both sandboxes."""
        self.programs.close()
        self.tests.close()


def _why(answer: Any, outcome: Outcome) -> str:
    if isinstance(answer, dict) and isinstance(answer.get("error"), list):
        return ": ".join(str(part) for part in answer["error"])[:500]
    if outcome.ending is not Ending.EXITED:
        return f"the program: {outcome.ending}"
    return f"the program ended by itself, with exit code {outcome.exit_code}"


def make_runner(config: SandboxConfig | None = None) -> CodeRunner:
    """The runner that a configuration asks for.

    A local one is started and proven at once, a remote one is asked for a first result: where that fails, nobody should
    come to believe that programs are graded.

    Raises:
        CannotGradeError: no isolation proves itself, or the remote one does not answer; the message says what to do.
    """
    config = config or SandboxConfig()
    if config.url is not None:
        remote = RemoteSandbox(config)
        try:
            answers = remote.run("print(6 * 7)").stdout.strip() == "42"
        except GradingError as error:
            raise CannotGradeError(f"programs cannot be graded: {error}") from error
        if not answers:
            raise CannotGradeError(f"programs cannot be graded: the remote sandbox {config.url!r} does not run Python")
        return remote
    runner = LocalRunner(config)
    try:
        runner.programs.start()
    except GradingError:
        runner.close()
        raise
    return runner
