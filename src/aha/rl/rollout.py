"""From problems to graded groups: prompts, completions, rewards, advantages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from aha.rewards.preference import PreferenceReward
from aha.rewards.rubric import Grader, RubricConfig, add_up
from aha.rewards.rules import format_reward, language_reward
from aha.rl.advantage import advantages_of_each, group_advantages
from aha.tasks.families import get_general
from aha.text.asker import Asker
from aha.text.thinking import parse
from aha.text.tokenizer import THINK
from aha.types import FinishReason, Problem, Rollout, RolloutGroup, SamplingParams


def sample_groups(
    asker: Asker, problems: Sequence[Problem], sampling: Sequence[SamplingParams], seeds: Sequence[int]
) -> list[RolloutGroup]:
    """Samples G = `sampling[i].n` completions of problem i; rewards are still to come.

    Args:
        asker: the policy in its prompt style.
        problems: to ask.
        sampling: how, one per problem.
        seeds: one per problem.
    """
    prefix = THINK if asker.style.prefilled else ""
    groups = []
    for problem, replies in zip(problems, asker.ask(problems, sampling, seeds), strict=True):
        group = RolloutGroup(problem, tuple(asker.style.prompt(asker.tokenizer, problem)))
        for reply in replies:
            one = reply.completion
            rollout = Rollout(one.token_ids, one.logprobs, one.finish_reason, prefix + reply.text)
            if one.experts is not None:
                group.prompt_experts, rollout.experts = np.split(one.experts, [len(group.prompt_token_ids)])
            group.rollouts.append(rollout)
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
    preference: PreferenceReward, groups: Sequence[RolloutGroup], rubric: RubricConfig, weight: float, answer_tags: bool
) -> None:
    """Fills in the rewards of general prompts: preference + format + language (R1 Eqs. 8-10).

    The world's own score of each response is kept beside them, and used for nothing.
    """
    rollouts = [(group.problem, rollout) for group in groups for rollout in group.rollouts]
    parsed = [
        parse(rollout.text, truncated=rollout.finish_reason is not FinishReason.STOP, answer_tags=answer_tags)
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
        grade = add_up(parts, general_weights(rubric, weight))
        rollout.rewards = grade.parts if grade else {}
        rollout.reward = grade.reward if grade else None


def general_weights(rubric: RubricConfig, weight: float) -> dict[str, float]:
    """Weight by reward name on general prompts, for a weight of the preference reward."""
    return {"preference": weight, "format": rubric.format, "language": rubric.language, "true_score": 0.0}


def assign_advantages(
    groups: Sequence[RolloutGroup],
    divide_by_std: bool,
    weights_of: Callable[[Problem], Mapping[str, float]] | None = None,
) -> None:
    """R1 Eq. 3 over each group's graded rollouts; the others keep 0 and are left out of the loss.

    Args:
        groups: graded.
        divide_by_std: False leaves the division by the deviation out.
        weights_of: the weight of each reward on a problem, to normalise them one by one; None: their weighted sum is.
    """
    for group in groups:
        graded = [rollout for rollout in group.rollouts if rollout.reward is not None]
        if weights_of is None or not graded:
            rewards = [rollout.reward for rollout in graded if rollout.reward is not None]
            advantages = group_advantages(rewards, divide_by_std)
        else:
            columns = {name: [rollout.rewards[name] for rollout in graded] for name in graded[0].rewards}
            advantages = advantages_of_each(columns, weights_of(group.problem), divide_by_std)
        for rollout, advantage in zip(graded, advantages, strict=True):
            rollout.advantage = advantage


def rollout_row(step: int, group: RolloutGroup) -> dict[str, Any]:
    """A group with all its completions as a row of rollouts.jsonl."""
    return {
        "step": step,
        "family": group.problem.family,
        "level": group.problem.level,
        "question": group.problem.question,
        "gold": group.problem.answer,
        "completions": [
            {
                "text": rollout.text,
                "tokens": len(rollout.completion_token_ids),
                "finish_reason": rollout.finish_reason.value,
                "reward": rollout.reward,
                "rewards": rollout.rewards,
                "advantage": rollout.advantage,
            }
            for rollout in group.rollouts
        ],
    }
