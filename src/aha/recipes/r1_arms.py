"""R1's recipe with the arms of the published comparison, one seed in one graph: what `make results` runs per seed.

scaling         accuracy against tokens spent at test time, of the base, R1-Zero, R1 and the Qwen3 student
mini            a second size of the Qwen3 student, distilled
qwen2           a Qwen2 student, distilled
student-rl      the arm against distillation: the Qwen3 student by RL on its own base, no teacher
distilled-rl    RL after distillation
longer-base     the Qwen3 student with four times the pretraining, both distilled and by RL: RL reinforces what its base
                does now and then, so whether distillation is ahead of it depends on the base
long-reward     R1's final RL with reward models from the first step on, for much longer, on four prompts of five
                instead of half, and with no KL term to hold it back: it is hacked
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field

from aha.evals.scaling_stage import ScalingSuite
from aha.evals.stage import EvaluationConfig, Suite
from aha.recipes.r1 import STYLES, R1Config, Student, dense_student, r1_tiny, read_by
from aha.recipes.r1_zero import curves
from aha.recipes.recipe import StageSpec
from aha.rl.config import GRPOConfig
from aha.text.prompt_style import StyleName

R1Arm = Literal["scaling", "mini", "qwen2", "student-rl", "distilled-rl", "long-reward", "longer-base"]
R1_ARMS: tuple[R1Arm, ...] = get_args(R1Arm)
MORE_STUDENTS: dict[str, Student] = {
    "mini": dense_student("qwen3-mini", "qwen3-mini"),
    "qwen2": dense_student("qwen2", "qwen2-tiny"),
}
LONGER = dense_student("qwen3-longer", "qwen3-tiny", pretraining=4)


class R1ArmsConfig(R1Config):
    """The main run's settings, and what the arms need beside them."""

    arms: tuple[R1Arm, ...] = Field(R1_ARMS, description="which arms run, beside the main run")
    student_rl: GRPOConfig = Field(description="RL on a student's base, with at least what distillation spends on it")
    distilled_rl: GRPOConfig = Field(description="RL after distillation")
    long_reward: GRPOConfig = Field(description="final RL that trusts the reward models for too long")

    def stages(self) -> tuple[StageSpec, ...]:
        """The graph. Each arm is evaluated as soon as it is trained, so that a table can grow arm by arm."""
        specs = [*self.teacher(), *self.student_stages(), self.comparison()]
        for arm in self.arms:
            specs += self._arm(arm)
        return tuple(specs)

    def _arm(self, arm: R1Arm) -> list[StageSpec]:
        if arm == "scaling":
            return curves(self.scaling)
        if arm in MORE_STUDENTS:
            student = MORE_STUDENTS[arm]
            return [*self.student(student), self._evaluation(arm, {student.name: "chat"})]
        if arm == "student-rl":
            spec = StageSpec("qwen3-rl", "grpo", self.student_rl, ("qwen3-base",))
            return [spec, self._evaluation(arm, {"qwen3-base": "zero", "qwen3-rl": "zero"})]
        if arm == "distilled-rl":
            spec = StageSpec("qwen3-distilled-rl", "grpo", self.distilled_rl, ("qwen3",))
            return [spec, self._evaluation(arm, {"qwen3-distilled-rl": "chat"})]
        if arm == "longer-base":
            name, base = LONGER.name, f"{LONGER.name}-base"
            styles: dict[str, StyleName] = {base: "zero", name: "chat", f"{name}-rl": "zero"}
            spec = StageSpec(f"{name}-rl", "grpo", self.student_rl, (base,))
            return [*self.student(LONGER), spec, self._evaluation(arm, styles)]
        spec = StageSpec(
            "r1-long-reward",
            "grpo",
            self.long_reward,
            (
                "dev3",
                *read_by(self.long_reward),
            ),
        )
        return [spec, self._evaluation(arm, {"r1-long-reward": "chat"})]

    def _evaluation(self, arm: str, styles: dict[str, StyleName]) -> StageSpec:
        suites = tuple(Suite(stage=stage, styles=(style,)) for stage, style in styles.items())
        config: EvaluationConfig = self.evaluation.changed(suites=suites)
        return StageSpec(f"evaluation-{arm}", "evaluation", config, parents=tuple(styles))


def r1_arms() -> R1ArmsConfig:
    """R1's whole recipe with the arms of the published comparison, one seed: hours on two cores."""
    main = r1_tiny()
    settings: dict[str, Any] = {name: getattr(main, name) for name in type(main).model_fields}
    assert main.final_rl.general is not None
    general = main.final_rl.general.changed(from_step=0, share=0.8)
    styles: dict[str, StyleName] = {**STYLES, "qwen3": "chat"}
    suites = tuple(ScalingSuite(stage=stage, style=styles[stage]) for stage in ("pretrain", "r1-zero", "r1", "qwen3"))
    settings |= {"recipe": "r1-arms", "scaling": main.scaling.changed(suites=suites)}
    return R1ArmsConfig(
        **settings,
        student_rl=main.r1_zero.changed(steps=300, held_out={"every": 50}),
        distilled_rl=main.reasoning_rl.changed(steps=60),
        long_reward=main.final_rl.changed(steps=160, general=general, loss={"kl_beta": 0.0}),
    )
