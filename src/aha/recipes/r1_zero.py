"""R1-Zero from random weights: a base model, pure reinforcement learning, a held-out comparison."""

from __future__ import annotations

from pydantic import Field

from aha.evals.stage import EvaluationConfig, Suite
from aha.recipes.recipe import RecipeConfig, StageSpec
from aha.rl.config import GRPOConfig, LengthStage
from aha.stages.pretrain import PretrainConfig
from aha.training.optimizer import OptimizerConfig

SUITES = (
    Suite(stage="pretrain", elicitations=("zero", "zero_think", "direct", "steps")),
    Suite(stage="r1-zero", elicitations=("zero",)),
)


class R1ZeroConfig(RecipeConfig):
    """pretrain -> r1-zero, then both evaluated."""

    pretrain: PretrainConfig = Field(default_factory=PretrainConfig, description="the base model")
    rl: GRPOConfig = Field(default_factory=GRPOConfig, description="reinforcement learning on the base")
    evaluation: EvaluationConfig = Field(
        default_factory=lambda: EvaluationConfig(suites=SUITES), description="held-out comparison"
    )

    def stages(self) -> tuple[StageSpec, ...]:
        """The graph."""
        return (
            StageSpec("pretrain", "pretrain", self.pretrain),
            StageSpec("r1-zero", "grpo", self.rl, parents=("pretrain",)),
            StageSpec("evaluation", "evaluation", self.evaluation, parents=("pretrain", "r1-zero")),
        )


def r1_zero_tiny() -> R1ZeroConfig:
    """Grow a DeepSeek-V3 from random weights and teach it to reason by RL alone: 25 minutes on two cores."""
    return R1ZeroConfig(recipe="r1-zero-tiny")


def r1_zero_smoke() -> R1ZeroConfig:
    """The same in under 90 seconds, on one easy family: every part runs, the loss falls, the reward rises."""
    return R1ZeroConfig(
        recipe="r1-zero-smoke",
        pretrain=PretrainConfig(steps=60, rows_per_step=16, optimizer=OptimizerConfig(warmup_steps=5)),
        rl=GRPOConfig(
            steps=6,
            prompts_per_step=8,
            group_size=8,
            lengths=(LengthStage(from_step=0, max_completion_tokens=64),),
            preflight_floor=0.0,
            eval_every=0,
        ),
        evaluation=EvaluationConfig(suites=SUITES, problems_per_level=2, samples=2, max_completion_tokens=64),
    )
