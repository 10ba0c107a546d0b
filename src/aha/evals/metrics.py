"""Metrics over samples of problems: pass@1 with intervals, unbiased pass@k, paired differences. No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
FIRST_STEPS, LAST_STEPS = 3, 10
"""Steps of reinforcement learning at its start and end whose own problems are compared."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased estimate of the probability that at least one of k samples is right: 1 - C(n-c, k) / C(n, k).

    Raises:
        ValueError: k is larger than the number of samples, or the counts are impossible.
    """
    if not 0 <= correct <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {samples} samples with {correct} right is not defined; need 1 <= k <= samples")
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def sample_counts(n: int) -> list[int]:
    """The numbers of samples at which n samples are looked at: powers of two up to n, and n; none of none."""
    return sorted({2**power for power in range(n.bit_length())} | {n}) if n else []


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Mean and 95% percentile interval over problems.

    Args:
        values: one number per problem (its mean over samples), so that samples of a problem stay together.
        seed: of the resampling.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return Interval(math.nan, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    means = array[rng.integers(0, array.size, (RESAMPLES, array.size))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(array.mean()), float(low), float(high))


def paired_interval(left: Sequence[float], right: Sequence[float], seed: int = 0) -> Interval:
    """Interval of the mean difference left - right over the same problems.

    Raises:
        ValueError: the two do not have the same number of problems.
    """
    if len(left) != len(right):
        raise ValueError(f"paired values must match: {len(left)} and {len(right)} problems")
    return bootstrap_interval([a - b for a, b in zip(left, right, strict=True)], seed)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's correlation, equal values sharing their mean rank; None where one of the two is constant.

    Raises:
        ValueError: the two do not have the same number of values.
    """
    if len(first) != len(second):
        raise ValueError(f"paired values must match: {len(first)} and {len(second)}")
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    ranks = []
    for values in (np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[inverse])
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def seed_interval(values: Sequence[float]) -> Interval:
    """Mean and 95% t-interval over seeds (each value one seed's result)."""
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean()) if array.size else math.nan
    if array.size < 2:
        return Interval(mean, math.nan, math.nan)
    critical = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}
    half = critical.get(array.size - 1, 2.262) * float(array.std(ddof=1)) / math.sqrt(array.size)  # more: a little wide
    return Interval(mean, mean - half, mean + half)


def ends(values: Sequence[float]) -> tuple[float, float] | None:
    """Means of the first and of the last values of a stage of reinforcement learning; None where it has too few."""
    if len(values) < FIRST_STEPS + LAST_STEPS:
        return None
    return math.fsum(values[:FIRST_STEPS]) / FIRST_STEPS, math.fsum(values[-LAST_STEPS:]) / LAST_STEPS
