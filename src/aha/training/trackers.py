"""Copies of metrics.jsonl, under the same names, where people look: TensorBoard, trackio, Weights & Biases."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from aha.environment import install_command
from aha.errors import ConfigError

TrackerName = Literal["tensorboard", "trackio", "wandb"]


class Tracker(Protocol):
    """Takes the rows of one run's stages."""

    def log(self, stage: str, row: Mapping[str, Any]) -> None:
        """Copies the numbers of a row; lists and texts stay in metrics.jsonl alone."""
        ...

    def close(self) -> None:
        """Sends what is left."""
        ...


def need_trackers(names: Iterable[TrackerName]) -> None:
    """Refuses at once what could not be logged to later.

    Raises:
        ConfigError: a tracker's package is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"--log-to {name}: its package is not installed: {install_command(name)}")


def open_tracker(name: TrackerName, folder: Path, settings: Mapping[str, Any]) -> Tracker:
    """Opens a tracker for a run.

    Args:
        name: which.
        folder: the run folder; TensorBoard's files go to `tensorboard` in it, and its name is the run's elsewhere.
        settings: the configuration, shown beside the curves.
    """
    return (
        TensorBoard(folder / "tensorboard") if name == "tensorboard" else Hosted(name, folder.resolve().name, settings)
    )


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if isinstance(value, int | float) and name != "step"}


class TensorBoard:
    """One TensorBoard run for each stage; `tensorboard --logdir RUN/tensorboard` shows them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def log(self, stage: str, row: Mapping[str, Any]) -> None:
        """Copies a row. What a resumed stage logs again replaces what it had logged from there on."""
        if stage not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            self._writers[stage] = SummaryWriter(str(self._folder / stage), purge_step=row["step"])
        for name, value in _numbers(row).items():
            self._writers[stage].add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Writes what is left."""
        for writer in self._writers.values():
            writer.close()


class Hosted:
    """trackio or Weights & Biases, which have the same interface; names begin with the stage."""

    def __init__(self, package: TrackerName, run: str, settings: Mapping[str, Any]) -> None:
        module = importlib.import_module(package)
        self._run = module.init(project="aha", name=run, config=dict(settings), resume="allow")

    def log(self, stage: str, row: Mapping[str, Any]) -> None:
        """Copies a row; the stage's own step is among the numbers."""
        numbers = {f"{stage}/{name}": value for name, value in _numbers(row).items()}
        self._run.log({**numbers, f"{stage}/step": row["step"]})

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()
