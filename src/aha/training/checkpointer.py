"""When to write a checkpoint, and what belongs to one beside the loop's own state: log lengths and time spent.

A training loop uses it like this, on every rank:

    saved = checkpointer.load()
    if saved: ...                               # restore from saved.tensors, saved.state, saved.rank_state
    for step in range(saved.step if saved else 0, steps):
        ...
        if checkpointer.due():
            checkpointer.save(step + 1, tensors, state, rank_state)

`due` asks all ranks, so all save at the same step; where the run was asked to stop, `save` ends by raising
`StopRequested`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from aha.runs import StageLogs, cut_logs
from aha.training import checkpoint
from aha.training.distributed import Distributed
from aha.training.interrupts import StopFlag, StopRequested


@dataclass(frozen=True)
class Saved:
    """A loaded checkpoint as a rank sees it."""

    step: int
    tensors: Mapping[str, Tensor]
    state: dict[str, Any]
    rank_state: Any
    """What this rank passed to `save`; None where it was saved with another number of processes."""


class Checkpointer:
    """Writes and finds the checkpoints of one stage. Every method must be called by all ranks."""

    def __init__(
        self,
        folder: Path,
        identity: str,
        distributed: Distributed,
        logs: StageLogs | None = None,
        stop: StopFlag | None = None,
        interval_seconds: float = 60.0,
        keep: int = 2,
        say: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Prepares; nothing is read or written yet.

        Args:
            folder: the stage's folder; checkpoints go to `checkpoints/` in it.
            identity: of the stage.
            distributed: this process's place.
            logs: flushed at every checkpoint; `find` cuts them back to it before they are opened.
            stop: set by signals; None never stops.
            interval_seconds: a checkpoint is due this long after the last; 0 makes one due at every step.
            keep: how many to keep.
            say: told about damaged checkpoints, on rank 0.
        """
        self.folder = folder
        self.identity = identity
        self.seconds_before = 0.0
        self._distributed = distributed
        self._logs = logs
        self._stop = stop or StopFlag()
        self._interval = interval_seconds
        self._keep = keep
        self._say = say
        self._started = self._last = time.monotonic()
        self._agreed_stop = 0
        self._loaded: Saved | None = None

    @property
    def seconds(self) -> float:
        """Time spent on the stage so far, including what interrupted processes did before their last checkpoint."""
        return self.seconds_before + time.monotonic() - self._started

    def find(self) -> int | None:
        """Looks for the newest good checkpoint and cuts the logs back to it; `load` then returns it.

        The pipeline calls this before it opens the logs. Returns the checkpoint's step.
        """
        folder = self.folder / "checkpoints"
        found = checkpoint.load_latest(folder, self.identity, self._say) if self._distributed.is_first else None
        step = self._distributed.broadcast_object(found.step if found else None)
        if self._distributed.is_first:
            cut_logs(self.folder, found.state["logs"] if found else {})
        elif step is not None:
            found = checkpoint.load(folder / f"step-{step:08d}", self.identity)
        if found is None:
            return None
        ranks = found.state["ranks"]
        own = ranks[self._distributed.rank] if len(ranks) == self._distributed.world_size else None
        self.seconds_before = found.state["seconds"]
        self._loaded = Saved(found.step, found.tensors, found.state["state"], own)
        return found.step

    def load(self) -> Saved | None:
        """The checkpoint to go on from, or None at the start of a stage. Hands it over: a second call returns None."""
        loaded, self._loaded = self._loaded, None
        return loaded

    def due(self) -> bool:
        """Whether to save now: the interval is over (by rank 0's clock), or some rank was asked to stop."""
        late = self._distributed.is_first and time.monotonic() - self._last >= self._interval
        is_late, self._agreed_stop = self._distributed.max([int(late), self._stop.signum])
        if self._agreed_stop:
            self._stop.busy = True
        return bool(is_late or self._agreed_stop)

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], rank_state: Any = None) -> None:
        """Saves all that the loop needs to go on after `step` steps.

        Args:
            step: how many steps are done.
            tensors: the same on all ranks, and rank 0's are written, or spread over them, and each writes its rows.
            state: JSON-able and the same on all ranks.
            rank_state: JSON-able, this rank's own.

        Raises:
            CheckpointError: it could not be written; earlier checkpoints are intact.
            StopRequested: the run was asked to stop, and this checkpoint is safe.
        """
        self._stop.busy = True
        ranks = self._distributed.all_gather_object(rank_state)
        content = {
            "state": dict(state),
            "ranks": ranks,
            "logs": self._logs.sync() if self._logs and self._distributed.is_first else {},
            "seconds": self.seconds,
        }
        folder = self.folder / "checkpoints"
        checkpoint.save(folder, step, tensors, content, self.identity, self._keep, self._distributed)
        self._last = time.monotonic()
        if self._agreed_stop:
            raise StopRequested(self._agreed_stop)
        self._stop.busy = False
