"""Durable files, hashes, and seeds."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aha.errors import RunFolderError
from aha.files import (
    atomic,
    canonical_json,
    clear_unfinished,
    derive_seed,
    file_sha256,
    fingerprint,
    read_json,
    write_atomic,
    write_json,
)


def test_equal_values_have_one_text_and_one_hash() -> None:
    assert canonical_json({"b": [1, 2.5], "a": "三"}) == '{"a":"三","b":[1,2.5]}'
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_derived_seeds_depend_on_every_part_and_on_nothing_else() -> None:
    seeds = {
        derive_seed(0, "a"),
        derive_seed(1, "a"),
        derive_seed(0, "b"),
        derive_seed(0, "a", 0),
        derive_seed("0", "a"),
    }
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "pretrain", 12) == 7143034635359764343


def test_atomic_makes_folders_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt), atomic(folder) as temporary:
        temporary.mkdir()
        (temporary / "half").write_text("x")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with atomic(folder) as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "file").write_text("x")
        assert not folder.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"] and (folder / "inner" / "file").read_text() == "x"


def test_write_atomic_replaces_whole_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": [1], "语": None})
    write_json(path, {"x": [2]})
    assert read_json(path) == {"x": [2]}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert len(file_sha256(path)) == 64


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    living, other = f".lineage.json.tmp-{os.getpid()}", ".hidden"
    for name in (f".lineage.json.tmp-{ended.pid}", living, other, "lineage.json"):
        (tmp_path / name).write_text("{")
    clear_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living, other, "lineage.json"])


def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match="the disk is full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_unreadable_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(RunFolderError, match=r"a\.json.*No such file"):
        read_json(path)
    path.write_text("{")
    with pytest.raises(RunFolderError, match=r"a\.json.*damaged"):
        read_json(path)
