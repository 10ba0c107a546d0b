"""Settings of reinforcement learning with verifiable rewards (R1 2.2 and its supplement), by name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from aha.configuration import Config, StageName, StageOf
from aha.models.lora_linear import LoRAConfig
from aha.rewards.own import functions_identity
from aha.rewards.rubric import RubricConfig
from aha.rollout_servers import RolloutServersConfig
from aha.tasks.families import FAMILIES, GENERAL, GeneralName, Level, ReasoningName
from aha.text.prompt_style import StrictStyleName
from aha.training.optimizer import OptimizerConfig

SERVERS_IMPORTANCE_CAP = 2.0
"""What `loss.importance_cap` is where servers sample and it is not set."""


class CurriculumConfig(Config):
    """Which (family, level) cells are drawn: those at the edge of competence more often."""

    enabled: bool = Field(True, description="weigh cells by p (1 - p) of their recent accuracy; off draws all alike")
    floor: float = Field(
        0.08, ge=0, description="weight that every cell keeps, beside p (1 - p), which is 0.25 at most"
    )
    drop_above: float = Field(
        0.97, ge=0, le=1, description="recent accuracy from which a cell gets the floor's quarter"
    )
    memory: float = Field(0.9, ge=0, lt=1, description="decay of the recent accuracy, per group seen")
    start_levels: int = Field(
        0,
        ge=0,
        description="levels of each family that are open at the start, from the lowest trained one; 0: all of them",
    )
    open_at: float = Field(
        0.8, ge=0, le=1, description="recent accuracy at a family's highest open level above which the next one opens"
    )
    easy_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the draws that the two lowest levels keep, beside what is open above them; 0: by the "
        "rule alone",
    )


class LengthStage(Config):
    """From a step on, how long a completion may be (the paper's jump from 32,768 to 65,536 at step 8,200)."""

    from_step: int = Field(ge=0, description="first step of the stage")
    max_completion_tokens: int = Field(gt=0, description="limit in tokens")


class GeneralConfig(Config):
    """General prompts beside reasoning, judged by reward models (R1's second RL stage, Eqs. 8-10)."""

    families: tuple[GeneralName, ...] = Field(
        tuple(GENERAL), min_length=1, description="general families that are asked"
    )
    from_step: int = Field(0, ge=0, description="first step with general prompts (R1: the last 400 of 1,700)")
    share: float = Field(0.5, gt=0, le=1, description="share of a step's prompts that are general, from then on")
    helpful: Annotated[str, StageOf("reward_model", "preference", "helpful")] = Field(
        "", description="the stage whose reward model judges helpfulness"
    )
    harmless: Annotated[str, StageOf("reward_model", "preference", "harmless")] = Field(
        "", description="the stage whose reward model judges harmlessness"
    )
    weight: float = Field(1.0, gt=0, description="weight of the preference reward")
    eval_per_level: int = Field(8, gt=0, description="held-out general problems per family and level")
    eval_samples: int = Field(2, gt=0, description="samples per held-out general problem")

    @model_validator(mode="after")
    def _complete(self) -> GeneralConfig:
        if not self.helpful or not self.harmless:
            raise ValueError("name the stages of both reward models: helpful and harmless")
        return self


class PromptsConfig(Config):
    """Which problems are asked."""

    families: tuple[ReasoningName, ...] = Field(tuple(FAMILIES), min_length=1, description="families that are trained")
    levels: tuple[Level, ...] = Field((1, 2, 3), min_length=1, description="levels that are trained")
    chinese: float = Field(0.3, ge=0, le=1, description="share of problems in Chinese")
    stage: StageName = Field("", description="the stage whose problems are asked, instead of the families'")
    max_tokens: int = Field(256, gt=0, description="problems of a stage with longer prompts are passed over")
    curriculum: CurriculumConfig = Field(default_factory=CurriculumConfig, description="which cells are drawn")

    @model_validator(mode="after")
    def _window(self) -> PromptsConfig:
        if self.curriculum.start_levels > (trained := len(set(self.levels))):
            raise ValueError(
                f"curriculum.start_levels = {self.curriculum.start_levels} with {trained} trained levels: expected "
                f"0 (all are open) to {trained}; lower it, or train more levels (levels)"
            )
        return self


class SamplingConfig(Config):
    """How completions are sampled."""

    temperature: float = Field(
        1.0, gt=0, description="of rollouts, and of the policy that is trained (R1-Zero: 1, R1's last stage: 0.7)"
    )
    lengths: tuple[LengthStage, ...] = Field(
        (LengthStage(from_step=0, max_completion_tokens=256),), min_length=1, description="schedule of the length limit"
    )
    tokens_per_level: int = Field(
        0, ge=0, description="tokens that a completion may have beyond the limit for each level of its problem"
    )
    dynamic_rounds: int = Field(
        1, gt=0, description="rollout rounds to fill a step with groups that carry a signal; 1 takes what comes (DAPO)"
    )
    forced_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the prompts whose completions must think on once: the end of their thinking is replaced "
        'by "Wait", as test-time scaling does it; these tokens carry no loss',
    )
    engine_rows: int = Field(256, gt=0, description="samples decoded at once; each needs a cache of its longest length")
    keep_routing: bool = Field(
        False,
        description="train with the experts that the sampler chose, where its and the trainer's numerics choose others "
        "(routing replay; V3.2: Keep Routing); the built-in engine only",
    )
    servers: RolloutServersConfig | None = Field(
        None, description="vLLM or SGLang servers that sample; none: the built-in engine"
    )

    @model_validator(mode="after")
    def _check(self) -> SamplingConfig:
        if self.lengths[0].from_step != 0:
            raise ValueError("lengths: the first stage must start at step 0")
        starts = [stage.from_step for stage in self.lengths]
        if self.keep_routing and self.servers is not None:
            raise ValueError(
                "keep_routing: servers do not say which experts they chose; set it to false, or sample with the "
                "built-in engine (servers: null)"
            )
        if starts != sorted(set(starts)):
            raise ValueError(f"lengths: stages start at steps {starts}; expected each after the one before it")
        return self

    def max_completion_tokens(self, step: int, level: int) -> int:
        """The length limit at a step, of the completions of a problem of that level."""
        stage = [stage for stage in self.lengths if stage.from_step <= step][-1]
        return stage.max_completion_tokens + self.tokens_per_level * level


