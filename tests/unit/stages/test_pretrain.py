"""Pretraining in parts: gradients that add up over a batch's rows are those of the whole batch."""

import json
from pathlib import Path

import pytest
import torch

from aha.models.layouts import MaskedRows, Rectangle
from aha.models.moe import max_violation
from aha.stages.pretrain import PretrainConfig, Pretrainer, build_model, make_rows, train_tokenizer

from ..conftest import SMALL, MakeContext


@pytest.mark.parametrize("mask_documents", [False, True])
@pytest.mark.parametrize("micro_rows", [1, 3, 6])
def test_gradients_add_up_over_parts_of_the_batch(
    micro_rows: int, mask_documents: bool, make_context: MakeContext
) -> None:
    """Those of the prediction modules too, which see the first half of the rows only."""
    results = []
    for rows in (0, micro_rows):
        model = {"preset": "tiny", "changes": SMALL}
        settings = {"model": model, "rows_per_step": 6, "row_tokens": 24, "mtp_share": 0.5, "tokenizer_documents": 50}
        settings |= {"micro_rows": rows, "mask_documents": mask_documents, "vocab_size": 400}
        config = PretrainConfig.model_validate(settings)
        context = make_context("pretrain", config)
        tokenizer = train_tokenizer(config, seed=0)
        trainer = Pretrainer(
            config, build_model(config, tokenizer, context), make_rows(config, tokenizer, context), context
        )
        captured: list[torch.Tensor] = []
        optimizer = trainer.update.optimizer
        optimizer.step = lambda o=optimizer, c=captured: c.extend(o.gradients()) or (0.0, 0.0, False)
        results.append((trainer.step(0), captured))
    (whole, expected), (parts, found) = results
    assert parts["mtp_loss"] > 1.0
    for name in ("loss", "mtp_loss", "balance_loss", "max_vio"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-5)
    load = torch.tensor(parts["expert_load"])
    assert load.tolist() == whole["expert_load"]
    assert float(max_violation(load).mean()) == pytest.approx(whole["max_vio"])
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)


def trainer_of(make_context: MakeContext, **changes: object) -> Pretrainer:
    settings = {
        "model": {"preset": "tiny", "changes": SMALL}, "rows_per_step": 3, "row_tokens": 300, "vocab_size": 400,
        "tokenizer_documents": 50,
    }  # fmt: skip
    config = PretrainConfig.model_validate({**settings, **changes})
    context = make_context("pretrain", config)
    tokenizer = train_tokenizer(config, seed=0)
    return Pretrainer(config, build_model(config, tokenizer, context), make_rows(config, tokenizer, context), context)


@pytest.mark.parametrize("mask_documents", [False, True])
def test_the_loss_of_the_prediction_modules(mask_documents: bool, make_context: MakeContext) -> None:
    """V3 Eqs. 24-25 with loops: module k is asked for token i + k + 1, of the same document where they are masked."""
    model = {"preset": "tiny", "changes": {**SMALL, "num_nextn_predict_layers": 2}}
    trainer = trainer_of(make_context, model=model, mask_documents=mask_documents)
    ids_N, _, documents = trainer._batch(range(3))
    layout = trainer._layout(documents)
    outputs = trainer.model.mtp_hidden(trainer.model(ids_N, layout), ids_N, layout)
    assert len(outputs) == 2
    length, expected = trainer.config.row_tokens, 0.0
    for depth, output in enumerate(outputs, start=1):
        logprobs = trainer.model.logits(output.hidden_ND).detach().log_softmax(-1)
        for row, lengths in enumerate(documents):
            owner = [number for number, own in enumerate(lengths) for _ in range(own)]
            for i in range(length - depth - 1):
                if not mask_documents or owner[i] == owner[i + depth + 1]:
                    target = ids_N[row * length + i + depth + 1]
                    expected -= float(logprobs[row * length + i, target]) / (3 * (length - depth - 1)) / 2
    assert any(len(lengths) > 1 for lengths in documents)
    assert trainer._mtp_loss(outputs, ids_N, layout, 3).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mask_documents", [False, True])
def test_with_a_mask_documents_depend_on_no_neighbour(mask_documents: bool, make_context: MakeContext) -> None:
    """Without one they do: the rows are full of documents, and another first one changes those after it."""
    trainer = trainer_of(make_context, mask_documents=mask_documents)
    ids_N, _, documents = trainer._batch(range(3))
    layout = trainer._layout(documents)
    assert isinstance(layout, MaskedRows if mask_documents else Rectangle)
    row = max(range(3), key=lambda row: len(documents[row]))
    first, second = documents[row][:2]
    start = row * trainer.config.row_tokens
    changed_N = ids_N.clone()
    changed_N[start + 1 : start + first] = (changed_N[start + 1 : start + first] + 1) % 300
    one, two = (trainer.model.logits(trainer.model(ids, layout).hidden_ND).detach() for ids in (ids_N, changed_N))
    neighbour = slice(start + first, start + first + second)
    assert not torch.equal(one[start + 1], two[start + 1])
    assert torch.equal(one[neighbour], two[neighbour]) == mask_documents


def test_a_masked_document_is_what_it_is_alone(make_context: MakeContext) -> None:
    trainer = trainer_of(make_context, mask_documents=True)
    ids_N, _, documents = trainer._batch(range(3))
    assert [sum(row) for row in documents] == [300, 300, 300]
    packed = trainer.model.logits(trainer.model(ids_N, trainer._layout(documents)).hidden_ND)
    start = 0
    for length in (length for row in documents for length in row):
        ids = ids_N[start : start + length]
        alone = trainer.model.logits(trainer.model(ids, Rectangle(1, length)).hidden_ND)
        torch.testing.assert_close(packed[start : start + length], alone, atol=1e-5, rtol=1e-4)
        start += length


def test_a_row_is_one_sequence_of_the_balance_loss_masked_or_not() -> None:
    x_NE = torch.rand(12, 4)
    masked, whole = MaskedRows([[1, 5], [2, 2, 2]]), Rectangle(2, 6)
    assert torch.equal(masked.segment_mean(x_NE), whole.segment_mean(x_NE))
    with pytest.raises(ValueError, match="one length"):
        MaskedRows([[1, 2], [4]])


def test_pretraining_on_text_of_ones_own_reads_it_and_only_it(make_context: MakeContext, tmp_path: Path) -> None:
    """The loss on held-out documents falls to what two words that follow each other deserve."""
    rows = [{"text": f"ping pong {'ping pong ' * (i % 7)}number {i}"} for i in range(300)]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = {"preset": "tiny", "changes": SMALL}
    settings = {"model": model, "rows_per_step": 8, "row_tokens": 32, "vocab_size": 300, "steps": 30, "mtp_weight": 0}
    text = {"files": [str(path)], "held_out": 0.1}
    config = PretrainConfig.model_validate({**settings, "text": text, "optimizer": {"warmup_steps": 2}})
    context = make_context("pretrain", config)
    tokenizer = train_tokenizer(config, seed=0)
    rows_of = make_rows(config, tokenizer, context)
    trainer = Pretrainer(config, build_model(config, tokenizer, context), rows_of, context)
    before = trainer.validate()
    trainer.train()
    after = trainer.validate()
    assert before is not None
    assert after is not None
    assert after < 0.6 * before
    begin, end = tokenizer.bos_id, tokenizer.eos_id
    whole = [part for part in rows_of(0, 400) if part[0] == begin and part[-1] == end]
    assert whole
    assert all(tokenizer.decode(part[1:-1]) in {row["text"] for row in rows} for part in whole)
