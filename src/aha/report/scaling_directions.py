"""What the papers say of thinking longer, judged from the curves of the base and of R1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aha.report.directions import Direction
from aha.report.wording import number, percent

BASE, R1 = "pretrain", "r1"
CHEAPER = 0.6
"""The part of a vote's tokens with which the adaptive one must do as well."""
LEAST_CORRELATION = 0.2
TOLERANCE = 0.01
"""An accuracy is reached from one point below."""


def scaling_figures(scaling: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """The figures that the directions are about; those whose curves are not there are left out.

    Args:
        scaling: model, then prompt style, then what `aha.evals.scaling.report` says.
    """
    r1, base = _result(scaling, R1).get("curves", {}), _result(scaling, BASE).get("curves", {})
    found: dict[str, float] = {}
    if votes := r1.get("majority"):
        found["samples"] = votes[-1]["setting"]
        found["one"], found["vote"] = (_accuracy(point) for point in (votes[0], votes[-1]))
        if "any_right" in r1:
            found["any"] = _accuracy(r1["any_right"][-1])
        if "adaptive" in r1:
            found["adaptive"] = accuracy_at(r1["adaptive"], CHEAPER * votes[-1]["tokens"])
        if "majority" in base:
            found["base, as many tokens"] = accuracy_at(base["majority"], votes[0]["tokens"])
            found["base, all samples"] = _accuracy(base["majority"][-1])
    if (length := _result(scaling, R1).get("length")) and length["rank_correlation"] is not None:
        levels = {int(level): tokens for level, tokens in length["by_level"].items()}
        found["length"] = length["rank_correlation"]
        found["easiest"], found["hardest"] = levels[min(levels)], levels[max(levels)]
    if cut := sorted(r1.get("end_thinking", ()), key=lambda point: point["setting"]):
        found["cut short"], found["cut late"] = _accuracy(cut[0]), _accuracy(cut[-1])
        found["least"], found["most"] = cut[0]["setting"], cut[-1]["setting"]
    return found


def scaling_directions(figures: Mapping[str, float]) -> list[Direction]:
    """Judges every direction whose figures are there."""
    k = f"{figures.get('samples', 16):.0f}"
    rules = (
        _Rule(f"a vote over {k} answers of R1 beats one", "vote {vote}, one {one}", lambda vote, one: vote - one),
        _Rule(
            f"one of {k} answers of R1 is right more often than their vote",
            "any right {any}, vote {vote}",
            lambda some, vote: some - vote,
        ),
        _Rule(
            f"spent where votes are in doubt, {CHEAPER:.0%} of the tokens do as well (within a point)",
            "adaptive {adaptive} (interpolated between its settings), plain vote {vote}",
            lambda adaptive, vote: adaptive - vote + TOLERANCE,
        ),
        _Rule(
            "voting on the base at as many tokens does not reach one answer of R1",
            "base {base, as many tokens} (with all its samples {base, all samples}), R1 {one}",
            lambda same, everything, one: one - same,
        ),
        _Rule(
            "a short thinking budget costs accuracy, a long one gives it back (within 3 points of no budget)",
            f"{figures.get('least', 0):.0f} tokens {{cut short}}, {figures.get('most', 0):.0f} tokens {{cut late}}, "
            "no budget {one}",
            lambda short, late, one: min(late - short, one - short, late - one + 0.03),
        ),
        _Rule(
            "harder questions are thought about for longer",
            "rank correlation of level and tokens of thinking, over questions, {length:number}; {easiest:tokens} "
            "tokens at the lowest level, {hardest:tokens} at the highest",
            lambda length, easiest, hardest: min(length - LEAST_CORRELATION, (hardest - easiest) / max(easiest, 1.0)),
        ),
    )
    return [one for rule in rules if (one := rule.judge(figures)) is not None]


@dataclass(frozen=True)
class _Rule:
    """What should hold, of which figures (named in the text that shows them), and how far they are past the bar."""

    statement: str
    shown: str
    margin: Callable[..., float]

    def judge(self, figures: Mapping[str, float]) -> Direction | None:
        """The verdict; None where a figure is missing."""
        names = [part.split("}")[0].partition(":") for part in self.shown.split("{")[1:]]
        if any(name not in figures for name, _, _ in names):
            return None
        text = self.shown
        for name, colon, kind in names:
            value = figures[name]
            written = {"number": number(value, 2), "tokens": number(value, 0)}.get(kind, percent(value))
            text = text.replace("{" + name + colon + kind + "}", written)
        return Direction(self.statement, text, self.margin(*(figures[name] for name, _, _ in names)))


def accuracy_at(points: Sequence[Mapping[str, Any]], tokens: float) -> float:
    """The accuracy of a curve at so many tokens per question, straight between points, level outside them."""
    below = [point for point in points if point["tokens"] <= tokens]
    if not below or len(below) == len(points):
        return _accuracy(below[-1] if below else points[0])
    left, right = below[-1], points[len(below)]
    share = (tokens - left["tokens"]) / (right["tokens"] - left["tokens"])
    return _accuracy(left) + share * (_accuracy(right) - _accuracy(left))


def _result(scaling: Mapping[str, Mapping[str, Mapping[str, Any]]], model: str) -> Mapping[str, Any]:
    """What was measured of a model, as it was asked first."""
    return next(iter(scaling.get(model, {}).values()), {})


def _accuracy(point: Mapping[str, Any]) -> float:
    return float(point["accuracy"]["mean"])
