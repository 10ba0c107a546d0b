"""Fine-tuning: the loss is the answer's alone, packing changes nothing, it learns, it continues where it stopped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aha.compute import ComputeConfig
from aha.data.conversations import Conversation, Examples, encode, write_conversations
from aha.errors import CheckpointError, ConfigError
from aha.files import file_sha256
from aha.models.checkpoint.adapter import load_adapter
from aha.models.checkpoint.hf import load_pretrained
from aha.models.layouts import Ragged
from aha.models.lora_linear import LoRAConfig
from aha.runs import read_jsonl
from aha.stages.sft import SFT, SFTConfig, SFTTrainer, SourceStage, fitting, need_enough
from aha.stages.sft import conversations as stage_conversations
from aha.text.tokenizer import Tokenizer
from aha.training.interrupts import StopRequested
from aha.training.optimizer import OptimizerConfig
from aha.training.parallel import ParallelConfig
from aha.training.stage import StageContext
from aha.training.trained_model import load_for_training

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
    ids_N, mask_N, layout = trainer._batch(examples)
    packed = trainer._summed_loss(model(ids_N, layout), ids_N, mask_N)
    alone = torch.zeros(())
    for example in examples:
        ids = torch.tensor(example.token_ids)
        logprobs = torch.log_softmax(model.logits(model(ids, Ragged([len(ids)])).hidden_ND), -1)
        chosen = logprobs[:-1].gather(1, ids[1:, None]).squeeze(-1)
        alone = alone - (chosen * torch.tensor(example.loss_mask[1:])).sum()
    assert torch.allclose(packed, alone, atol=1e-3)


def test_prediction_modules_learn_beside_the_model(make_context: MakeContext, base: Tokenizer) -> None:
    """They foretell the answers afterwards, and the model is the same to the last bit, clipped gradients included."""
    models, losses = [], []
    for share in (0.0, 0.5):
        optimizer = OptimizerConfig(adam_lr=0.01, muon_lr=0.01, warmup_steps=0, clip_norm=0.1, schedule="constant")
        settings = {"epochs": 6, "mtp_share": share, "optimizer": optimizer}
        context = context_with_data(make_context, name=f"tuned-{share}", **settings)
        object.__setattr__(context, "name", "tuned")  # the same examples in the same order
        SFT().run(context)
        context.logs.close()
        rows = read_jsonl(context.folder / "metrics.jsonl")
        losses.append([row["mtp_loss"] for row in rows if "mtp_loss" in row])
        models.append(load_pretrained(context.model_folder).state_dict())
    before = load_pretrained(context.run.path / "base" / "model").state_dict()
    for name, tensor in before.items():
        frozen, trained = models[0][name], models[1][name]
        if name.startswith("mtp."):
            assert torch.equal(frozen, tensor)
            assert torch.equal(trained, tensor) == name.endswith("e_score_correction_bias"), name
        else:
            assert torch.equal(frozen, trained), name
    assert not losses[0] and losses[1][-1] < 0.7 * losses[1][0]


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
    with pytest.raises(ConfigError, match=r"cannot read .*examples\.jsonl"):
        SFT().run(context)


def test_a_source_is_named_once() -> None:
    with pytest.raises(ValueError, match="named twice"):
        config(sources=({"stage": "data"}, {"stage": "data"}))


def test_adapters_alone_are_trained_and_the_export_has_them_merged(make_context: MakeContext, base: Tokenizer) -> None:
    lora = LoRAConfig(r=8, dropout=0.1, target_modules=("o_proj", "down_proj"))
    rates = OptimizerConfig(adam_lr=0.05, warmup_steps=0)
    context = context_with_data(make_context, epochs=8, lora=lora, optimizer=rates)
    SFT().run(context)
    context.logs.close()
    losses = [row["held_out_loss"] for row in read_jsonl(context.folder / "metrics.jsonl") if "held_out_loss" in row]
    assert losses[-1] < 0.98 * losses[0]  # embeddings and head are frozen as they were drawn
    before = load_file(context.run.path / "base" / "model" / "model.safetensors")
    after = load_file(context.model_folder / "model.safetensors")
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    adapted = ("0.self_attn.o_proj", "1.self_attn.o_proj", "0.mlp.down_proj", "1.mlp.shared_experts.down_proj")
    assert changed == {f"model.layers.{name}.weight" for name in adapted}
    merged = load_pretrained(context.model_folder)
    beside = load_adapter(load_pretrained(context.run.path / "base" / "model"), context.folder / "model-adapter").eval()
    ids = torch.randint(9, 300, (15,))
    one, two = (model.logits(model(ids, Ragged([15])).hidden_ND) for model in (merged, beside))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_a_killed_run_on_adapters_ends_with_the_same_bytes(make_context: MakeContext, base: Tokenizer) -> None:
    """Its checkpoints have the adapters alone."""
    lora = LoRAConfig(r=4, dropout=0.1)
    whole = context_with_data(make_context, lora=lora)
    SFT().run(whole)
    expected = file_sha256(whole.model_folder / "model.safetensors")
    (whole.run.path / "tuned").rename(whole.run.path / "first")
    interrupted = context_with_data(make_context, lora=lora)
    interrupted.checkpointer._stop.signum = 15
    with pytest.raises(StopRequested):
        SFT().run(interrupted)
    (checkpoint,) = (interrupted.folder / "checkpoints").glob("step-*/*.safetensors")
    assert all("lora_" in name or name.endswith("e_score_correction_bias") for name in load_file(checkpoint))
    again = context_with_data(make_context, lora=lora)
    SFT().run(again)
    assert file_sha256(again.model_folder / "model.safetensors") == expected


BFLOAT16 = {"compute": ComputeConfig(dtype="bfloat16")}


def gradients(make: MakeContext, tokenizer: Tokenizer, around: Any = None, **changes: object) -> list[torch.Tensor]:
    """Of the first step of a stage with these settings; `around` changes what its context says."""
    context = replace(context_with_data(make, **changes), **(around or {}))
    settings = config(validation_examples=0, **changes)
    folder = context.run.path / "base" / "model"
    model = load_for_training(context, folder, settings.lora)
    trainer = SFTTrainer(settings, model, [encode(tokenizer, c) for c in conversations(8)], context)
    captured: list[torch.Tensor] = []
    optimizer = trainer.update.optimizer
    optimizer.step = lambda: captured.extend(optimizer.gradients()) or (0.0, 0.0, False)
    trainer.step(0)
    return captured


def test_gradients_add_up_over_parts_of_the_batch(make_context: MakeContext, base: Tokenizer) -> None:
    """And are the same where activations are computed twice."""
    whole = gradients(make_context, base)
    assert sum(float(gradient.norm()) for gradient in whole) > 0.1
    twice = {"parallel": ParallelConfig(activation_checkpointing=True)}
    for got in (gradients(make_context, base, micro_tokens=40), gradients(make_context, base, twice)):
        for found, expected in zip(got, whole, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_bfloat16_has_float32_masters_and_the_gradients_of_float32(make_context: MakeContext, base: Tokenizer) -> None:
    wide = gradients(make_context, base)
    narrow = gradients(make_context, base, BFLOAT16, micro_tokens=40)
    assert {gradient.dtype for gradient in narrow} == {torch.float32}
    one, two = (torch.cat([gradient.flatten() for gradient in grads]) for grads in (wide, narrow))
    assert float(torch.nn.functional.cosine_similarity(one, two, dim=0)) > 0.99
    context = replace(context_with_data(make_context, epochs=8), **BFLOAT16)
    SFT().run(context)
    context.logs.close()
    losses = [row["held_out_loss"] for row in read_jsonl(context.folder / "metrics.jsonl") if "held_out_loss" in row]
    assert losses[-1] < 0.9 * losses[0]
    assert {t.dtype for n, t in load_file(context.model_folder / "model.safetensors").items() if "bias" not in n} == {
        torch.bfloat16
    }


def test_what_cannot_be_trained_on_is_found_before_the_first_step(
    make_context: MakeContext, base: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context("sft", config(validation_examples=0), ("base", "data"))
    folder = context.run.path / "data"
    folder.mkdir(exist_ok=True)
    said = [Conversation.of(f"What is {i}?", "4." * (1 if i != 3 else 600)) for i in range(8)]
    write_conversations(folder / "examples.jsonl", said)
    model = load_pretrained(context.run.path / "base" / "model")
    examples = Examples(base, stage_conversations(context, config(validation_examples=0)))
    fit = fitting(context, examples, model.config)
    assert len(examples) == 8 and len(fit) == 7
    assert list(fit) == [example for i, example in enumerate(examples) if i != 3]
    with pytest.raises(ConfigError, match=r"7 conversations .* validation_examples = 7 of them are kept"):
        need_enough(context, config(validation_examples=7), len(fit))
    encodes = base.encode

    def refuse(text: str) -> list[int]:
        if "What is 2?" in text:
            raise CheckpointError("the chat template cannot be used: no system role")
        return encodes(text)

    monkeypatch.setattr(base, "encode", refuse)  # as a chat template refuses some conversations
    with pytest.raises(ConfigError, match=r"examples.jsonl, line 3: .*no system role"):
        fitting(context, examples, model.config)
