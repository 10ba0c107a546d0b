"""Group-relative advantages (R1 Eq. 3) and the choice of groups that carry a signal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def group_advantages(rewards: Sequence[float], divide_by_std: bool = True, epsilon: float = 1e-6) -> list[float]:
    """A_i = (R_i - mean R) / std R over one group (R1 Eq. 3).

    Args:
        rewards: the group's rewards; samples without a verdict are left out by the caller.
        divide_by_std: False is Dr. GRPO (2503.20783): no division, so that easy and hard questions weigh alike.
        epsilon: added to the standard deviation; groups whose rewards all agree get zeros exactly.

    Returns:
        One advantage per reward. The standard deviation is the population's (the paper does not say which).
    """
    if not rewards:
        return []
    mean = math.fsum(rewards) / len(rewards)
    centred = [reward - mean for reward in rewards]
    if rewards_agree(rewards):
        return [0.0] * len(rewards)
    if not divide_by_std:
        return centred
    std = math.sqrt(math.fsum(value * value for value in centred) / len(centred))
    return [value / (std + epsilon) for value in centred]


def advantages_of_each(
    rewards: Mapping[str, Sequence[float]], weights: Mapping[str, float], divide_by_std: bool = True
) -> list[float]:
    """Every reward's own advantage (R1 Eq. 3) times its weight, added up.

    So a reward with a small deviation counts as much as one with a large deviation, and the weights alone say how they
    compare: on the sum of accuracy and form, form drowns accuracy as long as both are rare. This is GDPO (2601.05242)
    without its last step, which divides the sums of a whole batch by their deviation: the scale of the gradient is the
    optimizer's business here.

    Args:
        rewards: of one group, by name.
        weights: by name; rewards without a weight above 0 are left out.
        divide_by_std: as in `group_advantages`.
    """
    total = [0.0] * max(map(len, rewards.values()), default=0)
    for name, weight in weights.items():
        if weight > 0:
            own = group_advantages(rewards[name], divide_by_std)
            total = [sum_so_far + weight * advantage for sum_so_far, advantage in zip(total, own, strict=True)]
    return total


def first_with_signal(rewards_by_group: Sequence[Sequence[float]], wanted: int) -> list[int]:
    """Dynamic sampling (DAPO): indices of the first groups, `wanted` at most, whose rewards do not all agree."""
    return [number for number, rewards in enumerate(rewards_by_group) if not rewards_agree(rewards)][:wanted]


def rewards_agree(rewards: Sequence[float], tolerance: float = 1e-8) -> bool:
    """Whether a group's rewards are all the same, so that it teaches nothing (judged on the full group)."""
    return not rewards or max(rewards) - min(rewards) <= tolerance
