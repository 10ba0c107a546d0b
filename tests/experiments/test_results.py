"""The published tables of R1-Zero: what they say of thinking follows from the seeds' own files, and nothing else."""

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aha.report.reading import read_run

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
STAGES = [
    ("pretrain", "pretrain", []),
    ("r1-zero", "grpo", ["pretrain"]),
    ("evaluation", "evaluation", ["r1-zero"]),
    ("thinking", "thinking", ["r1-zero"]),
    ("no-long", "grpo", ["pretrain-no-long"]),
    ("thinking-no-long", "thinking", ["no-long"]),
]


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    module = import_module("results")
    monkeypatch.setattr(module, "HERE", tmp_path / "published")
    return module


def about(accuracy: float, tokens: float) -> dict[str, Any]:
    gains = {"1": {"mean": -0.02}, "2": {"mean": 0.04}}
    return {
        "by_level": {},
        "by_family": {"sums": {}},
        "trained_levels": {"accuracy": {"mean": accuracy}, "thinking_tokens": tokens},
        "beyond_training": [0.8, 0.6],
        "forced": {"trained_levels": gains, "one_level_above": gains},
        "think_longer": {"right_to_wrong": 0.12, "wrong_to_right": 0.07},
        "repair_share": 0.5,
        "repair_worth": None,
    }


def run_folder(path: Path, accuracy: float, tokens: float) -> Path:
    for name, *_ in STAGES:
        (path / name).mkdir(parents=True)
    (path / "config.yaml").write_text("recipe: toy\nevaluation: {trained_levels: [1]}\n")
    stages = [{"name": name, "kind": kind, "parents": parents, "done": True} for name, kind, parents in STAGES]
    (path / "lineage.json").write_text(json.dumps({"stages": stages}))
    (path / "summary.json").write_text(json.dumps({"stages": [{"name": "r1-zero", "commit": "abcdef"}]}))
    own = {"pretrain": about(0.1, 10.0), "r1-zero": about(accuracy, tokens)}
    (path / "thinking" / "thinking.json").write_text(json.dumps(own))
    arm = {"pretrain-no-long": about(0.1, 20.0), "no-long": about(0.3, 30.0)}
    (path / "thinking-no-long" / "thinking.json").write_text(json.dumps(arm))
    row = {
        "pass_at_1": {"mean": accuracy, "low": 0.0, "high": 1.0, "problems": 1, "samples": 1},
        "cons_at_k": {"1": accuracy},
        "by_family": {"sums": {"2": 0.5, "12": 0.25}},
        "by_domain": {"math": {"mean": 0.5}},
        "format_rate": 1.0,
        "true_step_rate": 1.0,
        "mean_completion_tokens": 10.0,
        "reflections_per_answer": 1.0,
    }
    both = {"trained_levels": row, "all_levels": row}
    evaluated = {"pretrain": {"zero": both}, "r1-zero": {"zero": both}}
    (path / "evaluation" / "results.json").write_text(json.dumps(evaluated))
    samples = [
        {"model": model, "style": "zero", "key": "a", "level": 1, "correct": model == "r1-zero"} for model in evaluated
    ]
    (path / "evaluation" / "rollouts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in samples))
    length = "completions/mean_thinking_tokens"
    steps = [
        {
            "stage": stage,
            "step": step,
            length: 20.0 if step < 10 else 50.0,
            "rewards/accuracy/mean": 0.5,
            **({"evaluation_trained_levels": row} if step == 0 else {}),
        }
        for stage in ("r1-zero", "no-long")
        for step in range(20)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in steps))
    return path


def lines_of(results: ModuleType) -> list[str]:
    return list((results.HERE / "README.md").read_text(encoding="utf-8").splitlines())


def test_thinking_is_published_as_means_over_seeds(results: ModuleType, tmp_path: Path) -> None:
    for seed, (accuracy, tokens) in enumerate([(0.6, 40.0), (0.8, 60.0)]):
        results.keep(read_run(run_folder(tmp_path / str(seed), accuracy, tokens)), seed)
    results.write_page()
    rows = lines_of(results)
    assert "| R1-Zero | mean | seed 0 | seed 1 |" in rows
    said = [
        "| pass@1 of the base, % | 10.0 [10.0, 10.0] | 10.0 | 10.0 |",
        "| pass@1, % | 70.0 [-57.1, 197.1] | 60.0 | 80.0 |",
        "| growth of thinking, times | 5.0 [-7.7, 17.7] | 4.0 | 6.0 |",
        "| growth on its own training problems, times | 2.5 [2.5, 2.5] | 2.5 | 2.5 |",
        "| accuracy one level above training, % of that at the highest | 80.0 [80.0, 80.0] | 80.0 | 80.0 |",
        "| made to think on once, trained levels: points | -2.0 [-2.0, -2.0] | -2.0 | -2.0 |",
        "| made to think on twice, one level above: points | 4.0 [4.0, 4.0] | 4.0 | 4.0 |",
        "| one more pass: right answers made wrong, % | 12.0 [12.0, 12.0] | 12.0 | 12.0 |",
        "| right answers to searches that reject an attempt, % | 50.0 [50.0, 50.0] | 50.0 | 50.0 |",
    ]
    assert [row for row in said if row not in rows] == []
    assert not any("points lost" in row for row in rows), "nothing is said of what no seed has measured"
    picture = (results.HERE / "thinking.svg").read_text(encoding="utf-8")
    assert "thinking, seed 1" in picture
    assert "right, seed 0" in picture


def test_an_arm_is_compared_with_its_own_base(results: ModuleType, tmp_path: Path) -> None:
    results.keep(read_run(run_folder(tmp_path / "run", 0.6, 40.0)), 0)
    results.write_page()
    rows = lines_of(results)
    assert "| r1-zero | 1 | 60.0 | 40.0 | 4.0 | 2.5 | 80.0 | -2.0 | 50.0 |" in rows
    assert "| no-long | 1 | 30.0 | 30.0 | 1.5 | 2.5 | 80.0 | -2.0 | 50.0 |" in rows


def test_levels_stand_in_the_order_of_numbers(results: ModuleType, tmp_path: Path) -> None:
    results.keep(read_run(run_folder(tmp_path / "run", 0.6, 40.0)), 0)
    results.write_page()
    assert "| model | family | level 2 | level 12 |" in lines_of(results)
