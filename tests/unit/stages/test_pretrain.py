"""Pretraining in parts: gradients that add up over a batch's rows are those of the whole batch."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from aha.models.layouts import MaskedRows, Rectangle
from aha.models.moe import max_violation
from aha.stages.pretrain import (
    VALIDATION_ROW,
    PretrainConfig,
    Pretrainer,
    build_model,
    make_rows,
    train_tokenizer,
)

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
    trainer = trainer_of(make_context, model=model, mask_documents=mask_documents, unpredictable_weight=0.25)
    batch = trainer._batch(range(3))
    ids_N, documents = batch.ids_N, batch.documents
    # Weight of the target of place i, which is token i + 1: module k is asked for token i + 1 + k.
    weights = batch.weights_N.tolist()
    assert set(weights) == {0.25, 1.0}
    layout = trainer._layout(batch)
    outputs = trainer.model.mtp_hidden(trainer.model(ids_N, layout), ids_N, layout)
    assert len(outputs) == 2
    length, expected = trainer.config.row_tokens, 0.0
    for depth, output in enumerate(outputs, start=1):
        logprobs = trainer.model.logits(output.hidden_ND).detach().log_softmax(-1)
        for row, lengths in enumerate(documents):
            owner = [number for number, own in enumerate(lengths) for _ in range(own)]
            for i in range(length - depth - 1):
                if not mask_documents or owner[i] == owner[i + depth + 1]:
                    at = row * length + i
                    nll = -float(logprobs[at, ids_N[at + depth + 1]])
                    expected += weights[at + depth] * nll / (3 * (length - depth - 1)) / 2
    assert any(len(lengths) > 1 for lengths in documents)
    assert trainer._mtp_loss(outputs, batch, layout).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mask_documents", [False, True])
def test_with_a_mask_documents_depend_on_no_neighbour(mask_documents: bool, make_context: MakeContext) -> None:
    """Without one they do: the rows are full of documents, and another first one changes those after it."""
    trainer = trainer_of(make_context, mask_documents=mask_documents)
    batch = trainer._batch(range(3))
    ids_N, documents, layout = batch.ids_N, batch.documents, trainer._layout(batch)
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
    batch = trainer._batch(range(3))
    ids_N, documents = batch.ids_N, batch.documents
    assert [sum(row) for row in documents] == [300, 300, 300]
    packed = trainer.model.logits(trainer.model(ids_N, trainer._layout(batch)).hidden_ND)
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
    parts = rows_of(0, 400)
    whole = [part.ids for part in parts if part.ids[0] == begin and part.ids[-1] == end]
    assert whole
    assert all(part.predictable == [True] * len(part.ids) for part in parts)
    assert all(tokenizer.decode(part[1:-1]) in {row["text"] for row in rows} for part in whole)


def test_what_nothing_foretells_weighs_less_in_the_loss(make_context: MakeContext) -> None:
    """By hand: a step's gradient is that of sum(weight * nll) / all tokens, its logged loss a weighted mean."""
    trainer = trainer_of(make_context, unpredictable_weight=0.25, mtp_weight=0, micro_rows=2, validation_rows=2)
    rows = [trainer.rows(number, 301) for number in range(3)]
    ids = torch.tensor([[token for one in row for token in one.ids] for row in rows])
    flags = torch.tensor([[flag for one in row for flag in one.predictable] for row in rows])[:, 1:]
    assert flags.any()
    assert not flags.all()
    weights = flags * 0.75 + 0.25
    model = trainer.model
    hidden = model(ids[:, :-1].flatten(), Rectangle(3, 300))
    nll = F.cross_entropy(model.logits(hidden.hidden_ND), ids[:, 1:].flatten(), reduction="none").view(3, 300)
    assert hidden.balance_loss is not None
    ((nll * weights).sum() / 900 + hidden.balance_loss).backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    captured: list[torch.Tensor] = []
    optimizer = trainer.update.optimizer
    optimizer.step = lambda: captured.extend(p.grad for p in model.parameters() if p.requires_grad) or (0.0, 0.0, False)
    metrics = trainer.step(0)
    assert metrics["loss"] == pytest.approx(float((nll * weights).sum().detach() / weights.sum()), rel=1e-5)
    assert "weight" not in metrics
    for one, two in zip(captured, expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)
    held_out = trainer.validate()
    batch = trainer._batch(range(VALIDATION_ROW, VALIDATION_ROW + 2))
    logits = model.logits(model(batch.ids_N, trainer._layout(batch)).hidden_ND)
    nll_N = F.cross_entropy(logits, batch.targets_N, reduction="none")
    assert held_out == pytest.approx(float((nll_N * batch.weights_N).sum().detach() / batch.weights_N.sum()), rel=1e-5)


