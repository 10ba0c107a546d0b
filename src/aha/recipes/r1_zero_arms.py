"""R1-Zero with its control arms, one seed in one graph: what `make results` runs for every seed.

pretrain ─┬─ r1-zero            the true reward
          ├─ random-reward      a coin flip instead of it
          ├─ format-only        the form alone
          └─ bias-off           the true reward, the routers' biases left as pretraining made them
pretrain-no-long ── r1-zero-no-long     a corpus without long solutions
pretrain-dense                          a dense model with as many active parameters, on the same tokens
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field

from aha.evals.stage import EvaluationConfig, Suite
from aha.recipes.r1_zero import R1ZeroConfig, r1_zero_tiny
from aha.recipes.recipe import StageSpec
from aha.rewards.rubric import RubricConfig
from aha.rl.config import GRPOConfig
from aha.stages.pretrain import PretrainConfig
from aha.tasks.corpus import without_long_solutions

DENSE: dict[str, Any] = {"first_k_dense_replace": 4, "intermediate_size": 312}
"""The tiny preset without experts: (384 + 3 x 3 x 96) / 4 = 312 neurons a layer, as many as are active with experts.

The prediction module, which only training uses, is the same in both.
"""

Arm = Literal["random-reward", "format-only", "bias-off", "no-long", "dense"]
ARMS: tuple[Arm, ...] = get_args(Arm)


class R1ZeroArmsConfig(R1ZeroConfig):
    """The main arm's settings; the arms differ from them in one thing each."""

    arms: tuple[Arm, ...] = Field(ARMS, description="which control arms run, beside the main one")

    def stages(self) -> tuple[StageSpec, ...]:
        """The graph. Each arm is evaluated as soon as it is trained, so that a table can grow arm by arm."""
        specs = list(super().stages())
        for arm in self.arms:
            specs += self._arm(arm)
        return tuple(specs)

    def _arm(self, arm: Arm) -> list[StageSpec]:
        if arm == "dense":
            model = self.pretrain.model.changed(changes={**self.pretrain.model.changes, **DENSE})
            return [StageSpec("pretrain-dense", "pretrain", self.pretrain.changed(model=model))]
        if arm == "no-long":
            corpus = without_long_solutions(self.pretrain.corpus)
            pretrain: PretrainConfig = self.pretrain.changed(corpus=corpus)
            return [
                StageSpec("pretrain-no-long", "pretrain", pretrain),
                StageSpec("r1-zero-no-long", "grpo", self.rl, ("pretrain-no-long",)),
                self._evaluation("evaluation-no-long", "pretrain-no-long", "r1-zero-no-long"),
            ]
        changes: dict[str, dict[str, Any]] = {
            "random-reward": {"rubric": RubricConfig(accuracy=0.0, format=0.0, random=1.0)},
            "format-only": {"rubric": RubricConfig(accuracy=0.0, format=1.0), "patience": self.rl.steps},
            "bias-off": {"loss": {"bias_update_rate": 0.0}},
        }
        config: GRPOConfig = self.rl.changed(**changes[arm])
        return [
            StageSpec(arm, "grpo", config, ("pretrain",)),
            self._evaluation(f"evaluation-{arm}", arm),
        ]

    def _evaluation(self, name: str, *stages: str) -> StageSpec:
        base = ("zero", "zero_think")
        suites = tuple(Suite(stage=one, styles=base if "pretrain" in one else ("zero",)) for one in stages)
        config: EvaluationConfig = self.evaluation.changed(suites=suites)
        return StageSpec(name, "evaluation", config, parents=stages)


def r1_zero_arms() -> R1ZeroArmsConfig:
    """R1-Zero and its control arms on one seed: hours on two cores, resumable arm by arm."""
    main = r1_zero_tiny()
    settings: dict[str, Any] = {name: getattr(main, name) for name in type(main).model_fields}
    return R1ZeroArmsConfig(**{**settings, "recipe": "r1-zero-arms"})
