"""The page of a whole recipe: directions judged from numbers, the drawing, audits in words, one prompt by rule."""

import json
from pathlib import Path
from typing import Any

import pytest

from aha.report.directions import directions, hacking
from aha.report.lineage import Box, draw, ranks
from aha.report.page import make_report
from aha.report.r1 import found_directions
from aha.report.reading import read_run
from aha.stages.rejection_sampling import RULES

QUESTION = "What is <b>1+1</b>?"
GOOD: dict[str, dict[str, float | None]] = {
    "r1-zero": {"one language": 0.7, "pass@1": 0.80, "general": 0.1},
    "dev2": {"pass@1": 0.81},
    "dev3": {"pass@1": 0.79},
    "r1": {"one language": 0.99, "pass@1": 0.82, "general": 0.7, "harmful refused": 0.95, "false refusals": 0.01},
    "qwen3": {"pass@1": 0.6},
    "qwen3-mini": {"pass@1": 0.7},
    "qwen3-rl": {"pass@1": 0.4},
}


def test_directions_hold_where_the_numbers_say_so() -> None:
    found = directions(GOOD, ("qwen3", "qwen3-mini"), {"qwen3": "qwen3-rl"})
    assert len(found) == 7
    assert all(direction.holds for direction in found)


@pytest.mark.parametrize(
    ("model", "title", "number", "words"),
    [
        ("r1-zero", "one language", 0.9, "mixes languages"),
        ("r1", "one language", 0.9, "mixes languages"),
        ("r1", "pass@1", 0.7, "reasons as well"),
        ("r1", "general", 0.3, "general tasks"),
        ("dev3", "pass@1", 0.7, "keeps Dev2's"),
        ("r1", "false refusals", 0.06, "refuses harmful"),
        ("r1", "harmful refused", 0.9, "refuses harmful"),
        ("qwen3-rl", "pass@1", 0.55, "distilling R1 beats"),
        ("qwen3-mini", "pass@1", 0.5, "grow with size"),
        ("qwen3-mini", "pass@1", 0.6, "grow with size"),
    ],
)
def test_a_direction_that_fails_is_said_to_fail(model: str, title: str, number: float, words: str) -> None:
    figures = {**GOOD, model: {**GOOD[model], title: number}}
    found = directions(figures, ("qwen3", "qwen3-mini"), {"qwen3": "qwen3-rl"})
    assert [words in direction.statement for direction in found if not direction.holds] == [True]


def test_distillation_and_rl_are_shown_with_the_base_of_both() -> None:
    """Which is ahead depends on what the base can do already."""
    found = directions({**GOOD, "qwen3-base": {"pass@1": 0.03}}, by_rl={"qwen3": "qwen3-rl"})
    assert "distilled 60.0%, by RL 40.0%, the base of both 3.0%" in [direction.measured for direction in found]
    assert "distilled 60.0%, by RL 40.0%" in [one.measured for one in directions(GOOD, by_rl={"qwen3": "qwen3-rl"})]


def test_what_was_not_measured_is_not_judged() -> None:
    assert directions({"r1": GOOD["r1"]}) == [
        direction for direction in directions(GOOD) if "refuses harmful" in direction.statement
    ]


def test_reward_models_are_hacked_when_their_score_and_the_true_one_part() -> None:
    assert hacking((0.5, 0.7), (0.6, 0.4)).holds
    assert not hacking((0.5, 0.7), (0.6, 0.7)).holds, "the true score keeps up"
    assert not hacking((0.5, 0.7), (0.4, 0.4)).holds, "both fall: that is no hack"
    assert hacking((0.5, 0.7), (0.6, 0.4)).measured == "learned 50.0% to 60.0%, true 70.0% to 40.0%"


def test_the_drawing_puts_children_below_their_parents_and_data_just_above_what_reads_them() -> None:
    data = Box("d", [], [], model=False)
    boxes = [Box("a", [], []), Box("b", ["a"], []), data, Box("c", ["a", "b", "d"], ["<script>"])]
    assert ranks(boxes) == {"a": 0, "b": 1, "d": 1, "c": 2}
    svg = draw(boxes, "stages")
    assert svg.count("<rect") == 4
    assert svg.count("<path") == 4
    assert "<script>" not in svg


