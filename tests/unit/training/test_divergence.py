"""Training that diverges is said at the first skipped update, stopped after some, and not published."""

from pathlib import Path

import pytest
import torch

from aha.errors import DivergedError
from aha.models.config.presets import tiny
from aha.models.deepseek_v3 import DeepseekV3
from aha.training.distributed import Distributed
from aha.training.divergence import RECENT, Divergence, first_not_finite
from aha.training.trained_model import save_trained

from ..stages.test_pretrain import trainer_of


def watch(most: int = 3) -> tuple[Divergence, list[str]]:
    said: list[str] = []
    return Divergence("stage", most, said.append), said


def test_skipped_updates_are_said_once_and_end_training_in_a_row_only() -> None:
    divergence, said = watch()
    for step, skipped in enumerate((1.0, 1.0, 0.0, 1.0, 1.0)):
        divergence.see(step, {"skipped": skipped, "grad_norm": 1.0})
    assert len(said) == 1 and "step 0 is not finite" in said[0] and "after 3 such steps" in said[0]
    with pytest.raises(DivergedError, match=r"3 steps in a row, up to step 5.*optimizer.adam_lr"):
        divergence.see(5, {"skipped": 1.0})


def test_a_gradient_of_zero_and_a_loss_that_jumps_are_said_once() -> None:
    divergence, said = watch()
    for step in range(3 * RECENT):
        divergence.see(step, {"skipped": 0.0, "grad_norm": 0.0, "loss": 1.0})
    assert [words for words in said if "zero for 20 steps" in words] == said
    for step in range(4):
        divergence.see(100 + step, {"grad_norm": 1.0, "loss": 2.9})
    assert len(said) == 1, "less than three times"
    divergence.see(200, {"grad_norm": 1.0, "loss": 50.0})
    divergence.see(201, {"grad_norm": 1.0, "loss": 500.0})
    assert len(said) == 2 and "loss of step 200 is 50" in said[1]


def test_a_policys_losses_near_zero_are_no_jumps() -> None:
    divergence, said = watch()
    for step in range(60):
        divergence.see(step, {"grad_norm": 1.0, "loss": 0.001 if step % 7 else 0.02})
    assert said == []


def test_at_an_absurd_rate_pretraining_stops_and_leaves_no_model(make_context) -> None:  # type: ignore[no-untyped-def]
    rates = {"adam_lr": 1e30, "muon_lr": 1e30, "warmup_steps": 0, "most_skipped": 4}
    trainer = trainer_of(make_context, steps=50, optimizer=rates, validation_rows=0)
    with pytest.raises(DivergedError, match="4 steps in a row"):
        trainer.train()
    assert not trainer.context.model_folder.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_model_that_is_not_finite_is_not_written(value: float, tmp_path: Path) -> None:
    model = DeepseekV3(tiny(300)).init_weights(torch.Generator().manual_seed(0))
    name, parameter = list(model.named_parameters())[5]
    with torch.no_grad():
        parameter.view(-1)[3] = value
    assert first_not_finite(model.state_dict().items()) == name
    with pytest.raises(DivergedError, match=name):
        save_trained(model, tmp_path / "model", {}, Distributed())  # type: ignore[arg-type]
    assert not (tmp_path / "model").exists()
