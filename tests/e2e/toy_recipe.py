"""A recipe of two small stages with everything that makes resuming hard: momentum, global random states, and logs.

It is named on the command line as `toy_recipe:toy`, with this folder on PYTHONPATH, like any recipe of one's own.
"""

from __future__ import annotations

import random
import time
from typing import Any, ClassVar

import safetensors.torch
import torch

from aha.configuration import Config, Field
from aha.errors import NothingToLearnError
from aha.recipes.recipe import RecipeConfig, StageSpec
from aha.training.stage import StageContext, StageResult


def random_state() -> dict[str, Any]:
    """This rank's generators, as JSON."""
    version, internal, gauss = random.getstate()
    return {"python": [version, list(internal), gauss], "torch": torch.get_rng_state().tolist()}


def restore_random_state(state: dict[str, Any]) -> None:
    """Puts the generators back."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))


class GrowConfig(Config):
    """Settings of the toy stage."""

    steps: int = Field(60, ge=1)
    lr: float = Field(0.01, gt=0)
    step_seconds: float = Field(0.01, ge=0, description="Sleep per step.")
    fail_on_rank: int = Field(-1, description="This rank gives up at half time.")
    break_on_rank: int = Field(-1, description="This rank has a bug at half time.")


class Toy(RecipeConfig):
    """The whole recipe."""

    checkpoint_seconds: float = 0.15
    grow: GrowConfig = GrowConfig()
    polish: GrowConfig = GrowConfig(lr=0.001)

    def stages(self) -> tuple[StageSpec, ...]:
        return (
            StageSpec("grow", "toy_recipe:Grow", self.grow),
            StageSpec("polish", "toy_recipe:Grow", self.polish, parents=("grow",)),
        )


def toy() -> Toy:
    """Two stages of a linear map."""
    return Toy(recipe="toy_recipe:toy")


class Grow:
    """Fits a linear map to noise, with momentum, on all ranks."""

    kind: ClassVar[str] = "grow"

    def run(self, context: StageContext) -> StageResult:
        torch.set_num_threads(1)
        config, distributed = context.config, context.distributed
        assert isinstance(config, GrowConfig)
        torch.manual_seed(context.derive_seed("weights"))
        weight = torch.randn(16, 16)
        if context.parents:
            weight = safetensors.torch.load_file(context.parent_model_folder() / "model.safetensors")["weight"]
        velocity = torch.zeros_like(weight)
        torch.manual_seed(context.derive_seed("noise", distributed.rank))
        random.seed(context.derive_seed("noise", distributed.rank))
        saved = context.checkpointer.load()
        total = 0.0
        if saved:
            weight, velocity, total = saved.tensors["weight"], saved.tensors["velocity"], saved.state["total"]
            restore_random_state(saved.rank_state)
        start = saved.step if saved else 0
        with context.progress.task(context.name, config.steps, start) as task:
            for step in range(start, config.steps):
                gradient = weight - torch.randn(16, 16) * random.random()
                distributed.all_reduce_sum([gradient])
                velocity = 0.9 * velocity + gradient / distributed.world_size
                weight = weight - config.lr * velocity
                loss = float(weight.square().mean())
                total += loss
                self._misbehave(config, step, distributed.rank)
                context.metrics.write({"step": step, "loss": loss, "draw": random.random()})
                context.timings.write({"step": step, "clock": time.time()})
                if step % 10 == 0:
                    context.rollouts.write({"step": step, "text": "想一想\n" * 20})
                    if distributed.is_first:
                        (context.folder / f"kept-{step}.txt").write_text(f"{loss}\n")
                task.update(step + 1, {"loss": loss})
                time.sleep(config.step_seconds)
                if context.checkpointer.due():
                    context.checkpointer.save(
                        step + 1, {"weight": weight, "velocity": velocity}, {"total": total}, random_state()
                    )
        if distributed.is_first:
            context.model_folder.mkdir(exist_ok=True)
            safetensors.torch.save_file({"weight": weight}, context.model_folder / "model.safetensors")
        return StageResult({"total": total}, tokens_trained=config.steps)

    def _misbehave(self, config: GrowConfig, step: int, rank: int) -> None:
        if step == config.steps // 2:
            if config.fail_on_rank in (rank, 99):
                raise NothingToLearnError(f"rank {rank} sees nothing to learn")
            if config.break_on_rank == rank:
                raise RuntimeError("a bug")
