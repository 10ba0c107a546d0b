"""When checkpoints are due, and what they carry beside the loop's state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aha.errors import RunFolderError
from aha.runs import RunFolder
from aha.training.checkpointer import Checkpointer
from aha.training.distributed import Distributed
from aha.training.interrupts import StopFlag, StopRequested


def test_due_after_the_interval_and_when_asked_to_stop(tmp_path: Path) -> None:
    stop = StopFlag()
    rare = Checkpointer(tmp_path, "id", Distributed(), stop=stop, interval_seconds=3600)
    assert not rare.due()
    assert Checkpointer(tmp_path, "id", Distributed(), interval_seconds=0).due()
    stop.signum = 2
    assert rare.due()
    with pytest.raises(StopRequested, match="SIGINT"):
        rare.save(5, {}, {})
    assert Checkpointer(tmp_path, "id", Distributed()).find() == 5


def test_state_of_all_ranks_and_log_lengths_come_back(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    folder = run.stage_folder("a")
    folder.mkdir()
    logs = run.logs("a")
    logs.open()
    first = Checkpointer(folder, "id", Distributed(), logs)
    assert first.find() is None
    assert first.load() is None
    logs.metrics.write({"step": 1})
    first.save(1, {"w": torch.ones(2)}, {"cursor": 3}, rank_state={"rng": [1, 2]})
    length = (folder / "metrics.jsonl").stat().st_size
    logs.metrics.write({"step": 2})
    logs.close()

    second = Checkpointer(folder, "id", Distributed())
    assert second.find() == 1
    assert (folder / "metrics.jsonl").stat().st_size == length
    saved = second.load()
    assert saved is not None
    assert (saved.step, saved.state, saved.rank_state) == (1, {"cursor": 3}, {"rng": [1, 2]})
    assert saved.tensors["w"].tolist() == [1.0, 1.0]
    assert second.seconds >= second.seconds_before > 0
    assert second.load() is None

    more_ranks = Checkpointer(folder, "id", Distributed())
    more_ranks._distributed.world_size = 1
    assert Checkpointer(folder, "other", Distributed()).find() is None
    (folder / "metrics.jsonl").write_text("x")
    third = Checkpointer(folder, "id", Distributed())
    (folder / "metrics.jsonl").write_text("")
    with pytest.raises(RunFolderError, match="rows are lost"):
        third.find()
