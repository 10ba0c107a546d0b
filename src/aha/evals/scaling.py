"""Accuracy against tokens spent, for each way to spend more of them at test time (R1 supplement E.4). No torch here.

What a model sampled comes in as rows (`aha.evals.scaling_rows`); a curve has, for each setting of a method, what every
problem cost and how often it came out right. All that choose among independent samples are computed from one pool of
them: any-right exactly, by the unbiased pass@k; votes as means over many subsets that are functions of the seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from aha.evals.metrics import Interval, bootstrap_interval, pass_at_k, rank_correlation, sample_counts
from aha.files import derive_seed
from aha.test_time.adaptive import allocate
from aha.test_time.best_of_n import best
from aha.test_time.voting import confidence, majority, weighted_majority

Method = Literal[
    "any_right", "majority", "confidence", "reward_vote", "best_of_n", "adaptive", "end_thinking", "wait", "revision"
]
Source = Literal["samples", "end_thinking", "wait", "revision"]
"""What has to be sampled for a method."""


@dataclass(frozen=True)
class About:
    """What a method is, in words, and what it needs."""

    title: str
    setting: str
    """What its settings are numbers of (of the adaptive vote: on average)."""
    source: Source


METHODS: dict[Method, About] = {
    "any_right": About("any right (bound)", "samples", "samples"),
    "majority": About("majority vote", "samples", "samples"),
    "confidence": About("vote by confidence", "samples", "samples"),
    "reward_vote": About("vote by reward", "samples", "samples"),
    "best_of_n": About("best by reward", "samples", "samples"),
    "adaptive": About("adaptive vote", "samples", "samples"),
    "end_thinking": About("thinking cut off", "tokens", "end_thinking"),
    "wait": About("“Wait” put in", "tokens", "wait"),
    "revision": About("revision", "rounds", "revision"),
}
REWARDED: tuple[Method, ...] = ("reward_vote", "best_of_n")
"""Methods that need a reward model."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer to one problem, as it was sampled."""

    key: str
    family: str
    level: int
    question: str
    source: Source
    setting: int
    """Of the source: a budget in tokens, a number of rounds; 0 for plain samples."""
    index: int
    """Which of several independent answers."""
    vote: str | None
    correct: bool
    tokens: int
    forced_tokens: int
    thinking_tokens: int
    mean_logprob: float
    truncated: bool
    completion: str
    reward: float | None = None
    """Of a reward model, in [0, 1], where there is one."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One problem under one setting of one method."""

    level: int
    accuracy: float
    """Probability that the method is right."""
    tokens: float
    """Tokens sampled, on average."""
    forced_tokens: float = 0.0
    thinking_tokens: float = 0.0
    """Of one answer, on average; of choices among several not told."""


Curve = dict[int, list[Measured]]
"""By setting: all problems, in the same order everywhere."""
Curves = dict[Method, Curve]


def curves_of(rows: Sequence[Answered], methods: Sequence[Method], limit: int, subsets: int, seed: int) -> Curves:
    """The curves that some rows give.

    Args:
        rows: of one model in one prompt style; all problems have rows of the same sources and settings.
        methods: which ones are wanted; those whose source has no rows are left out.
        limit: tokens that a plain sample could have cost.
        subsets: subsets of a problem's samples over which a vote is averaged.
        seed: of the subsets.
    """
    pool = grouped([row for row in rows if row.source == "samples"])
    curves: Curves = {}
    for method in methods:
        source = METHODS[method].source
        if source == "samples" and pool:
            curves[method] = _of_pool(method, pool, limit, subsets, seed)
        elif source != "samples":
            own = [row for row in rows if row.source == source]
            settings = sorted({row.setting for row in own})
            curve = {
                setting: [_mean(group) for group in grouped([row for row in own if row.setting == setting])]
                for setting in settings
            }
            if curve:
                curves[method] = curve
    return curves


def grouped(rows: Sequence[Answered]) -> list[list[Answered]]:
    """Rows by problem, problems by family, level and key, each one's rows by number: whoever made them, in any order.

    Two wordings of one problem (general tasks have some) are two questions here.
    """
    groups: dict[tuple[str, int, str, str], list[Answered]] = {}
    for row in rows:
        groups.setdefault((row.family, row.level, row.key, row.question), []).append(row)
    return [sorted(groups[name], key=lambda row: row.index) for name in sorted(groups)]


def _mean(group: Sequence[Answered]) -> Measured:
    count = len(group)
    return Measured(
        group[0].level,
        sum(row.correct for row in group) / count,
        sum(row.tokens for row in group) / count,
        sum(row.forced_tokens for row in group) / count,
        sum(row.thinking_tokens for row in group) / count,
    )


