"""Reward models: they learn an order, score alike in any batch, and come back from disk as they were."""

import json
import math
import random

import pytest
import torch

from aha.errors import CheckpointError, ConfigError
from aha.files import file_sha256
from aha.models.reward_model import RewardScorer, load_reward_model
from aha.rewards.preference import judged_token_ids
from aha.stages.reward_model import RewardModelConfig, RewardModelTraining, _label_accuracy, _left_out
from aha.text.tokenizer import Tokenizer
from aha.training.interrupts import StopRequested
from aha.training.optimizer import OptimizerConfig
from aha.training.stage import StageContext

from ..conftest import MakeContext

FAST = OptimizerConfig(adam_lr=3e-3, muon_lr=0.0, weight_decay=0.0, warmup_steps=2)


def context_with_pairs(make: MakeContext, count: int = 80) -> StageContext:
    """The better response ends with a full stop."""
    config = RewardModelConfig(
        preference="helpful", data="preferences", epochs=6, examples_per_step=16, optimizer=FAST, calibration_share=0.2
    )
    context = make("helpful-rm", config, ("base", "preferences"))
    folder = context.run.path / "preferences"
    folder.mkdir(exist_ok=True)
    rng = random.Random(0)
    rows = []
    for number in range(count):
        value = rng.randint(1, 99)
        row = {"key": str(number), "question": f"What is {number}?", "chosen": f"{value}.", "rejected": f"{value}?"}
        rows.append({**row, "held_out": number % 5 == 0, "true_scores": [1.0, 0.0]})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    labelled = [
        {
            "key": str(i),
            "question": f"Do {i}?",
            "held_out": i % 5 == 0,
            "reasoning": "r",
            "response": "no" if i % 2 else "yes",
            "safe": bool(i % 2),
            "harmful": i % 15 > 0,
        }
        for i in range(count)
    ]
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled), encoding="utf-8")
    return context


def test_it_learns_the_order_and_is_itself_again_when_loaded(make_context: MakeContext, base: Tokenizer) -> None:
    context = context_with_pairs(make_context)
    result = RewardModelTraining().run(context)
    assert result.summary["accuracy"] > 0.9
    assert result.summary["accuracy_true"] > 0.9
    model, about = load_reward_model(context.folder)
    assert about["preference"] == "helpful"
    assert math.isfinite(about["mean"])
    assert about["std"] > 0
    scorer = RewardScorer(model)
    pairs = [
        judged_token_ids(base, "helpful", f"What is {number}?", "", text)
        for number in range(200, 210)
        for text in ("17.", "17?")
    ]
    scores = scorer.score(pairs)
    assert sum(a > b for a, b in zip(scores[::2], scores[1::2], strict=True)) >= 9
    assert torch.allclose(torch.tensor(scores), torch.tensor([scorer.score([ids])[0] for ids in pairs]), atol=1e-5)


def test_labels_are_learned_too(make_context: MakeContext, base: Tokenizer) -> None:
    context = context_with_pairs(make_context)
    config = RewardModelConfig(
        preference="harmless", data="preferences", epochs=6, examples_per_step=16, optimizer=FAST, calibration_share=0.2
    )
    harmless = make_context("harmless-rm", config, ("base", "preferences"))
    assert harmless.run.path == context.run.path
    summary = RewardModelTraining().run(harmless).summary
    assert min(summary["accuracy"], summary["accuracy_harmful"]) > 0.9
    assert (summary["always_the_same"], summary["always_the_same_harmful"]) == (0.5, 0.5)


def test_accuracy_is_of_all_labels_or_of_one_kind() -> None:
    labelled = [(True, True), (True, True), (False, True), (False, False)]
    assert _label_accuracy(labelled) == (0.75, 0.75)
    assert _label_accuracy([(True, True), (False, False)]) == (1.0, 0.5)


def test_no_problem_is_on_both_sides_in_other_words() -> None:
    rows = [{"key": str(i), "question": f"{words}{i}?"} for i in range(40) for words in ("What is ", "Tell me: ")]
    out = _left_out(rows, 0.2, seed=0)
    assert sum(out) == 16
    assert {r["key"] for r, o in zip(rows, out, strict=True) if o}.isdisjoint(
        r["key"] for r, o in zip(rows, out, strict=True) if not o
    )


def test_a_killed_run_ends_with_the_same_bytes(make_context: MakeContext, base: Tokenizer) -> None:
    files = ("model/model.safetensors", "reward_head.safetensors", "metrics.jsonl")
    whole = context_with_pairs(make_context, count=40)
    result = RewardModelTraining().run(whole)
    expected = [file_sha256(whole.folder / name) for name in files]
    whole.folder.rename(whole.run.path / "first")
    for _ in range(2):
        interrupted = context_with_pairs(make_context, count=40)
        interrupted.checkpointer._stop.signum = 15
        with pytest.raises(StopRequested):
            RewardModelTraining().run(interrupted)
    again = context_with_pairs(make_context, count=40)
    assert RewardModelTraining().run(again) == result
    assert [file_sha256(again.folder / name) for name in files] == expected


def test_too_few_examples_are_refused(make_context: MakeContext, base: Tokenizer) -> None:
    with pytest.raises(ConfigError, match=r"has 19 training examples; .* at least 20"):
        RewardModelTraining().run(context_with_pairs(make_context, count=24))
    context = context_with_pairs(make_context)
    pairs = context.run.path / "preferences" / "pairs.jsonl"
    pairs.write_text(
        "".join(line for line in pairs.read_text().splitlines(keepends=True) if '"held_out": false' in line)
    )
    with pytest.raises(ConfigError, match="no held-out example"):
        RewardModelTraining().run(context)


def test_what_is_held_out_changes_neither_the_model_nor_how_it_is_calibrated(
    make_context: MakeContext, base: Tokenizer
) -> None:
    first = context_with_pairs(make_context)
    summary = RewardModelTraining().run(first).summary
    weights = file_sha256(first.folder / "model" / "model.safetensors")
    assert (summary["examples"], summary["held_out"]) == (51, 16), "64 training pairs, a fifth of them to calibrate by"
    first.folder.rename(first.run.path / "first")
    again = context_with_pairs(make_context)
    pairs = again.run.path / "preferences" / "pairs.jsonl"
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} if row["held_out"] else row for row in rows]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in turned))
    other = RewardModelTraining().run(again).summary
    assert file_sha256(again.folder / "model" / "model.safetensors") == weights
    assert (other["mean"], other["std"]) == (summary["mean"], summary["std"])
    assert other["accuracy"] == pytest.approx(1 - summary["accuracy"])


def test_a_damaged_head_is_refused(make_context: MakeContext, base: Tokenizer) -> None:
    context = context_with_pairs(make_context, count=40)
    RewardModelTraining().run(context)
    (context.folder / "reward_head.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="not a reward model's head"):
        load_reward_model(context.folder)
