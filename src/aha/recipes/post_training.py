"""Post-training of a checkpoint of your own, on a task's problems or on your data: `aha run grpo`, `sft`, `distill`.

grpo:  base ─ problems ─ decontaminated ─ grpo ─ evaluation of both
sft:   base ─ problems ─ decontaminated ─ sft ─ evaluation of both      on a task's worked solutions
       base ─ conversations ─ decontaminated ─ sft                      on conversations of your own
distill:  teacher ─ problems ─ decontaminated ─ samples ─ sft ─ evaluation of all three
                                           base ────────╯
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from aha.data.sources import GYM, Source
from aha.errors import ConfigError
from aha.evals.stage import EvaluationConfig, Suite
from aha.recipes.recipe import RecipeConfig, StageSpec, short_name
from aha.rewards.rubric import RubricConfig
from aha.rl.config import (
    GRPOConfig,
    HeldOutConfig,
    LengthStage,
    LossConfig,
    PreflightConfig,
    PromptsConfig,
    SamplingConfig,
)
from aha.stages.checkpoint import CheckpointConfig, need_model_folder
from aha.stages.conversations import ConversationsConfig
from aha.stages.decontamination import DecontaminationConfig
from aha.stages.problems import ProblemsConfig
from aha.stages.rejection_sampling import FilterConfig, RejectionSamplingConfig
from aha.stages.sft import SFTConfig, SourceStage
from aha.tasks.datasets import find_source, make_dataset
from aha.text.prompt_style import StrictStyleName
from aha.text.tokenizer import THINK, Tokenizer
from aha.training.optimizer import OptimizerConfig

LEVELS = (1, 2, 3, 4, 5)
LONGEST = 2048
"""Tokens of a completion: small reasoning models need more than a thousand on grade-school problems."""


class PostTrainingConfig(RecipeConfig):
    """A checkpoint, a task, and how the model is asked."""

    model: str = Field("", description="the checkpoint: a model folder in Hugging Face layout (--model)")
    task: str = Field("", description="gsm8k, math, humaneval, choice, or rows of your own (--task)")
    data: str = Field("", description="its data folder, or a file of rows (--data); empty: AHA_DATA, else the hub")
    train: Source | None = Field(None, description="training rows, where `data` does not say enough")
    held_out: Source | None = Field(None, description="held-out rows; none: the test split, else a share of train")
    instruction: str | None = Field(None, description="said below each question; none: the task's own; empty: nothing")
    style: Literal["auto", "zero", "chat"] = Field(
        "auto",
        description="prompt style: R1-Zero's template or the model's own; auto: chat if it knows thinking tags",
    )
    decontamination_words: int = Field(
        13, ge=0, description="training problems that share so many words in a row with a held-out one go; 0 keeps them"
    )
    decontamination_against: tuple[str, ...] = Field(
        (), description="tasks whose test problems count as held out, too: gsm8k, humaneval, ..."
    )
    evaluation: EvaluationConfig = Field(
        default_factory=lambda: EvaluationConfig(
            families=(),
            levels=LEVELS,
            trained_levels=LEVELS,
            samples=4,
            max_completion_tokens=LONGEST,
            engine_rows=32,
            problems_limit=100,
        ),
        description="both models on held-out problems",
    )

    @property
    def run_name(self) -> str:
        """`<name>-<model>-<task>-seed<seed>`."""
        parts = (self.name or short_name(self.recipe), Path(self.model).name, self.task)
        return "-".join([*filter(None, parts), f"seed{self.seed}"])

    @property
    def resolved_style(self) -> StrictStyleName:
        """The prompt style of the model."""
        return _style_of(Path(self.model)) if self.style == "auto" else self.style

    def base(self) -> StageSpec:
        """The checkpoint as a stage.

        Raises:
            ConfigError: none is named.
        """
        if not self.model:
            raise ConfigError("no model: name a checkpoint's folder, as in --model ./Qwen3-0.6B")
        need_model_folder(self.model)
        return StageSpec("base", "checkpoint", CheckpointConfig(path=self.model))

    def problems(self) -> list[StageSpec]:
        """The task's problems, and what is left of them after decontamination.

        Raises:
            ConfigError: no task is named, or its data are not there.
        """
        if not self.task:
            raise ConfigError("no task: name one, as in --task gsm8k")
        train, held_out = self._sources()
        config = ProblemsConfig(task=self.task, train=train, held_out=held_out, instruction=self.instruction)
        return [StageSpec("problems", "problems", config), *self.decontaminated("problems")]

    def decontaminated(self, source: str) -> list[StageSpec]:
        """The test problems that training data must not hold, and what is left of a stage's data without them.

        Raises:
            ConfigError: the problems of a task in `decontamination_against` are not there.
        """
        if not self.decontamination_words or (source == "conversations" and not self.decontamination_against):
            return []
        specs = []
        place = Path(self.data) if self.data and Path(self.data).is_dir() else None
        for name in self.decontamination_against:
            held_out = find_source(make_dataset(name), "test", place)
            specs.append(StageSpec(f"test-{name}", "problems", ProblemsConfig(task=name, held_out=held_out)))
        against = tuple(spec.name for spec in specs)
        words = 0 if self.task.startswith(GYM) else self.decontamination_words  # puzzles are all worded alike
        cleaning = DecontaminationConfig(source=source, against=against, words=words)
        return [*specs, StageSpec("decontaminated", "decontamination", cleaning, parents=(source, *against))]

    def _sources(self) -> tuple[Source, Source | None]:
        """Training and held-out rows."""
        task = make_dataset(self.task)
        place = Path(self.data) if self.data else None
        train = self.train or find_source(task, "train", place)
        if self.held_out is not None or self.train is not None or (place is not None and place.is_file()):
            return train, self.held_out
        return train, find_source(task, "test", place)

    def compared(self, trained: str, problems: str) -> StageSpec:
        """The evaluation of the base and of what became of it, asked in the same way."""
        return self.measured({"base": self.resolved_style, trained: self.resolved_style}, problems)

    def measured(self, styles: Mapping[str, StrictStyleName], problems: str) -> StageSpec:
        """The evaluation of some stages' models, each asked in its way."""
        suites = tuple(Suite(stage=stage, styles=(style,)) for stage, style in styles.items())
        config = self.evaluation.changed(suites=suites, problems=(problems,))
        return StageSpec("evaluation", "evaluation", config, parents=(*styles, problems))


