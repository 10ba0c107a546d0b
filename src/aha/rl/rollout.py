"""From problems to graded groups: prompts, completions, rewards, advantages."""

from __future__ import annotations

from collections.abc import Sequence

from aha.protocols import Generator
from aha.rewards.rubric import Grader
from aha.rl.advantage import group_advantages
from aha.text.templates import zero_prompt
from aha.text.tokenizer import Tokenizer
from aha.types import FinishReason, Problem, Request, Rollout, RolloutGroup, SamplingParams


def collect(
    generator: Generator,
    tokenizer: Tokenizer,
    grader: Grader,
    problems: Sequence[Problem],
    seeds: Sequence[int],
    group_size: int,
    max_completion_tokens: int,
    temperature: float,
    think_prefilled: bool = False,
) -> list[RolloutGroup]:
    """Samples G completions of each problem under the R1-Zero template and grades them.

    A completion counts as ended only by the end-of-sentence token; that token is trained on but not graded.
    """
    requests = [
        Request(
            tuple(zero_prompt(tokenizer, problem.question, think_prefilled)),
            SamplingParams(
                temperature=temperature,
                max_completion_tokens=max_completion_tokens,
                stop_token_ids=(tokenizer.eos_id,),
                n=group_size,
                seed=seed,
            ),
        )
        for problem, seed in zip(problems, seeds, strict=True)
    ]
    groups = []
    for problem, request, completions in zip(problems, requests, generator.generate(requests), strict=True):
        group = RolloutGroup(problem, request.prompt_token_ids)
        for completion in completions:
            ended = completion.finish_reason is FinishReason.STOP
            text = tokenizer.decode(completion.token_ids[:-1] if ended else completion.token_ids)
            group.rollouts.append(Rollout(completion.token_ids, completion.logprobs, completion.finish_reason, text))
        groups.append(group)
    grade_groups(grader, groups, think_prefilled)
    return groups


def grade_groups(grader: Grader, groups: Sequence[RolloutGroup], think_prefilled: bool = False) -> None:
    """Fills in rewards; None where the grader gave no verdict."""
    prefix = "<think>" if think_prefilled else ""
    items = [
        (group.problem, prefix + rollout.text, rollout.finish_reason is not FinishReason.STOP)
        for group in groups
        for rollout in group.rollouts
    ]
    grades = iter(grader.grade(items))
    for group in groups:
        for rollout in group.rollouts:
            grade = next(grades)
            rollout.rewards = grade.parts if grade else {}
            rollout.reward = grade.reward if grade else None


def assign_advantages(groups: Sequence[RolloutGroup], divide_by_std: bool) -> None:
    """R1 Eq. 3 over each group's graded rollouts; the others keep 0 and are left out of the loss."""
    for group in groups:
        graded = [rollout for rollout in group.rollouts if rollout.reward is not None]
        rewards = [rollout.reward for rollout in graded if rollout.reward is not None]
        for rollout, advantage in zip(graded, group_advantages(rewards, divide_by_std), strict=True):
            rollout.advantage = advantage
