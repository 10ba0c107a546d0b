"""pass@k, votes and intervals against brute force."""

import itertools
import math
import random

import numpy as np
import pytest

from aha.evals.metrics import bootstrap_interval, paired_interval, pass_at_k, rank_correlation, seed_interval
from aha.evals.runner import Sample, by_problem, count_reflections, grade_sample, summarize
from aha.tasks.families import FAMILIES, held_out_suite
from aha.text.prompt_style import PromptStyle


@pytest.mark.parametrize(("n", "c"), [(5, 0), (5, 2), (6, 5), (4, 4)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n: int, c: int) -> None:
    outcomes = [1] * c + [0] * (n - c)
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(outcomes, k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, 2, 5), (4, 2, 0), (4, -1, 1)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError):
        pass_at_k(n, c, k)


def test_the_bootstrap_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        interval = bootstrap_interval(rng.random(60) < 0.3, seed=trial)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_pairing_removes_what_problems_share() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.random(300)
    left, right = list(difficulty + 0.05), list(difficulty)
    paired = paired_interval(left, right)
    assert paired.low == pytest.approx(paired.high) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="must match"):
        paired_interval([1.0], [])


def test_seed_interval_is_students() -> None:
    interval = seed_interval([0.5, 0.6, 0.7])
    assert (interval.mean, interval.high - interval.mean) == pytest.approx((0.6, 4.303 * 0.1 / math.sqrt(3)))
    assert math.isnan(seed_interval([0.5]).low)


def test_rank_correlation_is_spearmans() -> None:
    assert rank_correlation([1, 2, 3, 4], [10, 30, 20, 40]) == pytest.approx(0.8)
    assert rank_correlation([1, 2, 3], [9, 4, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 2, 2], [5, 6, 6, 7]) == pytest.approx(1 / math.sqrt(2))
    assert rank_correlation([1, 1], [3, 4]) is None
    with pytest.raises(ValueError, match="must match"):
        rank_correlation([1, 2], [1])


def test_reflections_are_whole_words_in_both_languages() -> None:
    assert count_reflections("a3+4=7\nWait\n7 differ\n等等 b3?4不对\n4不同 no") == {"wait": 2, "no": 2, "differ": 2}
    assert count_reflections("know notice different waiting") == {"wait": 0, "no": 0, "differ": 0}


def test_grading_is_strict_under_the_template_and_lenient_elsewhere() -> None:
    problem = next(iter(held_out_suite(["sums"], (1,), 1, 0)))
    answer = problem.answer
    step = FAMILIES["sums"].lines(problem, random.Random(0), "en")[0].strip()
    strict = grade_sample(problem, 0, f"the answer is {answer}", 5, False, PromptStyle.named("zero"))
    lenient = grade_sample(problem, 0, f"the answer is {answer}", 5, False, PromptStyle.named("direct"))
    prefilled = grade_sample(
        problem, 0, f"{step}</think>\n<answer>{answer}</answer>", 9, False, PromptStyle.named("zero_think")
    )
    assert (strict.correct, lenient.correct, prefilled.correct) == (False, True, True)
    assert prefilled.well_formed
    assert (prefilled.true_steps, prefilled.steps) == (1, 1)
    cut = grade_sample(problem, 0, f"<think>1</think><answer>{answer}</answer>", 9, True, PromptStyle.named("zero"))
    assert not cut.correct


def test_a_summary_averages_over_problems() -> None:
    def one(key: str, index: int, correct: bool) -> Sample:
        return Sample(
            key,
            "cups",
            "science",
            1,
            "en",
            "?",
            index,
            correct,
            True,
            10,
            False,
            1,
            2,
            0,
            "4" if correct else "5",
            "",
        )

    samples = [one("a", 0, True), one("a", 1, True), one("b", 0, False), one("b", 1, True)]
    result = summarize(samples)
    assert result["pass_at_1"]["mean"] == 0.75
    assert result["pass_at_1"]["problems"] == result["pass_at_1"]["samples"] == 2
    assert result["pass_at_k"] == {"1": 0.75, "2": 1.0}
    assert result["true_step_rate"] == 0.5
    assert by_problem(samples, lambda s: s.tokens) == {"a": 10, "b": 10}
