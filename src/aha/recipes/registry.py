"""The recipes and the kinds of stages by name, and how `aha run WHAT` becomes a configuration. No torch here.

Entries are references, `module:attribute`, that are imported when they are needed. Anything of your own is named the
same way on the command line (`aha run mypackage.recipes:my_recipe`) and in a recipe's stages, without a change here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aha.configuration import apply_overrides, build_config, merge, read_yaml
from aha.errors import ConfigError, UnknownNameError
from aha.recipes.recipe import RecipeConfig
from aha.references import load_reference

RECIPES: dict[str, str] = {
    "grpo": "aha.recipes.post_training:grpo",
    "sft": "aha.recipes.post_training:sft",
    "distill": "aha.recipes.post_training:distill",
    "pretrain": "aha.recipes.pretrain:pretrain",
    "r1-arms": "aha.recipes.r1_arms:r1_arms",
    "r1-smoke": "aha.recipes.r1:r1_smoke",
    "r1-tiny": "aha.recipes.r1:r1_tiny",
    "r1-zero-arms": "aha.recipes.r1_zero_arms:r1_zero_arms",
    "r1-zero-smoke": "aha.recipes.r1_zero:r1_zero_smoke",
    "r1-zero-tiny": "aha.recipes.r1_zero:r1_zero_tiny",
}
"""Recipe functions, each returning a RecipeConfig; the first line of a function's docstring is its description."""

STAGES: dict[str, str] = {
    "checkpoint": "aha.stages.checkpoint:Checkpoint",
    "conversations": "aha.stages.conversations:OwnConversations",
    "decontamination": "aha.stages.decontamination:Decontamination",
    "evaluation": "aha.recipes.parts:evaluation",
    "grpo": "aha.recipes.parts:reinforcement_learning",
    "instructions": "aha.stages.instructions:Instructions",
    "preferences": "aha.recipes.parts:preferences",
    "pretrain": "aha.stages.pretrain:Pretrain",
    "problems": "aha.stages.problems:Problems",
    "rejection_sampling": "aha.recipes.parts:rejection_sampling",
    "reward_model": "aha.stages.reward_model:RewardModelTraining",
    "scaling": "aha.recipes.parts:scaling",
    "sft": "aha.stages.sft:SFT",
    "thinking": "aha.recipes.parts:thinking",
}
"""What makes a stage (see `aha.training.stage.Stage`) when called, by kind: classes, and classes given the engine."""


def make_stage(kind: str) -> Any:
    """A stage of a kind.

    Raises:
        UnknownNameError: no such kind.
    """
    if ":" in kind:
        return load_reference(kind)()
    if kind not in STAGES:
        raise UnknownNameError("kind of stage", kind, STAGES)
    return load_reference(STAGES[kind])()


def recipe_default(name: str) -> RecipeConfig:
    """The configuration that a recipe function returns.

    Raises:
        UnknownNameError: no such recipe.
        ConfigError: what `module:function` names is not a recipe.
    """
    if ":" not in name and name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    function = load_reference(name if ":" in name else RECIPES[name])
    config = function() if callable(function) else function
    if not isinstance(config, RecipeConfig):
        raise ConfigError(f"{name!r} is not a recipe: expected a function that returns a RecipeConfig")
    return config


def resolve(name_or_path: str, overrides: Sequence[str] = (), seed: int | None = None) -> RecipeConfig:
    """What `aha run` runs: a recipe by name, or a YAML file that names its recipe and changes its settings.

    Args:
        name_or_path: "r1-zero-tiny", "mypackage.recipes:mine", "my.yaml", or the `config.yaml` of an earlier run.
        overrides: `a.b=c`, applied last.
        seed: replaces the configuration's seed.

    Raises:
        UnknownNameError: no such recipe.
        ConfigError: a file cannot be read, a key is unknown, or a value is out of bounds.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        data = read_yaml(path)
        if not isinstance(data.get("recipe"), str):
            raise ConfigError(f"{path}: expected a line `recipe: NAME`; known recipes: {', '.join(sorted(RECIPES))}")
        name, source = data["recipe"], str(path)
        if not data.get("name") and path.stem != "config":
            data["name"] = path.stem
    else:
        data, name, source = {}, name_or_path, ""
    default = recipe_default(name)
    settings = apply_overrides(merge(default, {**data, "recipe": name}), overrides)
    if seed is not None:
        settings["seed"] = seed
    if settings["recipe"] != name:
        raise ConfigError("recipe cannot be changed with --set; give the other recipe's name instead")
    return build_config(type(default), settings, source)


def describe() -> dict[str, str]:
    """Each recipe's name with its one-line description."""
    lines = {}
    for name, reference in sorted(RECIPES.items()):
        doc = (load_reference(reference).__doc__ or "").strip()
        lines[name] = doc.splitlines()[0] if doc else ""
    return lines