class LossConfig(Config):
    """The objective of R1 Eq. 1 and what variants of it there are."""

    normalization: Literal["token", "response", "constant"] = Field("token", description="how token losses add up")
    normalize: Literal["together", "each"] = Field(
        "together",
        description="what the group's mean and deviation are of: the weighted sum of the rewards (R1 Eq. 3), or each "
        "reward by itself before they are added with their weights (GDPO)",
    )
    divide_by_std: bool = Field(
        True, description="divide advantages by the group's deviation (R1 Eq. 3); False: Dr. GRPO"
    )
    clip_low: float = Field(0.2, gt=0, description="lower clip range")
    clip_high: float = Field(0.28, gt=0, description="upper clip range (R1's first RL stage: 10)")
    kl_beta: float = Field(0.0, ge=0, description="weight of the divergence from the reference (R1-Zero: 0.001)")
    reference_reset_steps: int = Field(
        0, ge=0, description="steps after which the reference becomes the policy; 0: never"
    )
    importance_cap: float | None = Field(
        None,
        ge=0,
        description="truncated importance sampling: most that a token's weight is raised by where sampler and "
        "trainer disagree; 0: not corrected; none: 2 with sampling.servers, else 0",
    )
    mask_truncated: bool = Field(False, description="leave truncated completions out of the loss")
    bias_update_rate: float = Field(0.001, ge=0, description="gamma of the routers' balance rule during RL")
    mtp_share: float = Field(
        0.125,
        ge=0,
        le=1,
        description="share of the completions from which the prediction modules learn beside the model; 0: they stay "
        "as they are",
    )
    micro_tokens: int = Field(
        16_384, gt=0, description="tokens per forward pass of the trainer; gradients add up over several"
    )


