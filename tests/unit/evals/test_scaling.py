"""The curves against brute force, and what they cost."""

import itertools
import json
import math
import random
from typing import Any

import pytest

from aha.errors import ConfigError
from aha.evals.scaling import Answered, Measured, at_tokens, curves_of, from_json, report, sample_counts, to_json
from aha.evals.scaling_rows import Job, ScalingSettings, unfit_method
from aha.evals.scaling_stage import ScalingConfig, ScalingSuite
from aha.text.prompt_style import PromptStyle


def row(key: str, index: int, vote: str | None, tokens: int = 10, level: int = 1, **other: Any) -> Answered:
    values = {
        "source": "samples", "setting": 0, "forced_tokens": 0, "thinking_tokens": tokens - 3, "mean_logprob": -1.0,
        "truncated": False, "completion": "", **other,
    }  # fmt: skip
    return Answered(
        key, "boxes", level, f"Q {key}", index=index, vote=vote, correct=vote == "1", tokens=tokens, **values
    )


def pool(votes: dict[str, str], **other: Any) -> list[Answered]:
    """By problem, one character a sample: 1 is right, . is no answer."""
    return [
        row(key, index, None if vote == "." else vote, **other)
        for key, own in votes.items()
        for index, vote in enumerate(own)
    ]


VOTES = {"a": "1111", "b": "1122", "c": "2221", "d": "...1", "e": "...."}


def test_any_right_is_exact_and_costs_all_samples() -> None:
    curve = curves_of(pool(VOTES), ["any_right"], 50, 8, 0)["any_right"]
    assert sorted(curve) == [1, 2, 4]
    for k, problems in curve.items():
        for own, one in zip(VOTES.values(), problems, strict=True):
            subsets = list(itertools.combinations(own, k))
            assert one.accuracy == pytest.approx(sum("1" in subset for subset in subsets) / len(subsets))
            assert one.tokens == 10 * k


def test_a_vote_is_the_mean_over_subsets() -> None:
    curve = curves_of(pool(VOTES), ["majority"], 50, 4000, 0)["majority"]
    for own, one in zip(VOTES.values(), curve[1], strict=True):
        assert one.accuracy == own.count("1") / 4, "one sample alone is exact"
    whole = [one.accuracy for one in curve[4]]
    assert whole[0] == whole[3] == 1.0
    assert whole[2] == whole[4] == 0.0
    assert whole[1] == pytest.approx(0.5, abs=0.03), "a tie is a coin"
    assert [one.accuracy for one in curve[2]] == pytest.approx([1, 0.5, 0.25, 0.5, 0], abs=0.03)


def test_weights_and_rewards_choose() -> None:
    rows = [
        row("a", 0, "1", mean_logprob=-0.1, reward=0.9),
        *(row("a", i, "2", mean_logprob=-3.0, reward=0.2) for i in (1, 2)),
    ]
    curves = curves_of(rows, ["majority", "confidence", "reward_vote", "best_of_n"], 50, 6, 0)
    assert {method: curve[3][0].accuracy for method, curve in curves.items()} == {
        "majority": 0.0, "confidence": 1.0, "reward_vote": 1.0, "best_of_n": 1.0,
    }  # fmt: skip
    assert all(curve[1][0].accuracy == pytest.approx(1 / 3) for curve in curves.values())
    unrewarded = curves_of(pool(VOTES), ["best_of_n"], 50, 6, 0)["best_of_n"]
    assert {one.accuracy for one in unrewarded[4]} == {0.0}


def test_the_adaptive_vote_costs_no_more_and_spends_where_votes_disagree() -> None:
    rng = random.Random(0)
    votes = {f"{i:02}": "1" * 16 if i < 10 else "".join(rng.choice("112") for _ in range(16)) for i in range(20)}
    rows = [one for key, own in votes.items() for one in pool({key: own}, tokens=10, level=1 if key < "10" else 5)]
    curves = curves_of(rows, ["adaptive", "majority"], 10, 16, 0)
    for k in (2, 4, 8, 16):
        adaptive, plain = curves["adaptive"][k], curves["majority"][k]
        assert sum(one.tokens for one in adaptive) == pytest.approx(sum(one.tokens for one in plain))
    spent = {level: sum(one.tokens for one in curves["adaptive"][8] if one.level == level) for level in (1, 5)}
    assert spent[5] > 1.5 * spent[1]
    right = {m: sum(one.accuracy for one in curves[m][8]) for m in ("adaptive", "majority")}
    assert right["adaptive"] > right["majority"]
    assert curves["adaptive"] == curves_of(list(reversed(rows)), ["adaptive"], 10, 16, 0)["adaptive"]


def test_forced_answers_are_means_over_repetitions() -> None:
    rows = [
        row("a", i, vote, tokens, source="wait", setting=budget, forced_tokens=2)
        for budget, votes in ((16, "12"), (32, "11"))
        for i, (vote, tokens) in enumerate(zip(votes, (20, 30), strict=True))
    ]
    curves = curves_of(rows, ["majority", "wait"], 50, 4, 0)
    assert set(curves) == {"wait"}
    assert curves["wait"] == {16: [Measured(1, 0.5, 25.0, 2.0, 22.0)], 32: [Measured(1, 1.0, 25.0, 2.0, 22.0)]}


