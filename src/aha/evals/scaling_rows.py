"""What has to be sampled for the curves of test-time scaling: settings, pieces of work, rows. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import Field, model_validator

from aha.configuration import Config
from aha.evals.scaling import METHODS, REWARDED, Answered, Method, Source
from aha.tasks.datasets import is_right
from aha.tasks.families import FAMILIES, FamilyName, Level, held_out_suite
from aha.test_time.best_of_n import scores_by_verifier
from aha.test_time.budget_forcing import ANSWER_TOKENS, CLOSING_TOKENS, end_thinking_at, think_at_least
from aha.test_time.candidates import Candidate, Respondent, read
from aha.test_time.revision import revise
from aha.text.prompt_style import PromptStyle
from aha.types import Problem

WITHOUT_REWARDS: tuple[Method, ...] = tuple(method for method in METHODS if method not in REWARDED)

Rewards = Callable[[Sequence[Problem], Sequence[Sequence[Candidate]]], list[list[float | None]]]
"""Gives every candidate of every problem a reward in [0, 1]."""


class ScalingSettings(Config):
    """Which problems are asked, by which methods, and how far."""

    methods: tuple[Method, ...] = Field(WITHOUT_REWARDS, min_length=1, description="ways to spend tokens")
    families: tuple[FamilyName, ...] = Field(tuple(FAMILIES), description="families that are asked")
    levels: tuple[Level, ...] = Field((1, 2, 3, 4, 5), min_length=1, description="levels that are asked")
    problems_per_level: int = Field(12, gt=0, description="held-out problems per family and level")
    suite_seed: int = Field(0, description="of the choice of problems: the same for all seeds of a recipe")
    samples: int = Field(16, gt=0, le=1024, description="samples per problem, among which votes choose")
    repeats: int = Field(2, gt=0, description="independent answers per problem where thinking is prolonged or revised")
    budgets: tuple[int, ...] = Field(
        (16, 32, 64, 128, 256),
        min_length=1,
        description="tokens of thinking to which it is forced",
    )
    compared_at: tuple[int, ...] = Field(
        (32, 64, 128, 256, 512, 1024), description="tokens per question at which methods are compared"
    )
    rounds: int = Field(3, gt=0, description="revisions after the first answer")
    temperature: float = Field(1.0, gt=0, description="of sampling")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus")
    max_completion_tokens: int = Field(256, gt=0, description="limit of one sample, in tokens")
    room: int = Field(448, gt=0, description="limit of a completion with all that is put into it, in tokens")
    answer_tokens: int = Field(
        ANSWER_TOKENS, gt=0, description="room for the answer after a forced thinking, in tokens"
    )
    subsets: int = Field(64, gt=0, description="subsets of the samples over which a vote is averaged")
    reward_model: str = Field("", description="where the reward model is; needed by reward_vote and best_of_n")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name, numbers in (("budgets", self.budgets), ("compared_at", self.compared_at)):
            if list(numbers) != sorted(set(numbers)) or any(number < 1 for number in numbers):
                raise ValueError(f"{name} {numbers}: expected rising numbers of tokens from 1 on")
        forced = {"end_thinking", "wait"} & set(self.methods)
        needed = self.budgets[-1] + self.answer_tokens + CLOSING_TOKENS
        if forced and needed > self.room:
            raise ValueError(
                f"room = {self.room}: a budget of {self.budgets[-1]} tokens of thinking and an answer need "
                f"{needed}; raise room, or lower answer_tokens or the budget"
            )
        if self.max_completion_tokens > self.room:
            raise ValueError(f"room = {self.room}: less than max_completion_tokens = {self.max_completion_tokens}")
        if not self.reward_model and (rewarded := [method for method in self.methods if method in REWARDED]):
            raise ValueError(f"{rewarded[0]} needs a reward model: set reward_model, or leave it out of methods")
        return self

    def problems(self) -> list[Problem]:
        """The held-out problems that are asked."""
        return list(held_out_suite(self.families, self.levels, self.problems_per_level, self.suite_seed))

    def jobs(self) -> list[Job]:
        """What has to be sampled, piece by piece: each can be done, and done again, by itself."""
        sources = {METHODS[method].source for method in self.methods}
        jobs = [Job("samples", self.samples)] if {"samples", "end_thinking"} & sources else []
        jobs += [Job("wait", budget) for budget in self.budgets] if "wait" in sources else []
        return [*jobs, Job("revision", self.rounds)] if "revision" in sources else jobs


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work: a source at a setting (revisions: all rounds; samples: also cut off at all budgets)."""

    source: Source
    setting: int


def unfit_method(methods: Sequence[Method], style: PromptStyle) -> Method | None:
    """The first method that needs a thinking to take hold of in a prompt style that has none."""
    if style.thinks:
        return None
    return next((method for method in methods if METHODS[method].source != "samples"), None)


def answer(
    job: Job, respondent: Respondent, problems: Sequence[Problem], settings: ScalingSettings, rewards: Rewards | None
) -> list[Answered]:
    """Does one piece of work on some problems.

    Raises:
        GenerationError: a prompt does not fit the engine's context.
    """
    if job.source == "revision":
        return [row for number in range(settings.repeats) for row in _revised(job, respondent, problems, number)]
    if job.source == "wait":
        prolonged = think_at_least(respondent, problems, job.setting, settings.repeats, settings.answer_tokens)
        return _rows(problems, "wait", job.setting, prolonged)
    drawn = respondent.samples(problems, job.setting)
    samples = read(respondent, problems, drawn)
    rows = _rows(problems, "samples", 0, samples, rewards(problems, samples) if rewards else None)
    for budget in settings.budgets if "end_thinking" in settings.methods else ():
        cut = end_thinking_at(respondent, problems, drawn, budget, settings.answer_tokens)
        rows += _rows(problems, "end_thinking", budget, cut)
    return rows


def _rows(
    problems: Sequence[Problem],
    source: Source,
    setting: int,
    candidates: Sequence[Sequence[Candidate]],
    scores: Sequence[Sequence[float | None]] | None = None,
) -> list[Answered]:
    rows = []
    for place, (problem, own) in enumerate(zip(problems, candidates, strict=True)):
        right = scores_by_verifier(problem, own)
        for index, one in enumerate(own):
            reward = scores[place][index] if scores else None
            rows.append(_row(problem, source, setting, index, one, right[index] == 1.0, reward))
    return rows


def _revised(job: Job, respondent: Respondent, problems: Sequence[Problem], number: int) -> list[Answered]:
    """What stands after each round, with the cost of all rounds up to it; the completion is the last one written."""
    rows = []
    for problem, outcomes in zip(problems, revise(respondent, problems, job.setting, number), strict=True):
        for turn, one in enumerate(outcomes):
            right = one.vote is not None and is_right(problem, one.answer)
            rows.append(
                Answered(
                    problem.key,
                    problem.family,
                    problem.level,
                    problem.question,
                    job.source,
                    turn,
                    number,
                    one.vote,
                    right,
                    one.tokens,
                    one.forced_tokens,
                    one.seen[-1].thinking_tokens,
                    one.seen[-1].mean_logprob,
                    one.seen[-1].truncated,
                    one.seen[-1].text,
                )
            )
    return rows


def _row(
    problem: Problem, source: Source, setting: int, index: int, one: Candidate, right: bool, reward: float | None
) -> Answered:
    return Answered(
        problem.key,
        problem.family,
        problem.level,
        problem.question,
        source,
        setting,
        index,
        one.vote,
        right,
        one.tokens,
        one.forced_tokens,
        one.thinking_tokens,
        one.mean_logprob,
        one.truncated,
        one.text,
        reward,
    )
