"""DeepSeek-R1's recipe whole, from random weights: V3, R1-Zero, the four stages of R1, the students (R1 Fig. 2).

pretrain ─┬─ r1-zero ── cold-start-data ─┐
          ├─ v3 (general data, short answers; sums up and judges)
          ├─ dev1 (SFT on the cold start's data) ── dev2 (reasoning RL) ── dev3-data ─┐
          └─ dev3 (SFT of the BASE again, on dev3-data and general-data) ── r1 (final RL, with two reward models)
students: a base of their own, then SFT on what R1 writes
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from aha.configuration import Config, named_stages
from aha.evals.scaling_stage import ScalingConfig, ScalingSuite
from aha.evals.stage import EvaluationConfig, Suite
from aha.evals.thinking import ThinkingConfig
from aha.recipes.r1_zero import (
    BEYOND,
    SMOKE_TASKS,
    SMOKE_THINKING,
    TRAINED,
    budgets,
    curves,
    growing_thought,
    laptop_pretrain,
    smoke_pretrain,
    thought,
)
from aha.recipes.recipe import RecipeConfig, StageSpec
from aha.rl.config import (
    GeneralConfig,
    GRPOConfig,
    LengthStage,
    PreflightConfig,
)
from aha.stages.instructions import InstructionsConfig
from aha.stages.preferences import PreferencesConfig
from aha.stages.pretrain import ModelChoice, PretrainConfig
from aha.stages.rejection_sampling import FilterConfig, RejectionSamplingConfig
from aha.stages.reward_model import RewardModelConfig
from aha.stages.sft import SFTConfig, SourceStage
from aha.tasks.families import GENERAL
from aha.text.prompt_style import StyleName
from aha.training.optimizer import OptimizerConfig

STYLES: dict[str, StyleName] = {
    "pretrain": "zero",
    "v3": "chat_direct",
    "r1-zero": "zero",
    "dev1": "chat",
    "dev2": "chat",
    "dev3": "chat",
    "r1": "chat",
}
"""The prompt style of each model of the comparison."""


def read_by(config: Config) -> tuple[str, ...]:
    """The stages that settings name as sources, judges and reward models: a stage's parents beside its model's."""
    return tuple(stage.name for stage in named_stages(config))


def _stage(name: str, kind: str, config: Config, *models: str) -> StageSpec:
    parents = (*models, *read_by(config))
    return StageSpec(name, kind, config, parents)


class Student(Config):
    """A smaller dense model: a base of its own, then fine-tuned on R1's solutions."""

    name: str = Field(description="names the stages: <name>-base and <name>")
    model: ModelChoice = Field(description="its architecture and size")
    pretraining: int = Field(1, gt=0, description="how many times student_steps its base is trained for")