def test_positions_of_some_documents_jump_once(make_context: MakeContext) -> None:
    """By the same size for a row whoever trains on it, by at most `longest_gap`, never in held-out rows."""
    trainer = trainer_of(make_context, mask_documents=True, position_gaps=0.5, longest_gap=7)
    batch = trainer._batch(range(8))
    layout = trainer._layout(batch)
    steps, jumps, start = layout.positions_N.diff().tolist(), [], 0
    for length in (length for row in batch.documents for length in row):
        assert int(layout.positions_N[start]) == 0
        jumps.append([step - 1 for step in steps[start : start + length - 1] if step != 1])
        start += length
    assert layout.longest > int(layout.positions_N.max())
    sizes = [size for found in jumps for size in found]
    assert all(len(found) <= 1 for found in jumps)
    assert 0.2 * len(jumps) < len(sizes) < 0.8 * len(jumps)
    assert set(sizes) <= set(range(1, 8))
    assert len(set(sizes)) > 2
    alone = trainer._layout(trainer._batch(range(5, 6)))
    assert torch.equal(alone.positions_N, layout.positions_N[5 * 300 : 6 * 300])
    parts = trainer._layout(batch.first(2))
    assert torch.equal(parts.positions_N, layout.positions_N[: 2 * 300])
    held_out = trainer._layout(trainer._batch(range(VALIDATION_ROW, VALIDATION_ROW + 8)))
    assert set(held_out.positions_N.diff().tolist()) & set(range(2, 300)) == set()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_gaps": 0.4}, "set mask_documents to true"),
        ({"position_gaps": 0.4, "mask_documents": True, "row_tokens": 1000}, "max_position_embeddings = 1024"),
    ],
)
def test_gaps_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PretrainConfig.model_validate(changes)


def test_the_first_steps_read_a_corpus_of_their_own(make_context: MakeContext) -> None:
    """Rows after them, those of the held-out loss and the tokenizer are what they are without it."""
    first, later = {"practice": 1.0, "questions": 0.0}, {"practice": 0.0, "questions": 1.0}
    settings = {"steps": 10, "rows_per_step": 3, "vocab_size": 400, "tokenizer_documents": 50, "first_share": 0.3}
    configs = [
        PretrainConfig.model_validate({**settings, **corpora})
        for corpora in ({"corpus": first}, {"corpus": later}, {"corpus": later, "first_corpus": first})
    ]
    context = make_context("pretrain", configs[0])
    tokenizer = train_tokenizer(configs[1], seed=0)
    assert tokenizer.files() == train_tokenizer(configs[2], seed=0).files()
    only_first, only_later, both = (make_rows(config, tokenizer, context) for config in configs)
    for row in (*range(12), VALIDATION_ROW):
        assert both(row, 100) == (only_first if row < 9 else only_later)(row, 100)
        assert only_first(row, 100) != only_later(row, 100)


def test_a_run_with_gaps_weights_and_two_corpora_goes_on_where_it_stopped(make_context: MakeContext) -> None:
    """From a checkpoint in the last step of the first corpus: the same metrics and weights, bit by bit."""
    settings = {
        "rows_per_step": 2, "row_tokens": 64, "steps": 6, "first_share": 0.5, "mask_documents": True,
        "position_gaps": 0.5, "unpredictable_weight": 0.1, "first_corpus": {"practice": 1.0, "questions": 0.0},
    }  # fmt: skip
    through, stopped, resumed = (trainer_of(make_context, **settings) for _ in range(3))
    expected = [through.step(step) for step in range(6)]
    found = [stopped.step(step) for step in range(2)]
    tensors, state = stopped.state()
    resumed.load_state({name: tensor.clone() for name, tensor in tensors.items()}, state)
    found += [resumed.step(step) for step in range(2, 6)]
    assert found == expected
    for one, two in zip(through.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, two)
