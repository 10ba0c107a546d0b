"""R1-Zero from random weights: a base model, pure reinforcement learning, a held-out comparison."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from aha.evals.scaling_stage import ScalingConfig, ScalingSuite
from aha.evals.stage import EvaluationConfig, Suite
from aha.evals.thinking import ThinkingConfig
from aha.recipes.recipe import RecipeConfig, StageSpec
from aha.rewards.rubric import RubricConfig
from aha.rl.config import (
    CurriculumConfig,
    GRPOConfig,
    HeldOutConfig,
    LengthStage,
    LossConfig,
    PreflightConfig,
    PromptsConfig,
    SamplingConfig,
)
from aha.stages.pretrain import ModelChoice, PretrainConfig
from aha.tasks.corpus import CorpusConfig
from aha.training.optimizer import OptimizerConfig

SUITES = (
    Suite(stage="pretrain", styles=("zero",)),
    Suite(stage="pretrain", styles=("zero_think", "direct", "steps"), trained_levels_only=True),
    Suite(stage="r1-zero", styles=("zero",)),
)


class R1ZeroConfig(RecipeConfig):
    """pretrain -> r1-zero, then both evaluated."""

    pretrain: PretrainConfig = Field(default_factory=PretrainConfig, description="the base model")
    rl: GRPOConfig = Field(default_factory=GRPOConfig, description="reinforcement learning on the base")
    evaluation: EvaluationConfig = Field(
        default_factory=lambda: EvaluationConfig(suites=SUITES), description="held-out comparison"
    )
    scaling: ScalingConfig = Field(
        default_factory=ScalingConfig, description="curves of test-time scaling, of the models that its suites name"
    )

    thinking: ThinkingConfig = Field(
        default_factory=ThinkingConfig, description="does thinking grow, help and reach further, of the models it names"
    )

    def stages(self) -> tuple[StageSpec, ...]:
        """The graph."""
        return (
            StageSpec("pretrain", "pretrain", self.pretrain),
            StageSpec("r1-zero", "grpo", self.rl, ("pretrain",)),
            StageSpec("evaluation", "evaluation", self.evaluation, parents=("pretrain", "r1-zero")),
            *thought(self.thinking),
            *curves(self.scaling),
        )


def curves(scaling: ScalingConfig) -> list[StageSpec]:
    """The stage of the curves, where models are named for it."""
    return [StageSpec("scaling", "scaling", scaling, parents=scaling.parents())] if scaling.suites else []


def thought(thinking: ThinkingConfig) -> list[StageSpec]:
    """The stage that measures thinking, where models are named for it."""
    return [StageSpec("thinking", "thinking", thinking, parents=thinking.parents())] if thinking.models else []


TRAINED = tuple(range(1, 9))
"""Levels that reinforcement learning may reach; the corpus has half of them."""
BEYOND = (9, 12)
"""One level above the highest trained one, and one and a half times it: in neither the corpus nor RL."""


def laptop_pretrain(**changes: Any) -> PretrainConfig:
    """Pretraining on the laptop world: many small steps, short lists first, positions with gaps.

    Look-ups in lists form in small steps only, first on short lists, and where the loss is not spent on what nobody
    can foretell. Gaps make positions known that only longer thinking will reach.
    """
    corpus = CorpusConfig(**changes.pop("corpus", {}))
    settings: dict[str, Any] = {
        "model": ModelChoice(changes={"initializer_range": 0.05, "max_position_embeddings": 2048}),
        "corpus": corpus,
        "first_corpus": corpus.changed(practice=0.8, questions=0.2, general=0.0, longest_list=5),
        "unpredictable_weight": 0.1,
        "position_gaps": 0.4,
        "longest_gap": 384,
        "mask_documents": True,
        "vocab_size": 420,
        "steps": 3500,
        "rows_per_step": 4,
        "row_tokens": 512,
        "mtp_share": 0.5,
        "optimizer": OptimizerConfig(adam_lr=2e-3),
        "validate_every": 500,
        "log_every": 50,
    }
    return PretrainConfig(**{**settings, **changes})


def growing_thought(**changes: Any) -> GRPOConfig:
    """R1-Zero's reinforcement learning on the laptop world, under which thinking grows.

    A window of levels that rises, a limit that rises with the level, each reward normalised by itself, half of the
    prompts with thinking that must go on once; no KL, and nothing for what the limit has cut.
    """
    settings: dict[str, Any] = {
        "steps": 150,
        "prompts_per_step": 16,
        "prompts": PromptsConfig(
            levels=TRAINED, curriculum=CurriculumConfig(memory=0.8, start_levels=4, easy_share=0.25)
        ),
        "sampling": SamplingConfig(
            lengths=(LengthStage(from_step=0, max_completion_tokens=70),), tokens_per_level=40, forced_share=0.5
        ),
        "rubric": RubricConfig(format=0.1),
        "loss": LossConfig(normalize="each", mask_truncated=True),
        "optimizer": OptimizerConfig(
            adam_lr=1.5e-4, muon_lr=0.0, weight_decay=0.0, warmup_steps=3, decay_from=0.6, final_lr=0.2
        ),
        "held_out": HeldOutConfig(every=50, problems_per_level=6, levels=(2, 4, 6, 8, 9)),
    }
    return GRPOConfig(**{**settings, **changes})


THINKERS = (ScalingSuite(stage="pretrain"), ScalingSuite(stage="r1-zero"))


def budgets(models: tuple[ScalingSuite, ...], **changes: Any) -> ScalingConfig:
    """Accuracy against budgets of thinking, and against votes at as many tokens."""
    settings: dict[str, Any] = {
        "levels": (2, 4, 6, 8, BEYOND[0]),
        "problems_per_level": 6,
        "samples": 8,
        "repeats": 1,
        "budgets": (8, 16, 32, 64, 128, 256),
        "max_completion_tokens": 400,
        "room": 600,
    }
    return ScalingConfig(**{**settings, **changes}, suites=models)


def r1_zero_tiny() -> R1ZeroConfig:
    """Grow a DeepSeek-V3 from random weights and teach it to think by RL alone: 25 minutes on two cores."""
    return R1ZeroConfig(
        recipe="r1-zero-tiny",
        pretrain=laptop_pretrain(),
        rl=growing_thought(),
        evaluation=EvaluationConfig(
            suites=SUITES,
            levels=(*TRAINED, *BEYOND),
            trained_levels=TRAINED,
            problems_per_level=14,
            samples=4,
            max_completion_tokens=700,
        ),
        thinking=ThinkingConfig(models=(ScalingSuite(stage="pretrain"), ScalingSuite(stage="r1-zero")), levels=TRAINED),
    )


SMOKE_TASKS: dict[str, Any] = {"families": ("boxes",), "levels": (1,)}
"""What the smoke recipes train: a family of which half is right by guessing, once the form is there."""
SMOKE_THINKING: dict[str, Any] = {
    "one_above": 2,
    "half_above": 3,
    "problems_per_level": 4,
    "samples": 2,
    "passes": 1,
    "room": 160,
}


def smoke_pretrain(**corpus: float) -> PretrainConfig:
    """A base of a minute's training, for the smoke recipes; `corpus` changes shares of its documents."""
    return PretrainConfig(
        model=ModelChoice(
            changes={"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "moe_intermediate_size": 48}
        ),
        corpus=CorpusConfig(**{**SMOKE_TASKS, "template": 1.0, **corpus}),
        vocab_size=400,
        tokenizer_documents=2000,
        steps=600,
        rows_per_step=16,
        row_tokens=128,
        optimizer=OptimizerConfig(warmup_steps=10),
        validation_rows=8,
    )


def r1_zero_smoke() -> R1ZeroConfig:
    """The same in under 90 seconds, smaller and on one easy family: every part runs, loss falls, reward rises."""
    return R1ZeroConfig(
        recipe="r1-zero-smoke",
        pretrain=smoke_pretrain(),
        rl=GRPOConfig(
            steps=48,
            prompts_per_step=8,
            group_size=8,
            prompts=PromptsConfig(**SMOKE_TASKS),
            sampling=SamplingConfig(lengths=(LengthStage(from_step=0, max_completion_tokens=64),)),
            optimizer=OptimizerConfig(adam_lr=1e-3, muon_lr=0.0, weight_decay=0.0, warmup_steps=2),
            preflight=PreflightConfig(prompts=8, floor=0.0),
            held_out=HeldOutConfig(every=24, levels=(1,)),
        ),
        evaluation=EvaluationConfig(
            **SMOKE_TASKS,
            trained_levels=(1,),
            suites=SUITES,
            problems_per_level=20,
            samples=4,
            max_completion_tokens=64,
        ),
        thinking=ThinkingConfig(
            models=(ScalingSuite(stage="pretrain"), ScalingSuite(stage="r1-zero")), **SMOKE_TASKS, **SMOKE_THINKING
        ),
    )