class R1Config(RecipeConfig):
    """Everything that `r1-tiny` does."""

    pretrain: PretrainConfig = Field(description="the base")
    r1_zero: GRPOConfig = Field(description="pure RL on the base, R1-Zero's template")
    v3_data: InstructionsConfig = Field(description="what V3 is fine-tuned on")
    v3: SFTConfig = Field(description="the base fine-tuned on general data and short answers")
    cold_start_data: RejectionSamplingConfig = Field(description="R1-Zero's readable solutions, rewritten")
    cold_start: SFTConfig = Field(description="Dev1: the base fine-tuned on them")
    reasoning_rl: GRPOConfig = Field(description="Dev2: reasoning RL with a reward for language consistency")
    rejection_sampling: RejectionSamplingConfig = Field(description="Dev2's right and readable solutions")
    general_data: InstructionsConfig = Field(description="general conversations beside them")
    sft: SFTConfig = Field(description="Dev3: the base again, fine-tuned on both")
    preferences: PreferencesConfig = Field(description="responses and verdicts for the reward models")
    helpful: RewardModelConfig = Field(description="the pairwise reward model, on the summary")
    harmless: RewardModelConfig = Field(description="the point-wise reward model, on thinking and summary")
    final_rl: GRPOConfig = Field(description="R1: reasoning by rules, general prompts by reward models")
    distillation_data: RejectionSamplingConfig = Field(description="R1's solutions for the students")
    student_steps: int = Field(1500, gt=0, description="steps of the students' bases, pretrained as the teacher is")
    distillation: SFTConfig = Field(description="the students' fine-tuning")
    students: tuple[Student, ...] = Field((), description="the students; none leaves them out")
    evaluation: EvaluationConfig = Field(description="the held-out comparison")
    scaling: ScalingConfig = Field(
        default_factory=ScalingConfig, description="curves of test-time scaling; no suites leave them out"
    )
    thinking: ThinkingConfig = Field(
        default_factory=ThinkingConfig, description="does thinking grow, help and reach further; no models leave it out"
    )

    @model_validator(mode="after")
    def _read(self) -> Self:
        """Refuses settings that the recipe would overwrite, or that would make another recipe of it."""
        if self.evaluation.suites:
            raise ValueError("evaluation.suites: every model is asked in the form that it was made for; leave it out")
        return self

    def stages(self) -> tuple[StageSpec, ...]:
        """The graph."""
        return (
            *self.teacher(),
            *self.student_stages(),
            self.comparison(),
            *thought(self.thinking),
            *curves(self.scaling),
        )

    def teacher(self) -> list[StageSpec]:
        """V3, R1-Zero and the four stages of R1."""
        return [
            _stage("pretrain", "pretrain", self.pretrain),
            _stage("r1-zero", "grpo", self.r1_zero, "pretrain"),
            _stage("v3-data", "instructions", self.v3_data),
            _stage("v3", "sft", self.v3, "pretrain"),
            _stage("cold-start-data", "rejection_sampling", self.cold_start_data, "r1-zero"),
            _stage("dev1", "sft", self.cold_start, "pretrain"),
            _stage("dev2", "grpo", self.reasoning_rl, "dev1"),
            _stage("dev3-data", "rejection_sampling", self.rejection_sampling, "dev2"),
            _stage("general-data", "instructions", self.general_data),
            _stage("dev3", "sft", self.sft, "pretrain"),
            _stage("preferences", "preferences", self.preferences, "dev3"),
            _stage("helpful-rm", "reward_model", self.helpful, "dev3"),
            _stage("harmless-rm", "reward_model", self.harmless, "dev3"),
            _stage("r1", "grpo", self.final_rl, "dev3"),
        ]

    def student_stages(self) -> list[StageSpec]:
        """Distillation: R1's solutions, each student's base, its fine-tuning."""
        specs = []
        if self.students:
            specs.append(_stage("distillation-data", "rejection_sampling", self.distillation_data, "r1"))
        for student in self.students:
            specs += self.student(student)
        return specs

    def student(self, student: Student) -> list[StageSpec]:
        """One student's base, and its fine-tuning on R1's solutions."""
        base = f"{student.name}-base"
        steps = student.pretraining * self.student_steps
        pretrain = self.pretrain.changed(model=student.model, steps=steps)
        return [_stage(base, "pretrain", pretrain), _stage(student.name, "sft", self.distillation, base)]

    def comparison(self) -> StageSpec:
        """The evaluation of all models."""
        styles: dict[str, StyleName] = {**STYLES, **{student.name: "chat" for student in self.students}}
        suites = tuple(Suite(stage=stage, styles=(style,)) for stage, style in styles.items())
        config: EvaluationConfig = self.evaluation.changed(suites=suites)
        return StageSpec("evaluation", "evaluation", config, parents=tuple(styles))


def dense_student(name: str, preset: str, pretraining: int = 1) -> Student:
    """A student with as many positions as the teacher."""
    model = ModelChoice(preset=preset, changes={"max_position_embeddings": 2048})
    return Student(name=name, model=model, pretraining=pretraining)


