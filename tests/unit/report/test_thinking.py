"""What the page says first: whether thinking grew, and what more of it is worth, in words that follow the numbers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from aha.report.figures import smoothed
from aha.report.page import make_report
from aha.report.reading import read_run
from aha.report.thinking import first_and_last, first_screen

STAGES = [("pretrain", "pretrain", []), ("r1-zero", "grpo", ["pretrain"]), ("thinking", "thinking", ["r1-zero"])]


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}


def cell(accuracy: float, tokens: float, gain: float) -> dict[str, Any]:
    return {
        "accuracy": interval(accuracy),
        "thinking_tokens": tokens,
        "forced": {"1": interval(gain), "2": interval(2 * gain)},
        "think_longer": {"right_to_wrong": 0.25, "wrong_to_right": None},
    }


def about(accuracy: float, tokens: float, gain: float) -> dict[str, Any]:
    levels = {level: cell(accuracy / number, tokens, gain) for number, level in enumerate(("2", "8", "9", "12"), 1)}
    return {
        "by_level": levels,
        "trained_levels": {"accuracy": interval(accuracy), "thinking_tokens": tokens},
        "beyond_training": [0.5, 0.25],
        "forced": {"trained_levels": levels["2"]["forced"], "one_level_above": levels["9"]["forced"]},
        "think_longer": {"right_to_wrong": 0.125, "wrong_to_right": 0.0625},
        "repair_share": 0.5,
        "repair_worth": 60.0,
    }


def completion(text: str, right: float = 1.0, formed: float = 1.0, **other: Any) -> dict[str, Any]:
    return {"text": text, "tokens": len(text), "rewards": {"accuracy": right, "format": formed}, **other}


def group(step: int, *completions: dict[str, Any], family: str = "sums", level: int = 1) -> dict[str, Any]:
    return {"step": step, "family": family, "level": level, "question": f"Q{step}", "completions": list(completions)}


def run_folder(tmp_path: Path, before: float = 10, after: float = 40, gain: float = 0.1, done: bool = True) -> Path:
    run = tmp_path / "run"
    for name in ("r1-zero", "thinking"):
        (run / name).mkdir(parents=True)
    (run / "config.yaml").write_text("recipe: toy\nthinking: {levels: [2, 8], one_above: 9, half_above: 12}\n")
    lineage = [{"name": n, "kind": k, "parents": p, "done": done or k == "pretrain"} for n, k, p in STAGES]
    (run / "lineage.json").write_text(json.dumps({"stages": lineage}))
    found = {"pretrain": about(0.1, before, gain), "r1-zero": about(0.8, after, gain)}
    (run / "thinking" / "thinking.json").write_text(json.dumps(found))
    rows = [
        {
            "stage": "r1-zero",
            "step": step,
            "completions/mean_thinking_tokens": 20.0 if step < 10 else 50.0,
            "rewards/accuracy/mean": 0.5,
            "curriculum/top/sums": 4 + step // 5,
            "curriculum/top/cups": 4,
        }
        for step in range(20)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = [group(0, completion("first guess")), group(19, completion("4 no\n5 differ\nWait\n<b>6</b>"))]
    weights = {"accuracy": 1.0, "format": 0.1, "language": 0.0}
    (run / "r1-zero" / "stage.json").write_text(
        json.dumps({"config": {"rubric": weights, "sampling": {"forced_share": 0.5}}})
    )
    (run / "r1-zero" / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in groups))
    return run


def words(run: Path) -> str:
    page = make_report(run).read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>|<(?!/?mark)[^>]+>", " ", page, flags=re.DOTALL))


def test_the_first_screen_says_what_happened(tmp_path: Path) -> None:
    page = words(run_folder(tmp_path))
    said = [
        "was rewarded for right answers (weight 1) and the right form (weight 0.1). Nothing rewards length. "
        "In 50.0% of the prompts thinking had to go on once",
        "thinking of well-formed answers grew: 10.0 to 40.0 tokens (4.0 times as many), "
        "and right answers went from 10.0% to 80.0%",
        "(highest level 4 at first, 7 at the end) thinking grew: 20.0 to 50.0 tokens (2.5 times as many)",
        "26.7% at level 9 (the base: 3.3%) and 20.0% at level 12 (the base: 2.5%): "
        "50.0% and 25.0% of its accuracy at level 8.",
        "spoils 12.5% of the right answers and mends 6.2% of the wrong ones",
        "step 0, sums, level 1: Q0",
        "4 <mark>no</mark> 5 <mark>differ</mark> <mark>Wait</mark> &lt;b&gt;6&lt;/b&gt;",
    ]
    places = [page.find(sentence) for sentence in said]
    assert -1 not in places
    assert places == sorted(places)
    assert places[-1] < page.index("What was trained on what"), "all of it comes first"


def test_rewards_of_ones_own_are_named_and_may_be_for_length(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    rubric = {"accuracy": 0.0, "format": 1.0, "functions": {"mine.py:brevity": 0.5}}
    (run / "r1-zero" / "stage.json").write_text(json.dumps({"config": {"rubric": rubric}}))
    page = words(run)
    assert "was rewarded for the right form (weight 1) and brevity (weight 0.5)." in page
    assert "Nothing rewards length" not in page
    assert "had to go on once" not in page


def test_growth_is_claimed_only_where_there_is_some(tmp_path: Path) -> None:
    page = words(run_folder(tmp_path, before=40, after=30))
    assert "thinking of well-formed answers did not grow: 40.0 to 30.0 tokens (0.8 times as many)" in page


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (0.1, "right more often: +10.0 points [+9.0, +11.0] after one pass at the trained levels"),
        (-0.1, "right less often: -10.0 points [-11.0, -9.0] after one pass"),
        (0.005, "neither more nor less often, as far as these problems can tell"),
    ],
)
def test_what_thinking_on_is_worth(tmp_path: Path, gain: float, said: str) -> None:
    assert said in words(run_folder(tmp_path, gain=gain))


def test_a_table_by_level_for_each_model(tmp_path: Path) -> None:
    page = words(run_folder(tmp_path))
    table = page[page.index("Does more thinking help?") :]
    assert "made to think on, once made to think on, twice" in table
    rows = [table.index(name) for name in ("level 2", "level 8", "level 9, above training", "level 12, above")]
    assert rows == sorted(rows)
    assert "level 8 40.0% [39, 41] 40.0 +10.0 [+9.0, +11.0] +20.0 [+19.0, +21.0] 25.0% –" in table
    assert "50.0% reject an attempt first; cut off just before that and made to answer, 60% of these are wrong" in table


def test_a_run_that_still_learns_shows_its_growth_and_claims_nothing_more(tmp_path: Path) -> None:
    page = words(run_folder(tmp_path, done=False))
    assert "thinking grew: 20.0 to 50.0 tokens" in page
    assert "Beyond training" not in page
    assert "Does more thinking help?" not in page


def test_a_run_without_reinforcement_learning_has_no_such_screen(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    (folder / "metrics.jsonl").write_text("")
    assert first_screen(read_run(folder), "pretrain", "r1-zero") is None


def test_budgets_are_shown_where_they_were_measured(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    screen = first_screen(read_run(folder), "pretrain", "r1-zero")
    assert screen is not None
    assert "held-out problems by level" in screen["reach"]
    run = read_run(folder)
    points = [{"setting": budget, "accuracy": interval(0.1)} for budget in (64, 16)]
    run.scaling["r1-zero"] = {"zero": {"curves": {"end_thinking": points}}}
    screen = first_screen(run, "pretrain", "r1-zero")
    assert screen is not None
    assert "how long they may think" in screen["reach"]


def test_the_rule_takes_the_first_and_the_last_right_answer_of_one_kind() -> None:
    groups = [
        group(0, completion("wrong", right=0.0), completion("no form", formed=0.0), completion("x", forced=[1, 2])),
        group(1, completion("wrong", right=0.0), completion("A"), completion("not the first of its step")),
        group(1, completion("second group of the step")),
        group(30, completion("between")),
        group(90, completion("Z")),
        group(99, completion("", right=0.0)),
        group(2, completion("B"), level=2),
        group(60, completion("Y"), level=2),
        group(40, completion("late"), level=3),
        group(95, completion("later"), level=3),
        group(3, completion("alone"), level=4),
    ]
    assert [one["text"] for _, _, one in first_and_last(groups)] == ["B", "Y"], "the highest level of those seen early"
    assert [one["text"] for _, _, one in first_and_last(groups[:6])] == ["A", "Z"]
    assert first_and_last(groups[:1]) == []
    assert first_and_last([]) == []


def test_smoothing_keeps_steps_and_means() -> None:
    assert smoothed([(5, 0.0), (6, 3.0), (9, 6.0)], width=3) == [(5, 1.5), (6, 3.0), (9, 4.5)]
