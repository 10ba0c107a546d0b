"""The rubric: named rewards, their weights, and one graded number a completion."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pydantic import Field, model_validator

from aha.configuration import Config
from aha.errors import GradingError
from aha.grading.sandbox.outcome import default_sandbox
from aha.rewards.own import RewardFunctionError, own_reward, short_name
from aha.rewards.reflection import reflection
from aha.rewards.rules import accuracy, format_reward, language_reward, random_reward, step_reward
from aha.text.thinking import parse
from aha.types import Problem
from aha.workers import KillableWorker

PARTS = ("accuracy", "format", "language", "steps", "random")
"""The built-in rewards that have a weight."""
TAKEN = (*PARTS, "preference", "true_score")
"""Names in the log that no function of the user's may have."""


class RubricConfig(Config):
    """Weights of the rewards; R1-Zero adds accuracy and format with the same weight (R1 2.2.2)."""

    accuracy: float = Field(1.0, ge=0, description="weight of a right answer")
    format: float = Field(1.0, ge=0, description="weight of the strict form")
    language: float = Field(0.0, ge=0, description="weight of language consistency (R1 Eq. 7)")
    steps: float = Field(0.0, ge=0, description="weight of the process reward; off, as in the papers (R1 4.2)")
    random: float = Field(0.0, ge=0, description="weight of a coin flip: the control arm")
    seed: int = Field(0, description="seed of the coin")
    seconds: float = Field(
        5.0, gt=0, description="time limit for grading one completion, beside what a program may take in the sandbox"
    )
    functions: dict[str, float] = Field(
        default_factory=dict, description="rewards of your own, module:function or file.py:function, and their weights"
    )

    @model_validator(mode="after")
    def _weighed(self) -> RubricConfig:
        if any(weight < 0 for weight in self.functions.values()):
            raise ValueError("functions: a weight must not be below 0")
        names = Counter(map(short_name, self.functions))
        for reference in self.functions:
            name = short_name(reference)
            if name in TAKEN:
                raise ValueError(f"functions: {reference!r} has the name of a built-in reward: rename the function")
            if names[name] > 1:
                raise ValueError(f"functions: {names[name]} functions are named {name!r}: rename all but one of them")
        return self

    def weights(self) -> dict[str, float]:
        """Weight by reward name."""
        named = {name: getattr(self, name) for name in PARTS}
        return named | {short_name(reference): weight for reference, weight in self.functions.items()}


@dataclass(frozen=True, slots=True)
class Grade:
    """Rewards of one completion by part, unweighted, and their weighted sum."""

    parts: dict[str, float]
    reward: float
    reflection: dict[str, int] = field(default_factory=dict)
    """`rewards.reflection`: of the log alone."""


def grade(
    problem: Problem, completion: str, truncated: bool, config: RubricConfig, answer_tags: bool = True
) -> Grade | None:
    """Scores one completion by all rewards; those of weight 0 are measured too, for the log.

    Args:
        problem: what was asked.
        completion: from the think tag on, whoever wrote that.
        truncated: it ran into its length limit.
        config: weights.
        answer_tags: whether a well-formed completion has its answer between tags.

    Returns:
        None where a reward gives no verdict or a value that is not finite or not in [0, 1]: the sample is dropped.

    Raises:
        RewardFunctionError: a function of the user's does not work: the sample is dropped.
    """
    parsed = parse(completion, truncated=truncated, answer_tags=answer_tags)
    parts: dict[str, float | None] = {
        "accuracy": accuracy(problem, parsed),
        "format": format_reward(problem, parsed),
        "language": language_reward(problem, parsed),
        "steps": step_reward(problem, parsed),
        "random": random_reward(problem, completion, config.seed),
    }
    for reference in config.functions:
        parts[short_name(reference)] = own_reward(reference, problem, completion)
    graded = add_up(parts, config.weights())
    return None if graded is None else replace(graded, reflection=reflection(problem, parsed))


def add_up(parts: dict[str, float | None], weights: dict[str, float]) -> Grade | None:
    """Adds rewards up, or returns None where one of them is no number in [0, 1]."""
    values = {name: value for name, value in parts.items() if value is not None and math.isfinite(value)}
    if len(values) < len(parts) or any(not 0.0 <= value <= 1.0 for value in values.values()):
        return None
    return Grade(values, sum(weights[name] * value for name, value in values.items()))


def grade_json(
    problem: dict[str, Any], completion: str, truncated: bool, config: dict[str, Any], answer_tags: bool
) -> dict[str, Any]:
    """`grade` over JSON values, for a worker process: a grade or none, or the function that failed and how."""
    try:
        result = grade(Problem(**problem), completion, truncated, RubricConfig(**config), answer_tags)
    except RewardFunctionError as error:
        return {"failed": error.reference, "why": str(error)}
    return {"grade": None if result is None else [result.parts, result.reward, result.reflection]}


class Grader:
    """Scores batches in a killable worker process.

    Args:
        config: the rubric.
        seconds_per_item: time limit for one completion, beside what a program may take in the sandbox: one that runs
            to the sandbox's limit is wrong, and would be dropped if grading ended first.
        answer_tags: as in `grade`.
        notify: is told how each function of the user's fails, the first time that it does.
    """

    def __init__(
        self,
        config: RubricConfig,
        seconds_per_item: float = 2.0,
        answer_tags: bool = True,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._config = config.model_dump()
        self._answer_tags, self._notify = answer_tags, notify
        self._notified: set[str] = set()
        self._worked = False
        self._worker = KillableWorker("aha.rewards.rubric:grade_json", seconds_per_item + default_sandbox().seconds)

    def grade(self, items: Sequence[tuple[Problem, str, bool]]) -> list[Grade | None]:
        """Grades (problem, completion, truncated) triples in order.

        Raises:
            GradingError: functions of the user's failed, or grading took too long, on every completion of the first
                batch.
        """
        rows = [
            (asdict(problem), completion.encode(errors="replace").decode(), truncated, self._config, self._answer_tags)
            for problem, completion, truncated in items
        ]
        seconds = self._worker.seconds_per_item
        lost = {"failed": "grading", "why": f"grading a completion took over {seconds:g} seconds, or ended its process"}
        results = [result or lost for result in self._worker.grade(rows)]
        self._report([result for result in results if "failed" in result], len(results))
        return [Grade(*result["grade"]) if result.get("grade") else None for result in results]

    def _report(self, failures: Sequence[dict[str, str]], count: int) -> None:
        if failures and len(failures) == count and not self._worked:
            raise GradingError(f"{failures[0]['why']}; none of the first {count} completions could be graded")
        self._worked = self._worked or count > 0
        for failure in failures:
            if failure["failed"] not in self._notified:
                self._notified.add(failure["failed"])
                self._notify(f"{failure['why']}; completions on which it fails are dropped (this is said once)")

    def close(self) -> None:
        """Ends the worker."""
        self._worker.close()