FAMILIES = ("sums", "program", "pulses", "boxes")
"""One family of each of the domains that R1's reasoning RL names: math, code, science, logic."""
CORPUS: dict[str, Any] = {"questions": 0.65, "general": 0.15, "mixed": 0.5, "families": FAMILIES}
"""The web of `r1-tiny`: some of it is not about reasoning, and half of its whole ways mix the languages."""
SHOWN = (*TRAINED, 10)
"""Levels among the prompts of cold start and rejection sampling: the paper has no limit there."""


def r1_tiny() -> R1Config:
    """The whole recipe of R1 from random weights, with two students: about an hour on two cores."""
    fine_tuning = OptimizerConfig(
        adam_lr=1.5e-3, muon_lr=0.008, warmup_steps=5, schedule="cosine", decay_from=0.0, final_lr=0.1
    )
    asked: dict[str, Any] = {"families": FAMILIES}
    solved: dict[str, Any] = {**asked, "levels": SHOWN, "max_completion_tokens": 360, "assistant": "v3"}
    zero = growing_thought(steps=130)
    prompts = zero.prompts.changed(**asked)
    paper = zero.loss.changed(clip_low=10.0, clip_high=10.0, kl_beta=0.001, reference_reset_steps=25)
    chat = growing_thought(
        steps=50, prompts=prompts, style="chat", rubric=zero.rubric.changed(language=0.2), loss=paper
    )
    pretrain = laptop_pretrain(corpus=CORPUS, vocab_size=900, steps=3800)
    return R1Config(
        recipe="r1-tiny",
        pretrain=pretrain,
        r1_zero=zero.changed(prompts=prompts),
        v3_data=InstructionsConfig(count=4000, general=1.0, short=0.6, brief=0.6, exercises=1.2, **asked),
        v3=SFTConfig(sources=(SourceStage(stage="v3-data"),), epochs=2, optimizer=fine_tuning),
        cold_start_data=RejectionSamplingConfig(style="zero", prompts=1600, samples=2, filters=readable(0.5), **solved),
        cold_start=SFTConfig(sources=(SourceStage(stage="cold-start-data"),), epochs=2, optimizer=fine_tuning),
        reasoning_rl=chat,
        rejection_sampling=RejectionSamplingConfig(prompts=4000, samples=2, filters=readable(0.95), **solved),
        general_data=InstructionsConfig(count=2000, thinking=True, quality=0.9, refusals=0.85, chinese=0.5),
        sft=SFTConfig(
            sources=(SourceStage(stage="dev3-data"), SourceStage(stage="general-data")), epochs=2, optimizer=fine_tuning
        ),
        preferences=PreferencesConfig(judge="v3", prompts=2400, chinese=0.5),
        helpful=RewardModelConfig(preference="helpful", data="preferences", epochs=4),
        harmless=RewardModelConfig(preference="harmless", data="preferences", epochs=4),
        final_rl=chat.changed(
            optimizer={"adam_lr": 1e-4},
            general=GeneralConfig(from_step=28, share=0.5, helpful="helpful-rm", harmless="harmless-rm"),
            prompts={"chinese": 0.5},
            sampling={"temperature": 0.7, "forced_share": 0.0},
        ),
        **_students(fine_tuning, solved),
        **_measured(),
    )


def readable(language: float) -> FilterConfig:
    """What is kept for fine-tuning. Passes that confirm repeat lines, so repetition is no flaw here."""
    return FilterConfig(min_language=language, max_repetition=0.8)


def _students(fine_tuning: OptimizerConfig, solved: dict[str, Any]) -> dict[str, Any]:
    """Distillation into two dense students, each with a base of its own."""
    return {
        "distillation_data": RejectionSamplingConfig(prompts=5000, samples=2, filters=readable(0.95), **solved),
        "distillation": SFTConfig(
            sources=(SourceStage(stage="distillation-data"), SourceStage(stage="general-data")),
            epochs=3,
            optimizer=fine_tuning.changed(muon_lr=0.02),
        ),
        "students": (dense_student("qwen3", "qwen3-tiny"), dense_student("llama", "llama-tiny")),
    }


