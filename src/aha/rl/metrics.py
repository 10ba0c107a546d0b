"""What a step of reinforcement learning reports, under TRL's names, from groups that may lie on several processes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from aha.evals.growth import Answer, answer_of, in_short
from aha.evals.metrics import pass_at_k
from aha.rl.advantage import rewards_agree
from aha.tasks.families import FAMILIES
from aha.text.thinking import parse
from aha.types import FinishReason, Rollout, RolloutGroup

ADD_UP = ("tokens_trained", "expert_load")
"""Of an update's figures, those that add up over the updates of a step."""


def group_facts(group: RolloutGroup) -> dict[str, Any]:
    """A group's contribution to the metrics, as JSON: what processes exchange instead of completions."""
    graded = [rollout for rollout in group.rollouts if rollout.reward is not None]
    return {
        "family": group.problem.family,
        "level": group.problem.level,
        "rewards": [rollout.reward for rollout in graded],
        "parts": {name: [r.rewards[name] for r in graded] for name in (graded[0].rewards if graded else {})},
        "lengths": [len(rollout.completion_token_ids) for rollout in graded],
        "thinking_tokens": [None if rollout.forced else rollout.thinking_tokens for rollout in graded],
        "reflection": _reflection(graded),
        "tokens": sum(len(group.prompt_token_ids) + len(r.completion_token_ids) for r in group.rollouts),
        "truncated": sum(r.finish_reason is FinishReason.LENGTH for r in graded),
        "dropped": len(group.rollouts) - len(graded),
    }