def test_between_two_settings_a_coin_decides() -> None:
    curve = {1: [Measured(1, 0.0, 10), Measured(2, 0.5, 30)], 2: [Measured(1, 1.0, 40), Measured(2, 0.5, 60)]}
    assert at_tokens(curve, 19) is None
    exact = at_tokens(curve, 20)
    middle = at_tokens(curve, 35)
    above = at_tokens(curve, 1000)
    assert exact and middle and above
    assert (exact["accuracy"]["mean"], exact["tokens"]) == (0.25, 20)
    assert (middle["accuracy"]["mean"], middle["tokens"]) == pytest.approx((0.5, 35))
    assert (above["accuracy"]["mean"], above["tokens"]) == (0.75, 50)


def test_the_report_is_json_by_level_and_in_order_of_tokens() -> None:
    rows = [*pool({"a": "1112"}, level=1), *pool({"b": "2221"}, level=3, tokens=30)]
    curves = curves_of(rows, ["majority", "any_right"], 50, 16, 0)
    result = json.loads(json.dumps(report(curves, (5, 40)), allow_nan=False))
    points = result["curves"]["majority"]
    assert [point["tokens"] for point in points] == [20, 40, 80]
    assert points[0]["by_level"]["3"]["tokens"] == 30
    assert points[0]["accuracy"]["low"] <= points[0]["accuracy"]["mean"] == 0.5
    assert result["at_equal_tokens"]["5"]["majority"] is None
    assert result["at_equal_tokens"]["40"]["any_right"]["tokens"] == 40
    assert from_json(json.loads(json.dumps(to_json(curves)))) == curves


def test_two_wordings_are_two_questions() -> None:
    rows = [row("a", 0, "1"), Answered(**{**_fields(row("a", 0, "2")), "question": "otherwise"})]
    assert len(curves_of(rows, ["majority"], 50, 2, 0)["majority"][1]) == 2


def _fields(one: Answered) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Answered.__dataclass_fields__}


def test_settings_say_what_has_to_be_sampled() -> None:
    settings = ScalingSettings(methods=("majority", "end_thinking", "revision"), budgets=(8, 16), samples=4, rounds=2)
    assert settings.jobs() == [Job("samples", 4), Job("revision", 2)]
    assert ScalingSettings(methods=("end_thinking",), samples=4).jobs() == [Job("samples", 4)], "these are cut off"
    assert ScalingSettings(methods=("wait",), budgets=(8,)).jobs() == [Job("wait", 8)]
    assert sample_counts(1) == [1]
    assert sample_counts(12) == [1, 2, 4, 8, 12]
    assert unfit_method(("majority", "wait"), PromptStyle.named("direct")) == "wait"
    assert unfit_method(("majority", "wait"), PromptStyle.named("zero_think")) is None
    assert unfit_method(("majority",), PromptStyle.named("direct")) is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"families": ["nope"]}, "unknown family 'nope'"),
        ({"levels": [15]}, "levels are 1 to 14"),
        ({"budgets": [32, 16]}, "rising numbers"),
        ({"budgets": [0, 16]}, "rising numbers"),
        ({"budgets": [16, 400]}, "raise room"),
        ({"max_completion_tokens": 600}, "less than max_completion_tokens"),
        ({"methods": ["best_of_n"]}, "best_of_n needs a reward model"),
        ({"suites": [{"stage": "v3", "style": "direct"}]}, "v3: end_thinking needs a model that thinks"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: dict[str, Any], words: str) -> None:
    from aha.configuration import build_config

    with pytest.raises(ConfigError, match=words):
        build_config(ScalingConfig, wrong)


def test_the_parents_of_a_stage() -> None:
    suites = (ScalingSuite(stage="r1", style="chat"), ScalingSuite(stage="r1", style="zero"))
    assert ScalingConfig(suites=suites).parents() == ("r1",)
    assert ScalingConfig(suites=suites, reward_model="helpful-rm").parents() == ("r1", "helpful-rm")


def test_thinking_by_level_is_of_plain_samples_and_correlates_over_questions() -> None:
    rows = [
        row(f"{level}{place}", index, "1", tokens=tokens + index, level=level)
        for level, lengths in ((1, (13, 23)), (2, (23, 33)), (3, (43, 53)))
        for place, tokens in enumerate(lengths)
        for index in range(2)
    ]
    curves = curves_of(rows, ["majority"], 99, 4, 0)
    for told in (report(curves, [64])["length"], report(from_json(to_json(curves)), [64])["length"]):
        assert told["by_level"] == {"1": 15.5, "2": 25.5, "3": 45.5}
        assert told["questions"] == 6
        assert told["rank_correlation"] == pytest.approx(15 / math.sqrt(16 * 17)), "ties share their mean rank"
    assert report(curves_of(rows, ["any_right"], 99, 4, 0), [64])["length"] is None


def test_equal_tokens_have_levels() -> None:
    rows = [*pool({"a": "11"}, level=1), *pool({"b": "12"}, level=4)]
    curves = curves_of(rows, ["majority"], 50, 8, 0)
    point = report(curves, [15])["at_equal_tokens"]["15"]["majority"]
    assert set(point["by_level"]) == {"1", "4"}
    assert point["by_level"]["1"]["accuracy"]["mean"] == 1.0
    assert point["by_level"]["1"]["tokens"] == pytest.approx(15)