def _of_pool(method: Method, pool: list[list[Answered]], limit: int, subsets: int, seed: int) -> Curve:
    counts = sample_counts(min(map(len, pool)))
    if method == "any_right":
        return {k: [_any_right(group, k) for group in pool] for k in counts}
    orders = [_orders(group, subsets, seed) for group in pool]
    if method == "adaptive":
        repetitions = max(1, subsets // 4)
        return {k: _adaptive(pool, orders, k, limit, repetitions, seed) for k in counts if k > 1}
    choose = _CHOICES[method]
    return {k: [_chosen(group, own, k, choose) for group, own in zip(pool, orders, strict=True)] for k in counts}


def _orders(group: Sequence[Answered], subsets: int, seed: int) -> list[list[Answered]]:
    """A problem's samples in many orders; the first k of each are its subsets of k."""
    rng = random.Random(derive_seed(seed, "subsets", group[0].key, group[0].question))
    return [rng.sample(group, len(group)) for _ in range(subsets)]


def _any_right(group: Sequence[Answered], k: int) -> Measured:
    right = sum(row.correct for row in group)
    return Measured(group[0].level, pass_at_k(len(group), right, k), k * _mean(group).tokens)


def _chosen(
    group: Sequence[Answered],
    orders: Sequence[Sequence[Answered]],
    k: int,
    choose: Callable[[Sequence[Answered]], Answered | None],
) -> Measured:
    """A choice among k samples: of one alone exactly, of more as the mean over the orders. The cost is always exact."""
    mean = _mean(group)
    if k == 1:
        return mean
    chosen = [choose(order[:k]) for order in orders]
    right = sum(one is not None and one.correct for one in chosen) / len(orders)
    return Measured(mean.level, right, k * mean.tokens)


def _of(rows: Sequence[Answered], winner: str | None) -> Answered | None:
    return None if winner is None else next(row for row in rows if row.vote == winner)


def _by_majority(rows: Sequence[Answered]) -> Answered | None:
    return _of(rows, majority([row.vote for row in rows]))


def _by_confidence(rows: Sequence[Answered]) -> Answered | None:
    return _of(rows, weighted_majority([row.vote for row in rows], [confidence(row.mean_logprob) for row in rows]))


def _by_reward(rows: Sequence[Answered]) -> Answered | None:
    return _of(rows, weighted_majority([row.vote for row in rows], [row.reward or 0.0 for row in rows]))


def _best_by_reward(rows: Sequence[Answered]) -> Answered | None:
    index = best([row.vote for row in rows], [row.reward for row in rows])
    return None if index is None else rows[index]


_CHOICES: Mapping[Method, Callable[[Sequence[Answered]], Answered | None]] = {
    "majority": _by_majority,
    "confidence": _by_confidence,
    "reward_vote": _by_reward,
    "best_of_n": _best_by_reward,
}


@dataclass(frozen=True, slots=True)
class _Cut:
    """A sample of the pool as the allocator may draw it: cut off, it has no vote."""

    vote: str | None
    tokens: int
    row: Answered


def _adaptive(
    pool: list[list[Answered]],
    orders: Sequence[Sequence[Sequence[Answered]]],
    k: int,
    limit: int,
    repetitions: int,
    seed: int,
) -> list[Measured]:
    """The allocator on the pool, with as many tokens for all questions together as k samples of each cost on average.

    No question gets more samples than the pool has of it. Ties go to questions in an order that changes each time.
    """
    total = round(k * sum(_mean(group).tokens for group in pool))
    right, tokens = [0.0] * len(pool), [0.0] * len(pool)
    for repetition in range(repetitions):
        questions = list(range(len(pool)))
        random.Random(derive_seed(seed, "questions", repetition)).shuffle(questions)
        given = [0] * len(pool)

        def draw(
            chosen: Sequence[int],
            most: int,
            questions: list[int] = questions,
            given: list[int] = given,
            repetition: int = repetition,
        ) -> list[_Cut]:
            some = []
            for place in chosen:
                row = orders[questions[place]][repetition][given[place]]
                given[place] += 1
                fits = row.tokens <= most
                some.append(_Cut(row.vote if fits else None, min(row.tokens, most), row))
            return some

        drawn = allocate(draw, len(pool), total, limit, most=min(map(len, pool)))
        for place, samples in enumerate(drawn):
            question = questions[place]
            winner = majority([one.vote for one in samples])
            right[question] += any(one.row.correct for one in samples if winner is not None and one.vote == winner)
            tokens[question] += sum(one.tokens for one in samples)
    return [
        Measured(group[0].level, own_right / repetitions, own_tokens / repetitions)
        for group, own_right, own_tokens in zip(pool, right, tokens, strict=True)
    ]


def report(curves: Curves, budgets: Sequence[int]) -> dict[str, Any]:
    """What is published of one model in one prompt style.

    Returns:
        ``curves``: by method a list of points (setting, tokens per question, forced tokens, accuracy with its interval
        over problems, the same by level), in order of the tokens spent. ``at_equal_tokens``: by budget and method the
        accuracy at that many tokens per question (see `at_tokens`). ``length``: what thinking has to do with difficulty
        (see `length_by_level`), where plain samples were drawn.
    """
    single = curves.get("majority", {}).get(1)
    return {
        "length": length_by_level(single) if single else None,
        "curves": {
            method: [_point(setting, problems) for setting, problems in _by_tokens(curve)]
            for method, curve in curves.items()
        },
        "at_equal_tokens": {
            str(budget): {method: at_tokens(curve, budget) for method, curve in curves.items()} for budget in budgets
        },
    }


def _by_tokens(curve: Curve) -> list[tuple[int, list[Measured]]]:
    return sorted(curve.items(), key=lambda item: (_tokens(item[1]), item[0]))


def _tokens(problems: Sequence[Measured]) -> float:
    return sum(one.tokens for one in problems) / len(problems)


def _accuracy(problems: Sequence[Measured]) -> Interval:
    return bootstrap_interval([one.accuracy for one in problems])


def _point(setting: int, problems: Sequence[Measured]) -> dict[str, Any]:
    return {"setting": setting, **_figures_and_levels(problems)}


def _figures_and_levels(problems: Sequence[Measured]) -> dict[str, Any]:
    return {**_figures(problems), "by_level": _by_level(problems)}


def _figures(problems: Sequence[Measured]) -> dict[str, Any]:
    return {
        "tokens": _tokens(problems),
        "forced_tokens": sum(one.forced_tokens for one in problems) / len(problems),
        "accuracy": asdict(_accuracy(problems)),
        "problems": len(problems),
    }


def _by_level(problems: Sequence[Measured]) -> dict[str, Any]:
    levels = sorted({one.level for one in problems})
    return {str(level): _figures([one for one in problems if one.level == level]) for level in levels}


def length_by_level(problems: Sequence[Measured]) -> dict[str, Any]:
    """Tokens of thinking by level, and their rank correlation with the level over questions.

    None for the correlation where all questions are of one level, or all thinking is equally long.
    """
    levels = sorted({one.level for one in problems})
    means = {str(level): _mean_of([one.thinking_tokens for one in problems if one.level == level]) for level in levels}
    correlation = rank_correlation([one.level for one in problems], [one.thinking_tokens for one in problems])
    return {"by_level": means, "rank_correlation": correlation, "questions": len(problems)}


def _mean_of(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def at_tokens(curve: Curve, budget: float) -> dict[str, Any] | None:
    """A method's accuracy at a budget of tokens per question, or None where its cheapest setting costs more.

    Between two settings the curve is a straight line, which can be had: choosing between the two by a coin spends the
    budget on average and is right that often. A budget above the dearest setting buys no more than that.
    """
    points = [problems for _, problems in _by_tokens(curve)]
    below = [problems for problems in points if _tokens(problems) <= budget]
    if not below:
        return None
    left = below[-1]
    if len(below) == len(points):
        return _figures_and_levels(left)
    right = points[len(below)]
    share = (budget - _tokens(left)) / (_tokens(right) - _tokens(left))
    return _figures_and_levels([_between(one, other, share) for one, other in zip(left, right, strict=True)])


def _between(left: Measured, right: Measured, share: float) -> Measured:
    def mix(a: float, b: float) -> float:
        return a + share * (b - a)

    return Measured(
        left.level,
        mix(left.accuracy, right.accuracy),
        mix(left.tokens, right.tokens),
        mix(left.forced_tokens, right.forced_tokens),
    )


def to_json(curves: Curves) -> list[Any]:
    """Curves as plain values, for a checkpoint."""
    return [
        [
            method,
            setting,
            [[one.level, one.accuracy, one.tokens, one.forced_tokens, one.thinking_tokens] for one in problems],
        ]
        for method, curve in curves.items()
        for setting, problems in curve.items()
    ]


def from_json(rows: Sequence[Any]) -> Curves:
    """What `to_json` wrote."""
    curves: Curves = {}
    for method, setting, problems in rows:
        curves.setdefault(method, {})[setting] = [Measured(*problem) for problem in problems]
    return curves
