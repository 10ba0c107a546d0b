"""Checkpoints: whole or absent, every damage found, nothing lost on a full disk or a kill at any file operation."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aha.errors import CheckpointError
from aha.training import checkpoint

IDENTITY = "i" * 64
FILES = (checkpoint.TENSORS, checkpoint.STATE, checkpoint.MANIFEST)


def content(step: int) -> tuple[dict[str, torch.Tensor], dict]:
    generator = torch.Generator().manual_seed(step)
    tensors = {
        "a": torch.randn(4, 3, generator=generator),
        "b": torch.randn(4, 3, generator=generator),
        "count": torch.tensor(step),
        "half": torch.randn(5, generator=generator).to(torch.bfloat16),
        "none": torch.empty(0, 2),
    }
    return tensors, {"step": step, "text": "想", "nested": [1, None, {"x": 0.1}]}


def save(folder: Path, step: int, keep: int = 2) -> None:
    tensors, state = content(step)
    checkpoint.save(folder, step, tensors, state, IDENTITY, keep)


def assert_loads(folder: Path, step: int | None) -> list[str]:
    said: list[str] = []
    found = checkpoint.load_latest(folder, IDENTITY, said.append)
    if step is None:
        assert found is None
        return said
    assert found is not None
    tensors, state = content(step)
    assert found.step == step
    assert found.state == state
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
    return said


def test_the_newest_is_loaded_and_the_oldest_deleted(tmp_path: Path) -> None:
    assert assert_loads(tmp_path / "none", None) == []
    for step in (1, 2, 10):
        save(tmp_path, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000010"]
    assert assert_loads(tmp_path, 10) == []


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    save(tmp_path / "x", 3)
    save(tmp_path / "y", 3)
    for name in FILES:
        assert (tmp_path / "x/step-00000003" / name).read_bytes() == (tmp_path / "y/step-00000003" / name).read_bytes()


def test_tensors_that_share_memory_or_are_views_are_stored_by_value(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"base": base, "tied": base, "row": base[1], "transposed": base.T, "parameter": torch.nn.Parameter(base)}
    checkpoint.save(tmp_path, 1, tensors, {}, IDENTITY)
    found = checkpoint.load_latest(tmp_path, IDENTITY)
    assert found is not None
    for name, tensor in tensors.items():
        assert torch.equal(found.tensors[name], tensor.detach())


def test_another_identity_is_passed_over_and_kept(tmp_path: Path) -> None:
    save(tmp_path, 1)
    said: list[str] = []
    assert checkpoint.load_latest(tmp_path, "other", said.append) is None
    assert "another configuration" in said[0]
    assert assert_loads(tmp_path, 1) == []


def flip_bit(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def append(path: Path, rng: random.Random) -> None:
    with path.open("ab") as file:
        file.write(bytes([rng.randrange(256)]))


def from_the_step_before(path: Path, rng: random.Random) -> None:
    shutil.copy(path.parent.parent / "step-00000001" / path.name, path)


def swap_two_tensors(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    if path.name == checkpoint.TENSORS:  # the same names, shapes and header; only the values of a and b change places
        path.write_bytes(data.replace(b'"a":', b'"?":').replace(b'"b":', b'"a":').replace(b'"?":', b'"b":'))
    else:
        path.write_bytes(data.replace(b"1", b"3"))


DAMAGES: list[Callable[[Path, random.Random], None]] = [
    flip_bit,
    truncate,
    append,
    from_the_step_before,
    swap_two_tensors,
    lambda path, rng: path.unlink(),
    lambda path, rng: path.write_bytes(b""),
    lambda path, rng: path.write_bytes(b"{}"),
    lambda path, rng: (path.unlink(), path.mkdir())[0],
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", range(len(DAMAGES)))
def test_every_damage_is_found_and_the_one_before_is_used(tmp_path: Path, name: str, damage: int) -> None:
    for seed in range(20 if damage < 2 else 1):
        folder = tmp_path / str(seed)
        save(folder, 1)
        save(folder, 2)
        DAMAGES[damage](folder / "step-00000002" / name, random.Random(seed))
        said = assert_loads(folder, 1)
        assert len(said) == 1
        assert "step-00000002" in said[0]
        assert "damaged" in said[0]
        assert (folder / "step-00000002.bad").is_dir()
        save(folder, 2)
        assert assert_loads(folder, 2) == []


def test_all_damaged_means_none(tmp_path: Path) -> None:
    for _ in range(2):
        save(tmp_path, 1)
        save(tmp_path, 2)
        for step in (1, 2):
            flip_bit(tmp_path / f"step-0000000{step}" / checkpoint.TENSORS, random.Random(step))
        assert len(assert_loads(tmp_path, None)) == 2
    assert len(list(tmp_path.glob("*.bad*"))) == 4


def test_a_renamed_checkpoint_is_damaged(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-00000001").rename(tmp_path / "step-00000007")
    assert "its manifest is for step 1" in assert_loads(tmp_path, None)[0]


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    save(tmp_path, 1)
    flip_bit(tmp_path / "step-00000001" / checkpoint.STATE, random.Random(0))
    save(tmp_path, 1)
    assert assert_loads(tmp_path, 1) == []


def test_rubbish_of_a_killed_process_is_cleared(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for name in (".tmp-00000002-999", ".tmp-delete-step-00000000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / checkpoint.TENSORS).write_bytes(b"half")
    assert assert_loads(tmp_path, 1) == []
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"checkpoint at step 1 not saved: cannot write .*earlier checkpoints"):
        save(tmp_path / "file", 1)


# Kills and full disks at every file operation of a save, in a child process that was forked for it.


def in_child(work: Callable[[], int]) -> int:
    """The exit code of a forked child that does the work."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def on_operation(number: int, act: Callable[[], None], only_writes: bool = False) -> None:
    """Calls `act` before file operation `number` (and, where it returns, before all later ones) of this process."""
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen >= number:
            act()

    def hook(event: str, arguments: tuple) -> None:
        changes = event in ("os.mkdir", "os.rename", "os.truncate") or (event == "open" and arguments[2] & os.O_WRONLY)
        removes = event in ("os.remove", "os.rmdir", "open", "os.listdir", "os.scandir")
        if changes or (removes and not only_writes):
            count()

    sync = os.fsync

    def fsync(descriptor: int) -> None:
        count()
        sync(descriptor)

    os.fsync = fsync
    sys.addaudithook(hook)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_file_operation_of_a_save_loses_nothing(tmp_path: Path) -> None:
    finished = 0
    for number in range(1, 200):
        folder = tmp_path / str(number)
        for step in (1, 2):
            save(folder, step)

        def work(number: int = number, folder: Path = folder) -> int:
            on_operation(number, lambda: os._exit(9))
            save(folder, 3)
            return 0

        code = in_child(work)
        assert code in (0, 9)
        newest = 3 if (folder / "step-00000003").exists() else 2
        assert code == 9 or newest == 3
        assert assert_loads(folder, newest) == []
        save(folder, 4)
        assert sorted(p.name for p in folder.iterdir()) == [f"step-0000000{newest}", "step-00000004"]
        finished += code == 0
        if finished == 2:
            break
    assert finished == 2, "more operations than were tried"
    assert number > 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_disk_that_is_full_from_any_operation_on_leaves_the_last_good_one(tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for number in range(1, 100):
        folder = tmp_path / str(number)
        save(folder, 1)

        def work(number: int = number, folder: Path = folder) -> int:
            on_operation(number, full, only_writes=True)
            try:
                save(folder, 2)
            except CheckpointError as error:
                told = "the disk is full" in str(error) and "earlier checkpoints are intact" in str(error)
                return 3 if told else 4
            return 0

        code = in_child(work)
        assert code in (0, 3), code
        newest = 2 if (folder / "step-00000002").exists() else 1
        assert assert_loads(folder, newest) == []
        if code == 0:
            break
    assert 5 < number < 99
