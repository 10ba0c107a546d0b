"""The stage of reinforcement learning in a recipe's graph."""

from __future__ import annotations

from aha.recipes.recipe import StageSpec
from aha.rewards.own import functions_identity
from aha.rl.config import GRPOConfig


def rl_stage(name: str, config: GRPOConfig, *parents: str) -> StageSpec:
    """Reinforcement learning, which is redone when the file of a reward function of the user's changes.

    Raises:
        ConfigError: such a file is not there.
    """
    return StageSpec(name, "grpo", config, parents, functions_identity(config.rubric.functions))
