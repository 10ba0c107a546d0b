"""Group-relative advantages (R1 Eq. 3) and the choice of groups that carry a signal."""

from __future__ import annotations

import math
from collections.abc import Sequence


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


def first_with_signal(rewards_by_group: Sequence[Sequence[float]], wanted: int) -> list[int]:
    """Dynamic sampling (DAPO): indices of the first groups, `wanted` at most, whose rewards do not all agree."""
    return [number for number, rewards in enumerate(rewards_by_group) if not rewards_agree(rewards)][:wanted]


def rewards_agree(rewards: Sequence[float], tolerance: float = 1e-8) -> bool:
    """Whether a group's rewards are all the same, so that it teaches nothing (judged on the full group)."""
    return not rewards or max(rewards) - min(rewards) <= tolerance
