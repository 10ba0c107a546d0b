"""What a program may use, what became of it, and what was made of that."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from typing import Any, Protocol

import yaml
from pydantic import Field

from aha.configuration import Config, build_config
from aha.errors import ConfigError


class SandboxConfig(Config):
    """Where programs run and what each of them may use. There is no setting that runs one without isolation."""

    url: str | None = Field(None, description="a remote sandbox (its /run_code is called) instead of a local one")
    seconds: float = Field(
        5.0, gt=0, le=600, description="limit for one program or one set of tests, wall-clock seconds"
    )
    memory_mib: int = Field(512, ge=64, description="limit on a process' address space, MiB")
    processes: int = Field(16, ge=1, le=256, description="limit on a program's processes and threads together")
    output_kib: int = Field(
        256, ge=1, le=65536, description="limit on standard output; a program that exceeds it ends, KiB"
    )


SANDBOX_VARIABLE = "AHA_SANDBOX"
"""Names the sandbox of a process and of those that it starts: a URL, or settings of `SandboxConfig` as YAML."""


def default_sandbox() -> SandboxConfig:
    """The sandbox that AHA_SANDBOX names; a local one with the default limits where it names none.

    Raises:
        ConfigError: it is neither a URL nor settings.
    """
    said = os.environ.get(SANDBOX_VARIABLE, "").strip()
    if not said:
        return SandboxConfig()
    if said.startswith(("http://", "https://")):
        return SandboxConfig(url=said)
    named = f"{SANDBOX_VARIABLE} (--sandbox) = {said!r}"
    try:
        settings = yaml.safe_load(said)
    except yaml.YAMLError:
        settings = None
    if not isinstance(settings, dict):
        raise ConfigError(
            f"{named}: expected the URL of a remote sandbox, or settings such as {{seconds: 10, memory_mib: 1024}}"
        )
    return build_config(SandboxConfig, settings, named)


class Ending(enum.StrEnum):
    """Why a program ended."""

    EXITED = "exited"
    """By itself: see its exit code (negative: the signal)."""
    TIME = "time limit"
    OUTPUT = "output limit"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a program. Its exit code and its output are its own claims, never a verdict."""

    ending: Ending
    exit_code: int | None
    stdout: str
    stderr: str
    """Its first few kilobytes."""


@dataclass(frozen=True, slots=True)
class FunctionTest:
    """Tests of one function: HumanEval's form.

    `test` defines `check(candidate)`, which calls the candidate and asserts. `prompt` holds what the tests may use
    besides (helper functions); in it the function itself is replaced by the candidate.
    """

    entry_point: str
    test: str
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a program's function passes its tests, and why not."""

    passed: bool
    why: str = ""


class CodeRunner(Protocol):
    """Runs and tests programs, here or elsewhere."""

    def run(self, source: str, stdin: str = "") -> Outcome:
        """Runs a program to its end."""
        ...

    def check(self, source: str, test: FunctionTest) -> Verdict:
        """Tests a program's function. Raises GradingError where no verdict can be given."""
        ...

    def close(self) -> None:
        """Ends what was started."""
        ...


def same_output(printed: str, expected: str) -> bool:
    """Whether a program printed what was expected, up to space at the ends of lines and empty lines at the end."""
    ours, theirs = ([line.rstrip() for line in text.rstrip().split("\n")] for text in (printed, expected))
    return ours == theirs


def is_answer(answer: Any) -> bool:
    """Whether a message is a value, as text, or an error, as its type's name and a text. Its content is not judged."""
    if not isinstance(answer, dict) or len(answer) != 1:
        return False
    error = answer.get("error")
    is_error = isinstance(error, list) and len(error) == 2 and all(isinstance(part, str) for part in error)
    return isinstance(answer.get("value"), str) or is_error
