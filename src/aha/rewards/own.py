"""Reward functions of the user's own.

Such a function is given the prompt's question, the completion's text and the row's columns, and returns a number in
[0, 1], or None where it has no verdict (the sample is then dropped, not scored 0):

    def brevity(prompt: str, completion: str, columns: dict) -> float | None:
        return 1.0 if len(completion) < 400 else 0.0

It runs in the grader's process, which is killed when it takes too long.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from aha.errors import ConfigError, GradingError
from aha.files import file_sha256, fingerprint
from aha.references import load_reference, reference_file
from aha.types import Problem

RewardFunction = Callable[[str, str, Mapping[str, Any]], SupportsFloat | None]
_EXPECTED = "it must be a number in [0, 1], or None"


class RewardFunctionError(GradingError):
    """A reward function of the user's does not work: it cannot be loaded, raised, or returned what is no reward."""

    def __init__(self, reference: str, fault: str) -> None:
        super().__init__(f"reward {reference!r} {fault}")
        self.reference = reference


def short_name(reference: str) -> str:
    """The name of a reward in logs: the function's."""
    return reference.rpartition(":")[2]


@functools.cache
def load_reward(reference: str) -> RewardFunction:
    """Imports a reward function.

    Raises:
        ConfigError: there is none.
    """
    function = load_reference(reference)
    if not callable(function):
        raise ConfigError(f"reward {reference!r} is not a function")
    return function


def own_reward(reference: str, problem: Problem, completion: str) -> float | None:
    """Calls a reward function.

    Returns:
        A number in [0, 1], or None where the function has no verdict.

    Raises:
        RewardFunctionError: the function cannot be loaded, raised, or returned something else.
    """
    columns = problem.facts.get("_columns") or {**problem.facts, "answer": problem.answer}
    try:
        value = load_reward(reference)(problem.question, completion, columns)
    except (Exception, SystemExit) as error:
        raise RewardFunctionError(reference, _raised(error)) from error
    try:
        reward = float(value) if isinstance(value, SupportsFloat) else None
    except Exception as error:
        fault = f"returned {type(value).__name__}, which is no number ({_said(error)}): {_EXPECTED}"
        raise RewardFunctionError(reference, fault) from error
    if value is None or (reward is not None and 0.0 <= reward <= 1.0):
        return reward
    shown = type(value).__name__ if reward is None else reward
    raise RewardFunctionError(reference, f"returned {shown}: {_EXPECTED}")


def _raised(error: BaseException) -> str:
    """What was raised, and the line in the user's file that led to it."""
    if isinstance(error, ConfigError | SyntaxError):
        return f"cannot be loaded: {error}"
    said = _said(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    if not frames:
        return f"cannot be called: {said}"
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return f"raised {said} ({own[-1].filename}, line {own[-1].lineno})"


def _said(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()[:300]


def _is_ours(file: str) -> bool:
    """Whether a file is this package's, or Python's importing."""
    return Path(__file__).parents[1] in Path(file).parents or "importlib" in file


def functions_identity(references: Iterable[str]) -> str:
    """The hash of the files that hold reward functions, so that a stage that uses them is redone when they change.

    What these files import is not looked at.

    Returns:
        An empty text for no functions.

    Raises:
        ConfigError: a file or module is not there.
    """
    files = {reference: reference_file(reference) for reference in references}
    return fingerprint({name: file_sha256(path) if path else "" for name, path in files.items()}) if files else ""
