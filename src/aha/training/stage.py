"""What a stage of a run is, and what it is given. Stages live in `stages/` and `rl/`; recipes put them in order.

A stage runs in every process at once, on the same arguments, and keeps four promises:

- the same configuration, seed and number of processes give the same files, byte for byte;
- everything it carries from step to step goes through its checkpointer, so that it can be killed at any moment;
- it writes only below its folder, and reads its parents' models from `parent_model_folder`;
- rank 0 alone writes files; names that start with a dot are temporary, and cleared after an interruption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol

from typing_extensions import TypeVar

from aha.compute import ComputeConfig
from aha.configuration import Config
from aha.errors import ConfigError
from aha.files import derive_seed
from aha.models.placement import Placement, placement
from aha.runs import JsonlLog, RunFolder, StageLogs
from aha.training.checkpointer import Checkpointer
from aha.training.distributed import Distributed
from aha.training.parallel import ParallelConfig
from aha.training.progress import Progress

MODEL = "model"
"""The folder, below a stage's, that holds the model it made, in Hugging Face layout."""


@dataclass(frozen=True)
class StageResult:
    """What a stage has to say when it is done. A function of configuration and seed: no times, no memory."""

    summary: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able results for `summary.json`."""
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Results about other stages, by name, such as the accuracy of their models: added to their rows of the summary."""
    tokens_trained: int = 0


C = TypeVar("C", bound=Config, default=Config, covariant=True)
"""The class of a stage's configuration."""


@dataclass(frozen=True)
class StageContext(Generic[C]):
    """All that a stage gets from the run around it."""

    run: RunFolder
    name: str
    folder: Path
    """The stage's own folder; it exists."""
    config: C
    seed: int
    """The run's seed. Derive others from it: `context.derive_seed("shuffle", epoch)`."""
    distributed: Distributed
    checkpointer: Checkpointer
    logs: StageLogs
    progress: Progress
    parents: tuple[str, ...] = ()
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """How the model that a stage trains is spread over the processes."""
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """In what numbers its models compute."""

    @property
    def metrics(self) -> JsonlLog:
        """For rows that are a function of configuration and seed. Other ranks' rows are discarded."""
        return self.logs.metrics

    @property
    def timings(self) -> JsonlLog:
        """For wall-clock figures, which differ between runs."""
        return self.logs.timings

    @property
    def rollouts(self) -> JsonlLog:
        """For sampled completions."""
        return self.logs.rollouts

    @property
    def model_folder(self) -> Path:
        """Where the stage puts the model that it makes."""
        return self.folder / MODEL

    @property
    def placement(self) -> Placement:
        """Device and type of the stage's models, for `load_pretrained`."""
        return placement(self.compute, self.distributed.device)

    def derive_seed(self, *parts: int | str) -> int:
        """A seed from the run's seed, the stage's name and the parts."""
        return derive_seed(self.seed, self.name, *parts)

    def parent_folder(self, name: str) -> Path:
        """The folder of a parent stage.

        Raises:
            ConfigError: the recipe does not name it as a parent, so that its changes would go unnoticed.
        """
        if name not in self.parents:
            raise ConfigError(f"stage {self.name!r} reads from {name!r}, which is not among its parents {self.parents}")
        return self.run.stage_folder(name)

    def parent_model_folder(self, name: str | None = None) -> Path:
        """The model that a parent stage made; with no name, the first parent's."""
        if name is None and not self.parents:
            raise ConfigError(f"stage {self.name!r} needs a parent's model but the recipe gives it no parent")
        return self.parent_folder(name if name is not None else self.parents[0]) / MODEL


class Stage(Protocol):
    """One act of training (or of anything that turns folders into a folder)."""

    kind: ClassVar[str]

    def run(self, context: StageContext[Any]) -> StageResult:
        """Does the work, or the rest of it after an interruption. Called in every process."""
        ...
