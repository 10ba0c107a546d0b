"""Pretraining in parts: gradients that add up over a batch's rows are those of the whole batch."""

import pytest
import torch

from aha.stages.pretrain import PretrainConfig, Pretrainer, build_model, train_tokenizer

from ..conftest import SMALL, MakeContext


@pytest.mark.parametrize("micro_rows", [1, 3, 6])
def test_gradients_add_up_over_parts_of_the_batch(micro_rows: int, make_context: MakeContext) -> None:
    """Those of the prediction modules too, which see the first half of the rows only."""
    results = []
    for rows in (0, micro_rows):
        model = {"preset": "tiny", "changes": SMALL}
        settings = {"model": model, "rows_per_step": 6, "row_tokens": 24, "mtp_share": 0.5, "tokenizer_documents": 50}
        config = PretrainConfig.model_validate(settings | {"micro_rows": rows, "vocab_size": 400})
        context = make_context("pretrain", config)
        tokenizer = train_tokenizer(config, seed=0)
        trainer = Pretrainer(config, build_model(config, tokenizer, context), tokenizer, context)
        captured: list[torch.Tensor] = []
        trainer.optimizer.step = lambda t=trainer, c=captured: c.extend(t.optimizer.gradients()) or (0.0, 0.0, False)
        results.append((trainer.step(0), captured))
    (whole, expected), (parts, found) = results
    assert parts["mtp_loss"] > 1.0
    for name in ("loss", "mtp_loss", "balance_loss", "max_vio"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-5)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)
