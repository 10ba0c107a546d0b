"""The stage on a small random model: what it writes, that it continues, that it uses the reward model it is given."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aha.evals.scaling import METHODS
from aha.evals.scaling_stage import Scaling, ScalingConfig, ScalingSuite
from aha.inference.engine import Engine
from aha.models.checkpoint.hf import load_pretrained
from aha.models.reward_model import RewardModel, save_reward_model
from aha.text.tokenizer import Tokenizer
from aha.training.stage import StageContext
from aha.types import Completion, Request

SMALL: dict[str, Any] = {
    "families": ("boxes",), "levels": (1, 2), "problems_per_level": 2, "samples": 4, "repeats": 1, "rounds": 1,
    "budgets": (4, 8), "compared_at": (4, 8), "max_completion_tokens": 12, "room": 80, "subsets": 4,
}  # fmt: skip


class Interrupted(Engine):
    """Is interrupted at its third call."""

    calls = 0

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        Interrupted.calls += 1
        if Interrupted.calls == 3:
            raise KeyboardInterrupt
        return super().generate(requests)


@pytest.fixture
def run(make_context: Any, base: Tokenizer, tmp_path: Path) -> Path:
    return tmp_path / "run"


def rollouts(context: StageContext) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (context.folder / "rollouts.jsonl").read_text().splitlines()]


def test_it_measures_all_methods_and_continues_to_the_same_bytes(run: Path, make_context: Any) -> None:
    config = ScalingConfig(suites=(ScalingSuite(stage="base"), ScalingSuite(stage="base", style="chat")), **SMALL)
    Interrupted.calls = 0
    with pytest.raises(KeyboardInterrupt):
        Scaling(Interrupted).run(make_context("scaling", config, ("base",)))
    context = make_context("scaling", config, ("base",))
    per_problem = 4 + 4 * 2 + 2 + 2
    assert 0 < len(rollouts(context)) < 2 * 4 * per_problem
    Scaling(Engine).run(context)
    continued = {name: (context.folder / name).read_bytes() for name in ("scaling.json", "rollouts.jsonl")}
    results = json.loads(continued["scaling.json"])
    assert list(results["base"]) == ["zero", "chat"]
    for result in results["base"].values():
        wanted = [method for method in METHODS if method not in ("reward_vote", "best_of_n")]
        assert list(result["curves"]) == wanted
        assert {point["problems"] for points in result["curves"].values() for point in points} == {4}
        assert [point["setting"] for point in result["curves"]["majority"]] == [1, 2, 4]
        assert {point["setting"] for point in result["curves"]["wait"]} == {4, 8}
        assert list(result["at_equal_tokens"]) == ["4", "8"]
    rows = rollouts(context)
    assert len(rows) == 2 * 4 * per_problem
    assert {row["source"] for row in rows} == {"samples", "end_thinking", "wait", "revision"}
    shutil.rmtree(context.folder)
    again = make_context("scaling", config, ("base",))
    Scaling(Engine).run(again)
    assert {name: (again.folder / name).read_bytes() for name in continued} == continued


def test_a_reward_model_judges_the_samples(run: Path, make_context: Any, base: Tokenizer) -> None:
    model = RewardModel(load_pretrained(run / "base" / "model"))
    about = {"preference": "helpful", "mean": 0.0, "std": 1.0}
    save_reward_model(model, run / "rm", about, base.files())
    methods = ("majority", "reward_vote", "best_of_n")
    suites = (ScalingSuite(stage="base", style="direct"),)
    config = ScalingConfig(suites=suites, reward_model="rm", **{**SMALL, "methods": methods})
    context = make_context("scaling", config, config.parents())
    Scaling(Engine).run(context)
    result = json.loads((context.folder / "scaling.json").read_text())["base"]["direct"]
    assert list(result["curves"]) == list(methods)
    assert {row["reward"] for row in rollouts(context)} == {0.5}, "a head that is all zeros likes everything as much"
