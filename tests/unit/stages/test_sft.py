"""Fine-tuning: the loss is the answer's alone, packing changes nothing, it learns, it continues where it stopped."""

from pathlib import Path

import pytest
import torch

from aha.data.conversations import Conversation, encode, write_conversations
from aha.errors import ConfigError
from aha.files import file_sha256
from aha.models.hf import load_pretrained
from aha.models.layouts import Ragged
from aha.runs import read_jsonl
from aha.stages.sft import SFT, SFTConfig, SFTTrainer, SourceStage
from aha.text.tokenizer import Tokenizer
from aha.training.interrupts import StopRequested
from aha.training.stage import StageContext

from ..conftest import MakeContext


def conversations(count: int) -> list[Conversation]:
    sums = [(f"{i}+{i % 7}", i + i % 7) for i in range(count)]
    return [Conversation.of(f"What is {one}?", f"The answer is {value}.", one) for one, value in sums]


def config(**changes: object) -> SFTConfig:
    settings = {
        "sources": (SourceStage(stage="data"),),
        "examples_per_step": 8,
        "validation_examples": 4,
        "log_every": 1,
    }
    return SFTConfig.model_validate({**settings, **changes})


def context_with_data(make: MakeContext, count: int = 36, name: str = "tuned", **changes: object) -> StageContext:
    context = make(name, config(**changes), ("base", "data"))
    data = context.run.path / "data"
    data.mkdir(exist_ok=True)
    write_conversations(data / "examples.jsonl", conversations(count))
    return context


def test_the_loss_is_the_answers_and_packing_changes_nothing(make_context: MakeContext, base: Tokenizer) -> None:
    context = context_with_data(make_context)
    model = load_pretrained(context.run.path / "base" / "model")
    examples = [encode(base, conversation) for conversation in conversations(6)]
    trainer = SFTTrainer(config(validation_examples=0), model, examples, context)
    packed, _, _ = trainer._losses(examples)
    alone = torch.zeros(())
    for example in examples:
        ids = torch.tensor(example.token_ids)
        logprobs = torch.log_softmax(model.logits(model(ids, Ragged([len(ids)])).hidden_ND), -1)
        chosen = logprobs[:-1].gather(1, ids[1:, None]).squeeze(-1)
        alone = alone - (chosen * torch.tensor(example.loss_mask[1:])).sum()
    assert torch.allclose(packed, alone, atol=1e-3)


def test_it_learns_what_it_is_shown(make_context: MakeContext, base: Tokenizer) -> None:
    context = context_with_data(make_context, epochs=24)
    result = SFT().run(context)
    context.logs.close()
    rows = read_jsonl(context.folder / "metrics.jsonl")
    losses = [row["held_out_loss"] for row in rows if "held_out_loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    assert result.summary["examples"] == 32
    assert result.tokens_trained > 0
    assert Tokenizer.load(context.model_folder).vocab_size == base.vocab_size


def test_a_killed_run_ends_with_the_same_bytes(make_context: MakeContext, base: Tokenizer) -> None:
    whole = context_with_data(make_context, name="tuned")
    SFT().run(whole)
    expected = file_sha256(whole.model_folder / "model.safetensors")
    (whole.run.path / "tuned").rename(whole.run.path / "first")
    interrupted = context_with_data(make_context, name="tuned")
    interrupted.checkpointer._stop.signum = 15
    with pytest.raises(StopRequested):
        SFT().run(interrupted)
    again = context_with_data(make_context, name="tuned")
    SFT().run(again)
    assert file_sha256(again.model_folder / "model.safetensors") == expected


def test_too_little_data_is_said(make_context: MakeContext, base: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="nothing to train on"):
        SFT().run(context_with_data(make_context, count=4))


def test_missing_data_is_said(make_context: MakeContext, base: Tokenizer, tmp_path: Path) -> None:
    context = make_context("tuned", config(sources=(SourceStage(stage="nowhere"),)), ("base", "nowhere"))
    with pytest.raises(ConfigError, match="cannot read .*examples.jsonl"):
        SFT().run(context)


def test_a_source_is_named_once() -> None:
    with pytest.raises(ValueError, match="named twice"):
        config(sources=({"stage": "data"}, {"stage": "data"}))
