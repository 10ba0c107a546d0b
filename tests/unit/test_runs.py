"""Run folders: the lock, the logs, and what may be deleted."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aha.environment import environment
from aha.errors import RunFolderError
from aha.runs import JsonlLog, RunFolder, cut_logs, read_jsonl


def make_run(path: Path) -> RunFolder:
    folder = RunFolder.prepare(path)
    folder.write_config("recipe: x\n")
    return folder


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_logs_are_mirrored_with_their_stage(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run.path / "a").mkdir()
    logs = run.logs("a")
    logs.metrics.write({"lost": "before open"})
    logs.open()
    logs.metrics.write({"step": 1, "loss": float("nan"), "bounds": [1.0, float("inf")], "语": "想"})
    logs.timings.write({"step": 1, "seconds": 0.5})
    assert logs.sync() == {
        "metrics": (run.path / "a" / "metrics.jsonl").stat().st_size,
        "timings": (run.path / "a" / "timings.jsonl").stat().st_size,
        "rollouts": 0,
    }
    logs.close()
    expected = [{"stage": "a", "step": 1, "loss": None, "bounds": [1.0, None], "语": "想"}]
    assert lines(run.path / "a" / "metrics.jsonl") == lines(run.path / "metrics.jsonl") == expected
    assert run.metrics() == run.metrics("a") == expected


def test_logs_that_are_not_enabled_touch_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    logs = run.logs("a", enabled=False)
    logs.open()
    logs.metrics.write({"step": 1})
    assert logs.sync() == {"metrics": 0, "timings": 0, "rollouts": 0}
    assert not (run.path / "a").exists()


def test_cutting_back_gives_the_bytes_of_an_uninterrupted_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for stage in ("a", "b"):
        (run.path / stage).mkdir()
        logs = run.logs(stage)
        logs.open()
        logs.metrics.write({"step": 1})
        lengths = logs.sync()
        logs.close()
    before = (run.path / "metrics.jsonl").read_bytes()
    logs = run.logs("b")
    logs.open()
    logs.metrics.write({"step": 2})
    logs.rollouts.write({"step": 2})
    logs.close()
    cut_logs(run.path / "b", lengths)
    run.assemble_logs(["a", "b"])
    assert (run.path / "metrics.jsonl").read_bytes() == before
    assert (run.path / "rollouts.jsonl").read_bytes() == b""
    with pytest.raises(RunFolderError, match="rows are lost"):
        cut_logs(run.path / "b", {"metrics": 10_000})


def test_readers_skip_a_row_being_written_and_name_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert list(read_jsonl(path)) == []
    path.write_text('{"a": 1}\n{"a": 2')
    assert list(read_jsonl(path)) == [{"a": 1}]
    path.write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(RunFolderError, match="line 2: damaged"):
        list(read_jsonl(path))


def test_a_full_disk_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = JsonlLog(tmp_path / "log.jsonl")

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RunFolderError, match=r"log\.jsonl.*the disk is full; free some space"):
        log.write({"a": 1})
    monkeypatch.setattr(os, "write", lambda descriptor, data: len(data) - 1)
    with pytest.raises(RunFolderError, match="the disk is full"):
        log.write({"a": 1})


def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    for fresh in (False, True):
        with pytest.raises(RunFolderError, match=r"not a run folder but holds 'thesis\.tex'"):
            RunFolder.prepare(tmp_path, fresh)
    assert (tmp_path / "thesis.tex").exists()
    with pytest.raises(RunFolderError, match="is not a run folder: expected config"):
        RunFolder.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="cannot write"):
        RunFolder.prepare(tmp_path / "file" / "run")


def test_fresh_deletes_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run.path / "a").mkdir()
    (run.path / "a" / "x").write_text("x")
    run.release()
    again = RunFolder.prepare(run.path, fresh=True)
    assert [entry.name for entry in run.path.iterdir()] == [".lock"]
    again.release()


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b", "/etc"])
def test_stage_names_are_plain(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunFolderError, match="stage name"):
        RunFolder(tmp_path).stage_folder(name)


HOLDER = """
import sys, time
from pathlib import Path
from aha.runs import RunFolder
folder = RunFolder.prepare(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(60)
"""


def test_a_folder_in_use_is_refused_at_once_and_free_when_its_owner_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(RunFolderError, match=f"in use by process {holder.pid}"):
            RunFolder.prepare(tmp_path)
    finally:
        holder.kill()
        holder.communicate()
    RunFolder.prepare(tmp_path).release()


def test_the_lock_waits_for_orphans_of_a_dead_owner(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; from pathlib import Path; from aha.runs import RunFolder\n"
        "f = RunFolder.prepare(Path(sys.argv[1]))\n"
        "subprocess.Popen(['sleep', '0.5'], pass_fds=[f.lock_descriptor])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    RunFolder.prepare(tmp_path).release()


def test_the_environment_names_versions_and_machine() -> None:
    found = environment()
    assert found["versions"]["torch"]
    assert found["machine"]["cores"] >= 1
    json.dumps(found)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_is_said_in_one_line() -> None:
    log = JsonlLog(Path("/dev/full"))
    with pytest.raises(RunFolderError, match="the disk is full"):
        log.write({"a": 1})
    log.close()
