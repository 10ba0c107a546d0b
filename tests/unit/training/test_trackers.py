"""Copies of the metrics elsewhere: the same numbers under the same names, and what is missing is said at once."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aha.errors import ConfigError
from aha.training.trackers import need_trackers, open_tracker

ROW = {"step": 7, "loss": 1.5, "expert_load": [[1, 2]], "rewards/accuracy/mean": 0.25}


def test_tensorboard_gets_the_numbers_of_every_stage(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: install the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = open_tracker("tensorboard", tmp_path, {})
    tracker.log("r1-zero", ROW)
    tracker.log("r1-zero", {"step": 8, "loss": 1.0})
    tracker.close()
    again = open_tracker("tensorboard", tmp_path, {})
    again.log("r1-zero", {"step": 8, "loss": 0.5})
    again.close()
    events = EventAccumulator(str(tmp_path / "tensorboard" / "r1-zero")).Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "rewards/accuracy/mean"}
    assert [(one.step, one.value) for one in events.Scalars("loss")] == [(7, 1.5), (8, 0.5)], "a resumed step replaces"


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_hosted_trackers_get_the_numbers_with_the_stage_in_front(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []
    run = SimpleNamespace(log=said.append, finish=lambda: said.append("finished"))
    module = SimpleNamespace(init=lambda **settings: said.append(settings) or run)
    monkeypatch.setitem(sys.modules, name, module)
    assert importlib.import_module(name) is module
    tracker = open_tracker(name, tmp_path / "my-run", {"seed": 3})
    tracker.log("sft", ROW)
    tracker.close()
    assert said[0] == {"project": "aha", "name": "my-run", "config": {"seed": 3}, "resume": "allow"}
    assert said[1:] == [{"sft/loss": 1.5, "sft/rewards/accuracy/mean": 0.25, "sft/step": 7}, "finished"]


def test_a_missing_package_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--log-to wandb: its package is not installed: .*install .*\[wandb\]"):
        need_trackers(["wandb"])