class HeldOutConfig(Config):
    """Held-out problems, asked while the policy trains."""

    every: int = Field(
        20,
        ge=0,
        description="steps between held-out evaluations, beside one where 90% of answers become well-formed; 0: none",
    )
    problems_per_level: int = Field(12, gt=0, description="held-out problems per family and level")
    samples: int = Field(2, gt=0, description="samples per held-out problem")
    levels: tuple[Level, ...] = Field((1, 2, 3, 4, 5), min_length=1, description="levels that are asked")


class PreflightConfig(Config):
    """Questions before the first step: is there anything for RL to find?"""

    prompts: int = Field(32, ge=0, description="questions; 0 skips the check")
    floor: float = Field(0.05, ge=0, le=1, description="pass@G below which training stops before it starts")


class GRPOConfig(Config):
    """Group Relative Policy Optimization (R1 Eqs. 1-3)."""

    steps: int = Field(200, gt=0, description="rollout steps; each feeds `minibatches` updates")
    prompts_per_step: int = Field(32, gt=0, description="questions per rollout (R1-Zero: 32 per update)")
    group_size: int = Field(16, ge=2, description="completions per question, G (R1-Zero: 16)")
    minibatches: int = Field(
        1, gt=0, description="updates per rollout (R1-Zero: 16); above 1 the later ones are off-policy"
    )
    style: StrictStyleName = Field("zero", description="prompt style: R1-Zero's template, or R1's chat format")
    prompts: PromptsConfig = Field(default_factory=PromptsConfig, description="which problems are asked")
    general: GeneralConfig | None = Field(None, description="general prompts and reward models; none: reasoning alone")
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="how completions are sampled")
    rubric: RubricConfig = Field(default_factory=RubricConfig, description="weights of the rewards")
    loss: LossConfig = Field(default_factory=LossConfig, description="the objective")
    optimizer: OptimizerConfig = Field(
        default_factory=lambda: OptimizerConfig(
            adam_lr=2e-4, muon_lr=0.0, weight_decay=0.0, warmup_steps=3, decay_from=0.6, final_lr=0.2
        ),
        description="rates and schedule (R1-Zero: 3e-6 at 671B)",
    )
    lora: LoRAConfig | None = Field(
        None, description="train adapters alone, with the model without them as the reference; none: all weights"
    )
    held_out: HeldOutConfig = Field(default_factory=HeldOutConfig, description="evaluation on the way")
    preflight: PreflightConfig = Field(default_factory=PreflightConfig, description="the check before the first step")
    patience: int = Field(10, gt=0, description="steps in a row without any signal after which training stops")
    keep_every: int = Field(0, ge=0, description="steps between models kept beside the final one; 0: none")
    log_rollouts: int = Field(2, ge=0, description="groups per step written to rollouts.jsonl")

    @property
    def highest_level(self) -> int:
        """The highest level that is asked in training, of general prompts too."""
        general = self.general.families if self.general is not None else ()
        return max(*self.prompts.levels, *(level for name in general for level in GENERAL[name].levels), 1)

    @property
    def longest(self) -> int:
        """The length limit that no completion exceeds at any step and level, in tokens."""
        steps = (stage.from_step for stage in self.sampling.lengths)
        return max(self.sampling.max_completion_tokens(step, self.highest_level) for step in steps)

    def data_identity(self) -> str:
        """Of the files of one's own reward functions."""
        return functions_identity(self.rubric.functions)

    @model_validator(mode="after")
    def _check(self) -> GRPOConfig:
        if self.sampling.servers is not None and self.loss.importance_cap is None:
            # Said outright, so that a printed configuration shows it.
            object.__setattr__(self, "loss", self.loss.changed(importance_cap=SERVERS_IMPORTANCE_CAP))
        if self.general is not None and self.general.from_step >= self.steps:
            raise ValueError(
                f"general.from_step = {self.general.from_step} with steps = {self.steps}: no step would have general "
                "prompts; lower general.from_step, or leave general out"
            )
        if self.lora is not None and self.lora.dropout:
            raise ValueError(f"lora.dropout = {self.lora.dropout}: must be 0, to train the policy that samples")
        if self.lora is not None and self.loss.reference_reset_steps:
            raise ValueError("loss.reference_reset_steps: must be 0 with lora, whose reference is always the base")
        return self
