"""A sandbox elsewhere, by URL: the `/run_code` of SandboxFusion and of what speaks like it.

    POST {url}/run_code   {"code": ..., "language": "python", "stdin": ..., "run_timeout": seconds}
    -> {"run_result": {"status": "Finished" or "TimeLimitExceeded", "return_code": 0, "stdout": ..., "stderr": ...}}

The operator of that service answers for its isolation; what comes back is bounded and taken for claims, as at home.
Program and tests never run together here either. A service that only runs whole programs cannot carry calls back and
forth, so the tests are run again and again: each time they get the answers that are known, and stop at the first call
that is not. The program is then asked that call, after all calls before it. Tests with n calls take 2n + 1 requests.
"""

from __future__ import annotations

import inspect
import json
import secrets
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from aha.errors import ConfigError, GradingError
from aha.grading.sandbox.inside import values
from aha.grading.sandbox.outcome import Ending, FunctionTest, Outcome, SandboxConfig, Verdict, is_answer

MAX_CALLS = 500
_EXTRA_SECONDS = 10.0
_VALUES = inspect.getsource(values)

_ANSWER = """
import builtins, sys, types
module = types.ModuleType("program")
sys.modules["program"] = module
answers = []
try:
    exec(compile({source!r}, "<program>", "exec"), module.__dict__)
    function = module.__dict__[{entry_point!r}]
    for call in {calls!r}:
        arguments, named = decode(call)
        try:
            answers.append({{"value": encode(function(*arguments, **named))}})
        except BaseException as error:
            answers.append({{"error": [type(error).__name__, str(error)[:500]]}})
except BaseException as error:
    answers = [{{"error": [type(error).__name__, str(error)[:500]]}}]
print()
print({nonce!r} + json.dumps(answers))
"""

_CHECK = """
import builtins, random, sys
answers = iter({answers!r})

class Unknown(BaseException):
    pass

class Broken(BaseException):
    pass

def candidate(*arguments, **named):
    answer = next(answers, None)
    if answer is None:
        try:
            call = encode((arguments, named))
        except (TypeError, ValueError) as error:
            raise Broken(str(error))
        raise Unknown(call)
    if "error" in answer:
        kind = getattr(builtins, answer["error"][0], None)
        known = isinstance(kind, type) and issubclass(kind, Exception) and kind is not StopIteration
        raise (kind if known else RuntimeError)(answer["error"][1])
    return decode(answer["value"])

names = {{"__name__": "check"}}
started = False
random.seed(0)
try:
    exec(compile({prompt!r}, "<prompt>", "exec"), names)
    names[{entry_point!r}] = candidate
    exec(compile({test!r}, "<test>", "exec"), names)
    check = names["check"]
    started = True
    check(candidate)
    word = {{"passed": True}}
except Broken as error:
    word = {{"broken": str(error)}}
except Unknown as unknown:
    word = {{"call": str(unknown)}}
except BaseException as error:
    word = {{"passed" if started else "broken": False, "why": (type(error).__name__ + ": " + str(error))[:500]}}
print()
print({nonce!r} + json.dumps(word))
"""


class RemoteSandbox:
    """Runs programs at `config.url`.

    Raises:
        ConfigError: the URL is not an http or https address.
    """

    def __init__(self, config: SandboxConfig) -> None:
        if (
            config.url is None
            or urlsplit(config.url).scheme not in ("http", "https")
            or not urlsplit(config.url).netloc
        ):
            raise ConfigError(f"sandbox url = {config.url!r}: must be an http:// or https:// address")
        self._config = config
        self._url = config.url.rstrip("/") + "/run_code"
        self._opener = urllib.request.build_opener(_NoRedirect())

    def run(self, source: str, stdin: str = "") -> Outcome:
        """Runs a program to its end.

        Raises:
            GradingError: the service cannot be reached, fails, or answers with something else.
        """
        order = {"code": source, "language": "python", "stdin": stdin, "run_timeout": self._config.seconds}
        order["memory_limit_MB"] = self._config.memory_mib
        body = json.dumps(order).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        most = (self._config.output_kib << 10) * 8
        try:
            with self._opener.open(request, timeout=self._config.seconds + _EXTRA_SECONDS) as response:
                text = response.read(most + 1)
            result = json.loads(text)["run_result"]
            status, code = result["status"], result.get("return_code")
            stdout, stderr = str(result.get("stdout") or ""), str(result.get("stderr") or "")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise GradingError(f"the remote sandbox {self._url!r} gave no result: {error}") from error
        if status not in ("Finished", "TimeLimitExceeded"):
            raise GradingError(f"the remote sandbox {self._url!r} gave no result: status {str(status)[:80]!r}")
        if status == "TimeLimitExceeded":
            return Outcome(Ending.TIME, None, stdout, stderr)
        if len(stdout.encode(errors="replace")) > self._config.output_kib << 10:
            return Outcome(Ending.OUTPUT, None, stdout[: self._config.output_kib << 10], stderr)
        return Outcome(Ending.EXITED, code if isinstance(code, int) else None, stdout, stderr)

    def check(self, source: str, test: FunctionTest) -> Verdict:
        """Tests a program's function.

        Raises:
            GradingError: as `run`; or the tests themselves do not run.
        """
        calls: list[str] = []
        answers: list[Any] = []
        while len(calls) <= MAX_CALLS:
            word = self._say(_CHECK, prompt=test.prompt, test=test.test, entry_point=test.entry_point, answers=answers)
            if not isinstance(word, dict):
                return Verdict(False, f"the tests: {word}")
            if "broken" in word:
                raise GradingError(f"the tests do not run: {str(word.get('why') or word['broken'])[:300]}")
            if "call" not in word:
                return Verdict(word.get("passed") is True, str(word.get("why", "")))
            calls.append(str(word["call"]))
            said = self._say(_ANSWER, source=source, entry_point=test.entry_point, calls=calls)
            if not isinstance(said, list) or len(said) != len(calls) or not all(map(is_answer, said)):
                return Verdict(False, f"the program: {str(said)[:500]}")
            answers = said
        raise GradingError(f"tests of more than {MAX_CALLS} calls need a local sandbox")

    def _say(self, template: str, **fields: Any) -> Any:
        """Runs a program made from a template and reads what it printed behind its nonce, or says how it ended."""
        nonce = secrets.token_hex(16)
        outcome = self.run(_VALUES + template.format(nonce=nonce, **fields))
        lines = [line.removeprefix(nonce) for line in outcome.stdout.splitlines() if line.startswith(nonce)]
        try:
            return json.loads(lines[-1]) if lines else str(outcome.ending)
        except (ValueError, RecursionError):
            return str(outcome.ending)

    def close(self) -> None:
        """Nothing is held."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Programs go to the address that was given, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        """Refuses."""
        return
