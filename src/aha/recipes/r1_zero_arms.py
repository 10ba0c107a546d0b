"""R1-Zero with its control arms, one seed in one graph: what `make results` runs for every seed.

Each arm takes one thing away. Some change reinforcement learning on the same base:

random-reward    a coin flip instead of the true reward
format-only      the form alone is paid
together         rewards are normalised together: the weighted sum, as in R1 Eq. 3
no-easy          no easy levels among the prompts
fixed-cap        one limit of completions for all levels
short-pays       problems of one step, where a short answer can be learnt
bias-off         the routers' biases left as pretraining made them

The others have a base of their own:

no-long          a web without whole ways
mistakes-only    "Wait" and a second pass after mistakes only
no-state         lines that do not carry the state
no-gaps          positions without gaps
large-steps      the same tokens in steps of 16 thousand instead of 2
dense            no experts: a dense model with as many active parameters (pretrained only)
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field

from aha.evals.scaling_stage import ScalingSuite
from aha.evals.thinking import ThinkingConfig
from aha.recipes.r1_zero import R1ZeroConfig, r1_zero_tiny
from aha.recipes.recipe import StageSpec
from aha.rl.config import GRPOConfig, LengthStage
from aha.stages.pretrain import PretrainConfig
from aha.tasks.corpus import CorpusConfig, without_long_solutions

DENSE: dict[str, Any] = {"first_k_dense_replace": 4, "intermediate_size": 312}
"""The tiny preset without experts: (384 + 3 x 3 x 96) / 4 = 312 neurons a layer, as many as are active with experts.

The prediction module, which only training uses, is the same in both.
"""
LARGER = 8
"""How many times as large the steps of `large-steps` are."""

OnTheBase = Literal["random-reward", "format-only", "together", "no-easy", "fixed-cap", "short-pays", "bias-off"]
OnItsOwn = Literal["no-long", "mistakes-only", "no-state", "no-gaps", "large-steps"]
Arm = Literal[OnTheBase, OnItsOwn, "dense"]
ARMS: tuple[Arm, ...] = get_args(Arm)


class R1ZeroArmsConfig(R1ZeroConfig):
    """The main arm's settings; the arms differ from them in one thing each."""

    arms: tuple[Arm, ...] = Field(ARMS, description="which control arms run, beside the main one")

    def stages(self) -> tuple[StageSpec, ...]:
        """The graph. Each arm is measured as soon as it is trained, so that a table can grow arm by arm."""
        specs = list(super().stages())
        for arm in self.arms:
            specs += self._arm(arm)
        return tuple(specs)

    def _arm(self, arm: Arm) -> list[StageSpec]:
        if arm in get_args(OnTheBase):
            return [StageSpec(arm, "grpo", self.changed_rl(arm), ("pretrain",)), self._measured(arm, "pretrain")]
        base = f"pretrain-{arm}"
        specs = [StageSpec(base, "pretrain", self.changed_pretraining(arm))]
        if arm == "dense":
            return specs
        return [*specs, StageSpec(arm, "grpo", self.rl, (base,)), self._measured(arm, base)]

    def changed_rl(self, arm: str) -> GRPOConfig:
        """Reinforcement learning with one thing taken away."""
        limit = self.rl.sampling.max_completion_tokens(0, self.rl.prompts.levels[-1] // 2)
        fixed = (LengthStage(from_step=0, max_completion_tokens=limit),)
        changes: dict[str, dict[str, Any]] = {
            "random-reward": {"rubric": {"accuracy": 0.0, "format": 0.0, "random": 1.0}},
            "format-only": {"rubric": {"accuracy": 0.0}, "patience": self.rl.steps},
            "together": {"loss": {"normalize": "together"}},
            "no-easy": {
                "prompts": {
                    "levels": self.rl.prompts.levels[2:],
                    "curriculum": {"easy_share": 0.0, "start_levels": min(2, self.rl.prompts.curriculum.start_levels)},
                }
            },
            "fixed-cap": {"sampling": {"tokens_per_level": 0, "lengths": fixed}},
            "short-pays": {
                "prompts": {"levels": (1,), "curriculum": {"start_levels": 0, "easy_share": 0.0}},
                "patience": self.rl.steps,
            },
            "bias-off": {"loss": {"bias_update_rate": 0.0}},
        }
        config: GRPOConfig = self.rl.changed(**changes[arm])
        return config

    def changed_pretraining(self, arm: str) -> PretrainConfig:
        """Pretraining with one thing taken away, in both phases of the corpus."""
        own = self.pretrain
        if arm == "no-long":
            first = without_long_solutions(own.first_corpus) if own.first_corpus else None
            return own.changed(corpus=without_long_solutions(own.corpus), first_corpus=first)
        if arm in ("mistakes-only", "no-state"):
            change: dict[str, Any] = {"restate": False}
            if arm == "mistakes-only":
                # As many passes repair as before; those that confirm are gone.
                change = {"second_pass": own.corpus.second_pass * own.corpus.slip, "slip": 1.0}
            corpora: list[CorpusConfig | None] = [
                one.changed(**change) if one else None for one in (own.corpus, own.first_corpus)
            ]
            return own.changed(corpus=corpora[0], first_corpus=corpora[1])
        changes: dict[str, dict[str, Any]] = {
            "no-gaps": {"position_gaps": 0.0},
            "large-steps": {"rows_per_step": LARGER * own.rows_per_step, "steps": max(1, own.steps // LARGER)},
            "dense": {"model": {"changes": {**own.model.changes, **DENSE}}},
        }
        config: PretrainConfig = own.changed(**changes[arm])
        return config

    def _measured(self, arm: str, base: str) -> StageSpec:
        models = (ScalingSuite(stage=base), ScalingSuite(stage=arm))
        config: ThinkingConfig = self.thinking.changed(models=models, rl=arm)
        return StageSpec(f"thinking-{arm}", "thinking", config, parents=config.parents())


def r1_zero_arms() -> R1ZeroArmsConfig:
    """R1-Zero and its control arms on one seed: hours on two cores, resumable arm by arm."""
    main = r1_zero_tiny()
    settings: dict[str, Any] = {name: getattr(main, name) for name in type(main).model_fields}
    return R1ZeroArmsConfig(**{**settings, "recipe": "r1-zero-arms"})