def _measured() -> dict[str, Any]:
    """Curves of test-time scaling of three models, what all think, and the held-out comparison of all."""
    thinkers = tuple(ScalingSuite(stage=stage, style=STYLES[stage]) for stage in ("pretrain", "r1-zero", "r1"))
    return {
        "scaling": budgets(thinkers, families=FAMILIES),
        "thinking": ThinkingConfig(families=FAMILIES, levels=TRAINED, models=thinkers),
        "evaluation": EvaluationConfig(
            families=FAMILIES,
            levels=(*TRAINED, *BEYOND),
            trained_levels=TRAINED,
            problems_per_level=8,
            samples=8,
            temperature=0.6,
            top_p=0.95,
            max_completion_tokens=500,
            general=tuple(GENERAL),
            general_per_level=24,
            general_samples=4,
        ),
    }


def r1_smoke() -> R1Config:
    """Every stage of `r1-tiny` in under four minutes, smaller and on easy problems: all parts run."""
    config = r1_tiny()
    families = SMOKE_TASKS
    pretrain = smoke_pretrain(general=0.15, mixed=0.3).changed(vocab_size=700)
    rl: dict[str, Any] = {
        "prompts": {**families, "curriculum": {"start_levels": 0, "easy_share": 0.0}},
        "steps": 16,
        "prompts_per_step": 8,
        "group_size": 8,
        "sampling": {"lengths": (LengthStage(from_step=0, max_completion_tokens=64),)},
        "preflight": PreflightConfig(prompts=8, floor=0.0),
        "optimizer": OptimizerConfig(adam_lr=1e-3, muon_lr=0.0, weight_decay=0.0, warmup_steps=2),
        "held_out": {"every": 8, "levels": (1,)},
    }
    sampling: dict[str, Any] = {**families, "prompts": 400, "max_completion_tokens": 64, "judge_samples": 40}
    tuning: dict[str, Any] = {"examples_per_step": 16, "validation_examples": 8}
    general = GeneralConfig(from_step=8, helpful="helpful-rm", harmless="harmless-rm", eval_per_level=2, eval_samples=1)
    return config.changed(
        recipe="r1-smoke",
        pretrain=pretrain,
        r1_zero=config.r1_zero.changed(**{**rl, "steps": 40}),
        v3_data=config.v3_data.changed(count=400, **families),
        v3=config.v3.changed(**tuning),
        cold_start_data=config.cold_start_data.changed(**sampling),
        cold_start=config.cold_start.changed(**tuning, epochs=12),
        reasoning_rl=config.reasoning_rl.changed(**rl),
        rejection_sampling=config.rejection_sampling.changed(**sampling),
        general_data=config.general_data.changed(count=300),
        sft=config.sft.changed(**tuning),
        # So small a V3 cannot judge: it decides only where it never errs, and there are pairs enough without it.
        preferences=config.preferences.changed(
            prompts=360, judge_floor=1.0, held_out_per_level=8, max_completion_tokens=48
        ),
        final_rl=config.final_rl.changed(**rl, general=general),
        distillation_data=config.distillation_data.changed(**sampling),
        student_steps=100,
        distillation=config.distillation.changed(**tuning),
        scaling=config.scaling.changed(
            **families, problems_per_level=2, samples=4, budgets=(8, 16), rounds=1, max_completion_tokens=64, room=160
        ),
        thinking=config.thinking.changed(**families, **SMOKE_THINKING),
        evaluation=config.evaluation.changed(
            **families,
            trained_levels=(1,),
            problems_per_level=10,
            samples=4,
            max_completion_tokens=64,
            general_per_level=4,
        ),
    )
