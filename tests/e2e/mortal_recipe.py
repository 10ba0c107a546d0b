"""A real pretraining and a real GRPO, as short as can be, in a process that kills itself where it is told to.

It is named on the command line as `mortal_recipe:mortal`, with this folder on PYTHONPATH. The variable DIES_AT holds a
stage and a step, as in `r1-zero:3`: right after that step's row of metrics, before its checkpoint.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

from aha.inference.engine import Engine
from aha.recipes.recipe import RecipeConfig, StageSpec
from aha.rewards.rubric import RubricConfig
from aha.rl.config import (
    GRPOConfig,
    HeldOutConfig,
    LengthStage,
    LossConfig,
    PreflightConfig,
    SamplingConfig,
)
from aha.rl.trainer import ReinforcementLearning
from aha.stages.pretrain import ModelChoice, Pretrain, PretrainConfig
from aha.training.optimizer import OptimizerConfig
from aha.training.stage import StageContext, StageResult

STEPS = 6
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "moe_intermediate_size": 32}


class Mortal(RecipeConfig):
    """pretrain -> r1-zero, with all that GRPO carries from step to step: optimizer, curriculum, reset reference."""

    checkpoint_seconds: float = 0.0
    pretrain: PretrainConfig = PretrainConfig(
        model=ModelChoice(changes={**SMALL, "n_routed_experts": 4}),
        vocab_size=320, tokenizer_documents=40, steps=STEPS, rows_per_step=4, row_tokens=64, validation_rows=2,
        log_every=1,
    )  # fmt: skip
    rl: GRPOConfig = GRPOConfig(
        steps=STEPS, prompts_per_step=2, group_size=4, minibatches=2,
        sampling=SamplingConfig(lengths=(LengthStage(from_step=0, max_completion_tokens=12),)),
        loss=LossConfig(kl_beta=0.1, reference_reset_steps=2),
        held_out=HeldOutConfig(every=0), preflight=PreflightConfig(prompts=0),
        rubric=RubricConfig(accuracy=0.0, format=0.0, random=1.0),
        optimizer=OptimizerConfig(adam_lr=0.02, muon_lr=0.0, warmup_steps=0),
    )  # fmt: skip

    def stages(self) -> tuple[StageSpec, ...]:
        return (
            StageSpec("pretrain", "mortal_recipe:MortalPretrain", self.pretrain),
            StageSpec("r1-zero", "mortal_recipe:MortalReinforcementLearning", self.rl, parents=("pretrain",)),
        )


def mortal() -> Mortal:
    """A few steps of everything."""
    return Mortal(recipe="mortal_recipe:mortal")


class MortalPretrain(Pretrain):
    """Pretraining that may die."""

    def run(self, context: StageContext) -> StageResult:
        return super().run(mortally(context))


class MortalReinforcementLearning(ReinforcementLearning):
    """GRPO that may die."""

    def __init__(self) -> None:
        super().__init__(Engine)

    def run(self, context: StageContext) -> StageResult:
        return super().run(mortally(context))


def mortally(context: StageContext) -> StageContext:
    """The same context, whose metrics end the process after the row that DIES_AT names."""
    write = context.metrics.write

    def write_and_die(row: Mapping[str, Any]) -> None:
        write(row)
        if os.environ.get("DIES_AT") == f"{context.name}:{row['step']}":
            os.kill(os.getpid(), signal.SIGKILL)

    context.metrics.write = write_and_die  # type: ignore[method-assign]
    return context