class PostTrainingGRPOConfig(PostTrainingConfig):
    """Reinforcement learning with verifiable rewards."""

    rl: GRPOConfig = Field(
        default_factory=lambda: GRPOConfig(
            steps=100,
            prompts_per_step=8,
            group_size=8,
            prompts=PromptsConfig(levels=LEVELS, chinese=0.0, max_tokens=512),
            sampling=SamplingConfig(lengths=(LengthStage(from_step=0, max_completion_tokens=LONGEST),), engine_rows=32),
            rubric=RubricConfig(seconds=30.0),
            loss=LossConfig(micro_tokens=8192),
            optimizer=OptimizerConfig(adam_lr=1e-6, muon_lr=0.0, weight_decay=0.0, warmup_steps=5, schedule="constant"),
            preflight=PreflightConfig(prompts=8, floor=0.0),
            held_out=HeldOutConfig(problems_per_level=16, levels=LEVELS),
        ),
        description="the algorithm (R1-Zero's learning rate, at 671B: 3e-6)",
    )

    def stages(self) -> tuple[StageSpec, ...]:
        """The graph."""
        base, problems = self.base(), self.problems()
        source = problems[-1].name
        rl = self.rl.changed(prompts={"stage": source}, style=self.resolved_style)
        return (
            base,
            *problems,
            StageSpec("grpo", "grpo", rl, ("base", source)),
            self.compared("grpo", source),
        )


