"""From problems to graded groups: prompts, completions, rewards, advantages."""

from __future__ import annotations

from collections.abc import Sequence

from aha.protocols import Generator
from aha.rewards.preference import PreferenceReward
from aha.rewards.rubric import Grader, RubricConfig, add_up
from aha.rewards.rules import format_reward, language_reward
from aha.rl.advantage import group_advantages
from aha.tasks.families import get_general
from aha.text.elicitation import PREFILLED, Elicitation, request_for, text_of
from aha.text.thinking import Form, parse
from aha.text.tokenizer import THINK, Tokenizer
from aha.types import FinishReason, Problem, Rollout, RolloutGroup


def collect(
    generator: Generator,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    seeds: Sequence[int],
    group_size: int,
    max_completion_tokens: int,
    temperature: float,
    form: Form = "zero",
    think_prefilled: bool = False,
) -> list[RolloutGroup]:
    """Samples G completions of each problem; rewards are still to come.

    Args:
        generator: whatever samples.
        tokenizer: of the policy.
        problems: what is asked.
        seeds: one per problem.
        group_size: completions per problem.
        max_completion_tokens: the length limit.
        temperature: of sampling.
        form: R1-Zero's template, or the chat format, whose prompt always ends inside the thinking.
        think_prefilled: R1-Zero's template ends inside the thinking too (to see what a base can do when it thinks).
    """
    asked: Elicitation = "zero_think" if form == "zero" and think_prefilled else form
    requests = [
        request_for(tokenizer, problem, asked, group_size, seed, max_completion_tokens, temperature)
        for problem, seed in zip(problems, seeds, strict=True)
    ]
    prefix = THINK if asked in PREFILLED else ""
    groups = []
    for problem, request, completions in zip(problems, requests, generator.generate(requests), strict=True):
        group = RolloutGroup(problem, request.prompt_token_ids)
        for completion in completions:
            text = prefix + text_of(tokenizer, completion)[0]
            group.rollouts.append(Rollout(completion.token_ids, completion.logprobs, completion.finish_reason, text))
        groups.append(group)
    return groups


def grade_reasoning(grader: Grader, groups: Sequence[RolloutGroup]) -> None:
    """Fills in rule rewards; None where the grader gave no verdict."""
    items = [
        (group.problem, rollout.text, rollout.finish_reason is not FinishReason.STOP)
        for group in groups
        for rollout in group.rollouts
    ]
    grades = iter(grader.grade(items))
    for group in groups:
        for rollout in group.rollouts:
            grade = next(grades)
            rollout.rewards = grade.parts if grade else {}
            rollout.reward = grade.reward if grade else None


def grade_general(
    preference: PreferenceReward, groups: Sequence[RolloutGroup], rubric: RubricConfig, weight: float, form: Form
) -> None:
    """Fills in the rewards of general prompts: preference + format + language (R1 Eqs. 8-10).

    The world's own score of each response is kept beside them, and used for nothing.
    """
    rollouts = [(group.problem, rollout) for group in groups for rollout in group.rollouts]
    parsed = [
        parse(rollout.text, truncated=rollout.finish_reason is not FinishReason.STOP, form=form)
        for _, rollout in rollouts
    ]
    shown = [one.summary if one.well_formed else "" for one in parsed]
    triples = zip(rollouts, parsed, shown, strict=True)
    scores = preference.rewards([(problem, one.thinking, response) for (problem, _), one, response in triples])
    for (problem, rollout), one, score in zip(rollouts, parsed, scores, strict=True):
        parts = {
            "preference": score,
            "format": format_reward(problem, one),
            "language": language_reward(problem, one),
            "true_score": get_general(problem.family).score(problem, one.summary) if one.well_formed else 0.0,
        }
        weights = {"preference": weight, "format": rubric.format, "language": rubric.language, "true_score": 0.0}
        grade = add_up(parts, weights)
        rollout.rewards = grade.parts if grade else {}
        rollout.reward = grade.reward if grade else None


def assign_advantages(groups: Sequence[RolloutGroup], divide_by_std: bool) -> None:
    """R1 Eq. 3 over each group's graded rollouts; the others keep 0 and are left out of the loss."""
    for group in groups:
        graded = [rollout for rollout in group.rollouts if rollout.reward is not None]
        rewards = [rollout.reward for rollout in graded if rollout.reward is not None]
        for rollout, advantage in zip(graded, group_advantages(rewards, divide_by_std), strict=True):
            rollout.advantage = advantage
