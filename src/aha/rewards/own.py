"""Reward functions of the user's own.

Such a function is given the prompt's question, the completion's text and the row's columns, and returns a number in
[0, 1], or None where it has no verdict (the sample is then dropped, not scored 0):

    def brevity(prompt: str, completion: str, columns: dict) -> float | None:
        return 1.0 if len(completion) < 400 else 0.0

It runs in the grader's process, which is killed when it takes too long.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from aha.errors import ConfigError
from aha.references import load_reference
from aha.types import Problem

RewardFunction = Callable[[str, str, Mapping[str, Any]], float | None]


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
    """Calls a reward function; what it raises is no verdict."""
    columns = problem.facts.get("_columns") or {**problem.facts, "answer": problem.answer}
    function = load_reward(reference)
    try:
        value = function(problem.question, completion, columns)
    except Exception:  # noqa: BLE001 - grading: a failure is data, the sample is dropped
        return None
    return float(value) if isinstance(value, int | float) else None