def solved(facts: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Share of problems that are solved at one try, and in one of all tries of their group."""
    right = [
        (len(group["rewards"]), int(sum(group["parts"].get("accuracy", [])))) for group in facts if group["rewards"]
    ]
    once = sum(pass_at_k(n, c, 1) for n, c in right) / max(1, len(right))
    ever = sum(pass_at_k(n, c, n) for n, c in right) / max(1, len(right))
    return once, ever


def answers_of(group: RolloutGroup, answer_tags: bool) -> dict[str, list[Any]]:
    """A group's graded answers as the rules of `evals.growth` see them, as JSON; none of problems without steps."""
    if group.problem.family not in FAMILIES:
        return {"answers": []}
    found = []
    for rollout in group.rollouts:
        if rollout.reward is not None:
            truncated = rollout.finish_reason is FinishReason.LENGTH
            parsed = parse(rollout.text, truncated=truncated, answer_tags=answer_tags)
            found.append(asdict(answer_of(group.problem, parsed, rollout.rewards["accuracy"] == 1.0)))
    return {"answers": found}


def first_look(answers: Sequence[dict[str, Any]]) -> str:
    """What gathered answers say of whether thinking will grow, in one sentence; empty where there are too few."""
    said = in_short([Answer(**answer) for answer in answers])
    return f"a first look (`aha probe` looks closer): {said}" if said else ""


def step_metrics(facts: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Metrics of all groups of a step."""
    rewards = [reward for group in facts for reward in group["rewards"]]
    lengths = [length for group in facts for length in group["lengths"]]
    metrics = {
        "reward": _mean(rewards),
        "reward_std": _std(rewards),
        "reward_std_in_groups": _mean([_std(group["rewards"], correction=0) for group in facts if group["rewards"]]),
        "frac_reward_zero_std": _mean([float(rewards_agree(group["rewards"])) for group in facts]),
        "completions/mean_length": _mean(lengths),
        "completions/min_length": float(min(lengths, default=0)),
        "completions/max_length": float(max(lengths, default=0)),
        "completions/clipped_ratio": sum(group["truncated"] for group in facts) / max(1, len(lengths)),
        "completions/dropped": float(sum(group["dropped"] for group in facts)),
    }
    parts = {name: [v for group in facts for v in group["parts"].get(name, [])] for name in _part_names(facts)}
    for name, values in parts.items():
        metrics[f"rewards/{name}/mean"] = _mean(values)
        metrics[f"rewards/{name}/std"] = _std(values)
    reasoning = [group for group in facts if "accuracy" in group["parts"] and "format" in group["parts"]]
    if reasoning:
        columns = [[v for g in reasoning for v in g["parts"][name]] for name in ("accuracy", "format")]
        metrics |= _split_lengths([length for group in reasoning for length in group["lengths"]], *columns)
        metrics |= _thinking(reasoning, *columns)
    return metrics


def _reflection(rollouts: Sequence[Rollout]) -> dict[str, int]:
    """What the thinkings of a group say about themselves, added up; `repaired`: right, and an attempt was rejected."""
    total: Counter[str] = Counter()
    for rollout in rollouts:
        counts = Counter(rollout.reflection)
        rejected = counts["right_rejected"] + counts["wrong_attempts"] - counts["wrong_accepted"]
        total.update(counts)
        total["repaired"] += int(rejected > 0 and rollout.rewards["accuracy"] == 1.0)
    return dict(total)


def _thinking(reasoning: Sequence[dict[str, Any]], accuracy: list[float], formed: list[float]) -> dict[str, float]:
    """How long the well-formed think, how often they give up, and what their verdicts are worth."""
    tokens = [length for group in reasoning for length in group["thinking_tokens"]]
    counts: Counter[str] = Counter()
    for group in reasoning:
        counts.update(group["reflection"])
    metrics = {
        "completions/mean_thinking_tokens": _mean(
            [count for count, form in zip(tokens, formed, strict=True) if form and count is not None]
        ),
        "giving_up": _share(counts["gives_up"], sum(map(bool, formed))),
        "repairs": _share(counts["repaired"], sum(right == 1.0 for right in accuracy)),
    }
    if verdicts := counts["right_attempts"] + counts["wrong_attempts"]:
        metrics["verdicts/count"] = float(verdicts)
        metrics["verdicts/rejects_right"] = _share(counts["right_rejected"], counts["right_attempts"])
        metrics["verdicts/accepts_wrong"] = _share(counts["wrong_accepted"], counts["wrong_attempts"])
    return metrics


def over_updates(updates: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A step's figures from those of its updates: means, but of tokens and expert loads the sums.

    What only some updates report is theirs: the distance from the sampler is known before the policy moves.
    """
    names = dict.fromkeys(name for update in updates for name in update)
    found = {name: [update[name] for update in updates if name in update] for name in names}
    return {name: _total(values) if name in ADD_UP else _mean(values) for name, values in found.items()}


def _total(values: Sequence[Any]) -> Any:
    """The sum of numbers, or of lists of them entry by entry."""
    return [_total(entries) for entries in zip(*values, strict=True)] if isinstance(values[0], list) else sum(values)


def _split_lengths(lengths: list[int], accuracy: list[float], formed: list[float]) -> dict[str, float]:
    """Lengths of right and wrong answers among the well-formed, and accuracy there."""
    rows = [(length, right) for length, right, form in zip(lengths, accuracy, formed, strict=True) if form]
    return {
        "completions/mean_length_well_formed": _mean([length for length, _ in rows]),
        "completions/mean_length_right": _mean([length for length, right in rows if right]),
        "completions/mean_length_wrong": _mean([length for length, right in rows if not right]),
        "accuracy_well_formed": _mean([right for _, right in rows]),
    }


def cell_accuracy(facts: Sequence[dict[str, Any]]) -> list[tuple[str, int, float]]:
    """(family, level, mean accuracy) of each group of reasoning, for the curriculum."""
    reasoning = [group for group in facts if group["rewards"] and "accuracy" in group["parts"]]
    return [(group["family"], group["level"], _mean(group["parts"]["accuracy"])) for group in reasoning]


def no_signal_verdict(facts: Sequence[dict[str, Any]]) -> str:
    """Says in words why a step's groups teach nothing."""
    rewards = [reward for group in facts for reward in group["rewards"]]
    parts = {name: _mean([v for g in facts for v in g["parts"].get(name, [])]) for name in _part_names(facts)}
    if not rewards:
        return "no completion could be graded"
    accuracy, formed = parts.get("accuracy", 0.0), parts.get("format", 0.0)
    if formed < 0.01:
        return f"no completion has the required form ({formed:.1%}): show the base more documents with think tags"
    if accuracy < 0.01:
        return f"the form is met ({formed:.0%}) but almost nothing is right ({accuracy:.1%}): train the base longer"
    if accuracy > 0.99:
        return f"everything is solved already ({accuracy:.1%}): train on harder levels"
    return (
        f"every group's rewards agree (accuracy {accuracy:.1%}, form {formed:.1%}): use larger groups or other levels"
    )


def _part_names(facts: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({name for group in facts for name in group["parts"]})


def _share(count: int, total: int) -> float:
    return count / total if total else math.nan


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _std(values: Sequence[float], correction: int = 1) -> float:
    """The standard deviation: over n - 1, as TRL has it, or with `correction` 0 over n; NaN of too few values."""
    if len(values) <= correction:
        return math.nan
    mean = _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - correction))
