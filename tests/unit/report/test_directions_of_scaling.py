"""Thinking longer: the figures are read off the curves, and each direction holds exactly when its numbers say so."""

from typing import Any

import pytest

from aha.report.directions import accuracy_at, scaling_directions, scaling_figures


def point(setting: int, tokens: float, mean: float) -> dict[str, Any]:
    return {"setting": setting, "tokens": tokens, "accuracy": {"mean": mean}}


R1 = {
    "majority": [point(1, 50, 0.70), point(4, 200, 0.78), point(16, 800, 0.82)],
    "any_right": [point(1, 50, 0.70), point(16, 800, 0.95)],
    "adaptive": [point(2, 100, 0.75), point(8, 400, 0.80), point(16, 560, 0.84)],
    "end_thinking": [point(128, 60, 0.69), point(16, 20, 0.30)],
}
BASE = {"majority": [point(1, 30, 0.2), point(16, 480, 0.5)]}
LENGTH = {"by_level": {"1": 50.2, "5": 149.9}, "rank_correlation": 0.61, "questions": 240}
SCALING = {"pretrain": {"zero": {"curves": BASE}}, "r1": {"chat": {"curves": R1, "length": LENGTH}}}


def test_all_directions_of_good_curves_hold() -> None:
    figures = scaling_figures(SCALING)
    assert (figures["one"], figures["vote"], figures["any"], figures["samples"]) == (0.70, 0.82, 0.95, 16)
    assert figures["adaptive"] == pytest.approx(0.80 + 0.04 * 80 / 160), "at 480 tokens, between two settings"
    assert figures["base, as many tokens"] == pytest.approx(0.2 + 0.3 * 20 / 450)
    assert (figures["cut short"], figures["cut late"]) == (0.30, 0.69), "by budget, whatever their order"
    found = scaling_directions(figures)
    assert len(found) == 6
    assert all(one.holds for one in found)
    assert "base 21.3% (with all its samples 50.0%), R1 70.0%" in found[3].measured
    assert "16 tokens 30.0%, 128 tokens 69.0%, no budget 70.0%" in found[4].measured
    assert "over questions, 0.61; 50 tokens at the lowest level, 150 at the highest" in found[5].measured


@pytest.mark.parametrize(
    ("changed", "number"),
    [
        ({"vote": 0.70}, 0),
        ({"any": 0.82}, 1),
        ({"adaptive": 0.80}, 2),
        ({"base, as many tokens": 0.71}, 3),
        ({"cut short": 0.72}, 4),
        ({"cut late": 0.60}, 4),
        ({"length": 0.1}, 5),
        ({"easiest": 0.0, "hardest": 0.0}, 5),
    ],
)
def test_a_direction_fails_with_its_numbers(changed: dict[str, float], number: int) -> None:
    found = scaling_directions({**scaling_figures(SCALING), **changed})
    assert [place for place, one in enumerate(found) if not one.holds] == [number]


def test_what_was_not_measured_is_not_judged() -> None:
    assert scaling_directions(scaling_figures({})) == []
    only = scaling_figures({"r1": {"chat": {"curves": {"majority": R1["majority"]}}}})
    assert len(scaling_directions(only)) == 1


def test_between_points_a_curve_is_straight() -> None:
    assert accuracy_at(R1["majority"], 10) == 0.70
    assert accuracy_at(R1["majority"], 9000) == 0.82