def test_the_drawing_tells_weights_from_what_is_read_and_leads_them_round_the_boxes() -> None:
    boxes = [Box("base", [], []), Box("zero", ["base"], []), Box("data", ["zero"], [], model=False)]
    svg = draw([*boxes, Box("dev", ["base", "data"], [])], "stages")
    bold = [path for path in svg.split("<path ")[1:] if 'class="weights"' in path]
    assert len(bold) == 2, "base to zero and base to dev; not zero to data, nor data to dev"
    assert [" H" in path for path in bold] == [False, True], "the second passes two rows"
    assert len(draw([*boxes, Box("dev", ["data"], [])], "stages").split('class="weights"')) == 2, "data has no weights"


def results(accuracy: float) -> dict[str, Any]:
    trained = {
        "pass_at_1": {"mean": accuracy, "low": accuracy, "high": accuracy, "problems": 1, "samples": 2},
        "by_domain": {"math": {"mean": accuracy}},
        "format_rate": 1.0,
        "mean_tokens_well_formed": 10.0,
        "reflections_per_answer": 1.0,
        "language_consistency": 0.97,
    }
    cell = {"pass_at_1": accuracy, "cons_at_k": accuracy, "pass_at_k": accuracy}
    levels = {"by_family": {"sums": {"1": accuracy}}, "by_domain_level": {"math": {"1": cell}}}
    return {"trained_levels": trained, "all_levels": {**trained, **levels}, "general": {"score": 0.4}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    stages = [
        ("pretrain", "pretrain", []),
        ("r1-zero", "grpo", ["pretrain"]),
        ("cold-start-data", "rejection_sampling", ["r1-zero"]),
        ("helpful-rm", "reward_model", ["pretrain"]),
        ("r1", "grpo", ["pretrain", "helpful-rm"]),
        ("distillation-data", "rejection_sampling", ["r1"]),
        ("qwen3-base", "pretrain", []),
        ("qwen3", "sft", ["qwen3-base", "distillation-data"]),
        ("evaluation", "evaluation", ["pretrain", "r1-zero", "r1", "qwen3"]),
    ]
    for name, _, _ in stages:
        (folder / name).mkdir(parents=True)
    (folder / "config.yaml").write_text(
        "recipe: r1-tiny\nseed: 0\nevaluation: {trained_levels: [1, 2, 3]}\n", encoding="utf-8"
    )
    lineage = {"stages": [{"name": n, "kind": k, "parents": p, "done": True} for n, k, p in stages]}
    (folder / "lineage.json").write_text(json.dumps(lineage), encoding="utf-8")
    rows = [{"name": n, "minutes": 1.0, "tokens_trained": 1000} for n, _, _ in stages]
    rows[3] |= {"examples": 90, "accuracy": 0.8, "accuracy_true": 0.7}
    (folder / "summary.json").write_text(json.dumps({"stages": rows, "wall_seconds": 60.0}), encoding="utf-8")
    ways = {"pretrain": ("zero", 0.1), "r1-zero": ("zero", 0.8), "r1": ("chat", 0.85), "qwen3": ("chat", 0.6)}
    found = {model: {way: results(accuracy)} for model, (way, accuracy) in ways.items()}
    (folder / "evaluation" / "results.json").write_text(json.dumps(found), encoding="utf-8")
    counts = {**dict.fromkeys(RULES, 0), "wrong": 3, "kept": 5}
    audit = {
        "in": 8,
        "total": counts,
        "by_cell": {"sums 1": counts},
        "judge": {"samples": 20, "agreement": 0.5, "floor": 0.95, "has_a_say": False},
        "summaries": {"by V3": 2, "by rule": 3},
    }
    (folder / "cold-start-data" / "audit.json").write_text(json.dumps(audit), encoding="utf-8")
    general = {"stage": "r1", "step": 10, "evaluation_general": {"score": 0.4, "preference": 0.9}}
    (folder / "metrics.jsonl").write_text(json.dumps(general) + "\n", encoding="utf-8")
    sample = {"key": "k", "family": "sums", "domain": "math", "level": 1, "correct": True, "well_formed": True}
    samples = [
        {**sample, "model": model, "style": way, "index": i, "question": QUESTION, "completion": f"{model}: 2"}
        for model, (way, _) in ways.items()
        for i in range(2)
    ]
    text = "".join(json.dumps(sample) + "\n" for sample in samples)
    (folder / "evaluation" / "rollouts.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_the_page_tells_the_whole_story(run: Path) -> None:
    page = make_report(run).read_text(encoding="utf-8")
    for words in (
        "What the papers say, and what came out here",
        "One prompt through all models",
        "&lt;think&gt;qwen3: 2",
        "math, level 1: ",
        "V3, given the truth, agrees with the rules on 50% of 20 answers, too rarely to have a say",
        "Summaries: 2 by V3",
        "The reward models, and the truth",
        "Distillation",
        "sums 1",
    ):
        assert words in page, words
    assert "<b>1+1</b>" not in page
    assert page.count("What is &lt;b&gt;1+1&lt;/b&gt;?") == 1, "each prompt once"
    assert "R1-Zero&#39;s template, chat format: an answer counts only in the strict form." in page


def test_the_arm_that_trusts_reward_models_is_judged_when_it_is_done(run: Path) -> None:
    lineage = json.loads((run / "lineage.json").read_text())
    arm = {"name": "r1-long-reward", "kind": "grpo", "parents": ["r1"], "done": False}
    lineage["stages"].append(arm)
    figures = [
        {"stage": "r1-long-reward", "step": step, "evaluation_general": {"score": 0.7 - step, "preference": 0.5 + step}}
        for step in (0, 0.1)
    ]
    with (run / "metrics.jsonl").open("a") as log:
        log.writelines(json.dumps(row) + "\n" for row in figures)

    def judged() -> list[bool]:
        (run / "lineage.json").write_text(json.dumps(lineage))
        return [one.holds for one in found_directions(read_run(run)) if "hacked" in one.statement]

    assert judged() == []
    arm["done"] = True
    assert judged() == [True]


def test_distillation_alone_is_about_the_student(tmp_path: Path) -> None:
    """`aha run distill`: the base is the student's, not the teacher, and nobody grew an R1."""
    folder = tmp_path / "run"
    stages = [
        ("teacher", "checkpoint", []),
        ("base", "checkpoint", []),
        ("problems", "problems", []),
        ("samples", "rejection_sampling", ["teacher", "problems"]),
        ("student", "sft", ["base", "samples"]),
        ("evaluation", "evaluation", ["teacher", "base", "student"]),
    ]
    (folder / "evaluation").mkdir(parents=True)
    (folder / "samples").mkdir()
    (folder / "config.yaml").write_text("recipe: distill\nseed: 0\nevaluation: {trained_levels: [1]}\n")
    lineage = {"stages": [{"name": n, "kind": k, "parents": p, "done": True} for n, k, p in stages]}
    (folder / "lineage.json").write_text(json.dumps(lineage))
    found = {name: {"chat": results(p)} for name, p in (("teacher", 0.8), ("base", 0.2), ("student", 0.45))}
    (folder / "evaluation" / "results.json").write_text(json.dumps(found))
    counts = {**dict.fromkeys(RULES, 0), "wrong": 3, "kept": 5}
    (folder / "samples" / "audit.json").write_text(json.dumps({"in": 8, "total": counts, "by_cell": {}}))
    page = make_report(folder).read_text()
    assert "fine-tuning took pass@1 from 20.0% to 45.0%" in page
    assert "random weights" not in page
    assert "Rejection sampling: what was kept" in page
    lineage["stages"][4] |= {"parents": ["tuned", "samples"], "kind": "grpo"}
    lineage["stages"].insert(1, {"name": "tuned", "kind": "sft", "parents": ["base"], "done": True})
    (folder / "lineage.json").write_text(json.dumps(lineage))
    found["tuned"] = {"chat": results(0.3)}
    (folder / "evaluation" / "results.json").write_text(json.dumps(found))
    assert "RL took pass@1 from 30.0% to 45.0%" in make_report(folder).read_text(), "RL on what was fine-tuned before"


def test_the_drawing_shows_a_checkpoint_of_ones_own_as_the_model_that_goes_on(run: Path) -> None:
    stages = [("base", "checkpoint", []), ("problems", "problems", []), ("grpo", "grpo", ["base", "problems"])]
    lineage = {"stages": [{"name": n, "kind": k, "parents": p, "done": True} for n, k, p in stages]}
    (run / "lineage.json").write_text(json.dumps(lineage), encoding="utf-8")
    svg = make_report(run).read_text(encoding="utf-8").split('<svg class="lineage"')[1].split("</svg>")[0]
    assert svg.count('class="weights"') == 1 and svg.count('class="model"') == 2