class PostTrainingSFTConfig(PostTrainingConfig):
    """Supervised fine-tuning."""

    sft: SFTConfig = Field(
        default_factory=lambda: SFTConfig(
            sources=(SourceStage(stage="problems"),),
            examples_per_step=32,
            micro_tokens=8192,
            optimizer=OptimizerConfig(
                adam_lr=1e-5, muon_lr=0.0, warmup_steps=10, schedule="cosine", decay_from=0.0, final_lr=0.1
            ),
        ),
        description="epochs, rates and batches (`sources` is set by the recipe)",
    )

    def stages(self) -> tuple[StageSpec, ...]:
        """The graph: with a task its worked solutions, without one the conversations in `data` or `train`."""
        base = self.base()
        if self.task:
            problems = self.problems()
            return (base, *problems, self._training(problems[-1].name), self.compared("sft", problems[-1].name))
        source = self.train or (Source(path=self.data) if self.data else None)
        if source is None:
            raise ConfigError("nothing to train on: name a file of conversations with --data, or a --task")
        read = StageSpec("conversations", "conversations", ConversationsConfig(source=source))
        cleaned = self.decontaminated("conversations")
        return (base, read, *cleaned, self._training((cleaned or [read])[-1].name))

    def _training(self, source: str) -> StageSpec:
        config = self.sft.changed(sources=(SourceStage(stage=source),))
        return StageSpec("sft", "sft", config, parents=("base", source))


class DistillationConfig(PostTrainingSFTConfig):
    """Supervised fine-tuning on what a larger model thinks and answers."""

    teacher: str = Field("", description="the checkpoint that is learnt from: a model folder (--teacher)")
    teacher_style: Literal["auto", "zero", "chat"] = Field("auto", description="how the teacher is asked, as `style`")
    sampling: RejectionSamplingConfig = Field(
        default_factory=lambda: RejectionSamplingConfig(
            rewrite=False,
            prompts=100_000,
            samples=4,
            temperature=0.6,
            max_completion_tokens=LONGEST,
            max_prompt_tokens=512,
            engine_rows=32,
            filters=FilterConfig(max_repetition=0.5, max_paragraph=4000, per_problem=4),
            prompts_at_once=32,
        ),
        description="what is kept of the teacher's samples (`problems` and `style` are set by the recipe)",
    )

    def stages(self) -> tuple[StageSpec, ...]:
        """The graph.

        Raises:
            ConfigError: no teacher is named.
        """
        if not self.teacher:
            raise ConfigError("no teacher: name a checkpoint's folder, as in --teacher ./DeepSeek-R1-Distill-Qwen-7B")
        teacher = StageSpec("teacher", "checkpoint", CheckpointConfig(path=self.teacher))
        base, problems = self.base(), self.problems()
        source = problems[-1].name
        style = _style_of(Path(self.teacher)) if self.teacher_style == "auto" else self.teacher_style
        sampling = self.sampling.changed(problems=source, style=style)
        samples = StageSpec("samples", "rejection_sampling", sampling, parents=("teacher", source))
        styles: dict[str, StrictStyleName] = {"teacher": style, "base": self.resolved_style, "sft": self.resolved_style}
        return (teacher, base, *problems, samples, self._training("samples"), self.measured(styles, source))


def grpo() -> PostTrainingGRPOConfig:
    """Reinforcement learning on a checkpoint of your own: --model DIR --task gsm8k."""
    return PostTrainingGRPOConfig(recipe="grpo")


def sft() -> PostTrainingSFTConfig:
    """Supervised fine-tuning of a checkpoint of your own: --model DIR --data FILE.jsonl, or --task gsm8k."""
    return PostTrainingSFTConfig(recipe="sft")


def distill() -> DistillationConfig:
    """A checkpoint of your own learns from a larger one's right answers: --teacher DIR --model DIR --task gsm8k."""
    return DistillationConfig(recipe="distill")


@functools.lru_cache(maxsize=4)
def _style_of(folder: Path) -> StrictStyleName:
    """Chat, where the checkpoint has a chat template and a token for thinking; else R1-Zero's plain template."""
    tokenizer = Tokenizer.load(folder)
    return "chat" if tokenizer.template is not None and THINK in tokenizer.control_tokens else "zero"
