"""What a recipe is: a complete configuration, and the graph of stages that it spells out. No torch here.

A recipe is a function that returns a `RecipeConfig`. Its class declares the sections (the world, the model, each
stage's settings) and says in `stages` which stages they make, in order, and who feeds whom:

    class Tiny(RecipeConfig):
        pretrain: PretrainConfig = PretrainConfig()
        rl: GrpoConfig = GrpoConfig()

        def stages(self) -> tuple[StageSpec, ...]:
            return (
                StageSpec("pretrain", "pretrain", self.pretrain),
                StageSpec("r1-zero", "grpo", self.rl, parents=("pretrain",)),
            )

The identity of a stage is the hash of all that its result depends on. Two runs whose stage has the same identity made
the same bytes; a stage whose identity changed is redone, and so is all that descends from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from aha.compute import ComputeConfig
from aha.configuration import Config, Field, named_stages
from aha.errors import ConfigError, nearest
from aha.files import fingerprint
from aha.training.parallel import ParallelConfig
from aha.training.trackers import TrackerName


@dataclass(frozen=True)
class StageSpec:
    """One stage of a recipe: what it is, with which settings, and which stages feed it."""

    name: str
    """Names the stage's folder."""
    kind: str
    """A key of `aha.recipes.registry.STAGES`, or `module:Class` for a stage of your own."""
    config: Config
    parents: tuple[str, ...] = ()
    """Names of earlier stages whose models or files this one reads; the `StageName`s of its settings are among them."""


class RecipeConfig(Config):
    """Base of all recipes: what every run has. Subclasses add sections and `stages`."""

    recipe: str = Field(description="The recipe's name in the registry, or module:function.")
    name: str = Field("", description="Names the run folder; empty takes the recipe's name.")
    seed: int = Field(0, ge=0, le=2**31, description="Everything random is derived from it.")
    compute: ComputeConfig = Field(default_factory=ComputeConfig, description="Device and numbers of every stage.")
    max_processes: int = Field(2, ge=1, le=4096, description="At most so many processes, one per core or GPU.")
    parallel: ParallelConfig = Field(default_factory=ParallelConfig, description="How models spread over processes.")
    checkpoint_seconds: float = Field(60.0, ge=0, description="Seconds between checkpoints; 0 saves at every step.")
    keep_checkpoints: int = Field(2, ge=1, description="How many checkpoints of the running stage to keep.")
    log_to: tuple[TrackerName, ...] = Field((), description="Trackers that get a copy of metrics.jsonl (--log-to).")
    stop_seconds: float = Field(
        4.5, gt=0, description="Seconds that a step may take to end when the run is asked to stop; then it is cut off."
    )

    def stages(self) -> tuple[StageSpec, ...]:
        """The stages in the order they run; parents come before their children."""
        raise NotImplementedError

    @property
    def run_name(self) -> str:
        """The name of the run folder: `<name>-seed<seed>`."""
        return f"{self.name or short_name(self.recipe)}-seed{self.seed}"


def short_name(recipe: str) -> str:
    """The name of a recipe given as `module:function`: the function's, with dashes. Other names stay as they are."""
    return recipe.rpartition(":")[2].replace("_", "-") if ":" in recipe else recipe


def identities(config: RecipeConfig) -> dict[str, str]:
    """The identity of each stage, by name, in order.

    Raises:
        ConfigError: two stages have one name, a parent is not an earlier stage, or a stage's settings name one that
            it does not read.
    """
    specs = config.stages()
    twice = [name for name, count in Counter(spec.name for spec in specs).items() if count > 1]
    if twice:
        raise ConfigError(f"recipe {config.recipe!r} has two stages named {twice[0]!r}: names must differ")
    result: dict[str, str] = {}
    for spec in specs:
        _check_named(config, spec, {earlier.name: earlier for earlier in specs if earlier.name in result})
        for parent in spec.parents:
            if parent not in result:
                hint = nearest(parent, result)
                raise ConfigError(f"stage {spec.name!r}: parent {parent!r} is not an earlier stage{hint}")
        result[spec.name] = fingerprint(
            {
                "kind": spec.kind,
                "config": spec.config.model_dump(mode="json"),
                "parents": [[parent, result[parent]] for parent in spec.parents],
                "seed": config.seed,
                "dtype": config.compute.dtype,
                "data": spec.config.data_identity(),
            }
        )
    return result


def _check_named(config: RecipeConfig, spec: StageSpec, earlier: Mapping[str, StageSpec]) -> None:
    """Looks at the stages that a stage's settings name, before anything starts.

    Raises:
        ConfigError: one does not exist, comes later, is none of the stage's parents, or not what it is named as.
    """
    section = next((name for name in type(config).model_fields if getattr(config, name) is spec.config), "")
    for path, name, expected in named_stages(spec.config, section or spec.name):
        if name not in earlier:
            known = ", ".join(earlier) or "none"
            hint = nearest(name, earlier)
            raise ConfigError(
                f"{path} = {name!r}: no stage of that name before {spec.name!r}{hint}; there are: {known}"
            )
        if name not in spec.parents:
            read = ", ".join(spec.parents) or "none"
            raise ConfigError(f"{path} = {name!r}: not one of the stages that {spec.name!r} reads: {read}")
        there = earlier[name]
        if expected.kind and there.kind != expected.kind and ":" not in there.kind:
            raise ConfigError(f"{path} = {name!r}: a stage of kind {there.kind!r}; expected {expected.kind!r}")
        value = getattr(there.config, expected.setting, expected.value) if expected.setting else expected.value
        if value != expected.value:
            raise ConfigError(
                f"{path} = {name!r}: the {expected.setting} of that stage is {value!r}; expected {expected.value!r}"
            )
