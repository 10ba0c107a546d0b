"""From problems to graded groups: prompts, completions, rewards, advantages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from aha.files import derive_seed
from aha.rewards.preference import PreferenceReward
from aha.rewards.rubric import Grader, RubricConfig, add_up
from aha.rewards.rules import format_reward, language_reward
from aha.rl.advantage import advantages_of_each, group_advantages
from aha.tasks.families import get_general
from aha.test_time.budget_forcing import wait_tokens
from aha.text.asker import Asker, Reply
from aha.text.tags import find_tag
from aha.text.thinking import parse
from aha.text.tokenizer import END_THINK, THINK
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
    groups = []
    for problem, replies in zip(problems, asker.ask(problems, sampling, seeds), strict=True):
        group = RolloutGroup(problem, tuple(asker.style.prompt(asker.tokenizer, problem)))
        group.rollouts += [_rollout(asker, group, reply) for reply in replies]
        groups.append(group)
    return groups


def _rollout(asker: Asker, group: RolloutGroup, reply: Reply) -> Rollout:
    """A reply as a rollout of a group, which gets the experts of its prompt."""
    one, prefix = reply.completion, THINK if asker.style.prefilled else ""
    rollout = Rollout(one.token_ids, one.logprobs, one.finish_reason, prefix + reply.text)
    if one.experts is not None:
        group.prompt_experts, rollout.experts = np.split(one.experts, [len(group.prompt_token_ids)])
    return rollout


def think_on(
    asker: Asker,
    groups: Sequence[RolloutGroup],
    sampling: Sequence[SamplingParams],
    seeds: Sequence[int],
    chosen: Sequence[bool],
) -> None:
    """Takes back the first end of each completion's thinking, puts "Wait" there as at test time, and lets it go on.

    Completions that did not end their thinking are left alone, and those that have used so much of their limit that
    less than a third of it would be left.

    Args:
        asker: the policy in its prompt style.
        groups: sampled, not yet graded.
        sampling: how they were sampled, one per group: the limits hold for all of a completion.
        seeds: those that they were sampled with.
        chosen: which groups are meant; the others stay as they are.
    """
    begun: list[tuple[RolloutGroup, int, list[int], range]] = []
    requests = []
    for group, how, seed, meant in zip(groups, sampling, seeds, chosen, strict=True):
        for number, rollout in enumerate(group.rollouts if meant else ()):
            start, forced = _begun(asker, group.problem, rollout)
            room = how.max_completion_tokens - len(start)
            if not forced or 3 * room < how.max_completion_tokens:
                continue
            begun.append((group, number, start, forced))
            further = replace(how, n=1, max_completion_tokens=room)
            requests.append(asker.request(group.problem, further, derive_seed(seed, "think on", number), start))
    continued = asker.generator.generate(requests) if requests else []
    for (group, number, start, forced), (one,) in zip(begun, continued, strict=True):
        known = *group.rollouts[number].old_logprobs[: forced.start], *[0.0] * len(forced)
        whole = replace(one, token_ids=(*start, *one.token_ids), logprobs=(*known, *one.logprobs))
        group.rollouts[number] = _rollout(asker, group, asker.reply(whole))
        group.rollouts[number].forced = forced


def _begun(asker: Asker, problem: Problem, rollout: Rollout) -> tuple[list[int], range]:
    """A completion up to the end of its thinking with "Wait" behind it, and which of these tokens nobody sampled.

    Without an end of thinking there are none of these. Where the end shares a token with what stands before it, that
    part is spelled anew, and counts as forced.
    """
    ids = rollout.completion_token_ids
    place = find_tag(asker.tokenizer, ids, END_THINK)
    if place is None or not asker.thinks(place.before):
        return [], range(0)
    start = [*place.before, *wait_tokens(asker.tokenizer, place.before, problem.language)]
    pairs = zip(place.before, ids, strict=False)
    same = next((number for number, (one, other) in enumerate(pairs) if one != other), len(place.before))
    return start, range(same, len(start))


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
            | ({"forced": [rollout.forced.start, rollout.forced.stop]} if rollout.forced else {})
            for rollout in group.rollouts
        ],
    }
