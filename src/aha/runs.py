"""A run folder: where a run keeps everything, how it is locked, logged, and read again. No torch here.

    runs/r1-zero-tiny-seed0/
        config.yaml         the resolved configuration; `aha run config.yaml` re-runs it
        environment.json    versions, git commit, machine, number of processes: what is not configuration
        lineage.json        which stage was fed by which
        metrics.jsonl       one row per logged step: a function of configuration and seed alone
        timings.jsonl       the wall-clock figures of the same steps, which differ from run to run
        rollouts.jsonl      sampled completions with their rewards
        summary.json        the results in short
        <stage>/            stage.json, done.json, cost.json, model/, the stage's logs, checkpoints/ while it runs

Each row of a log starts with its stage.

A run may be killed at any moment. The logs of a stage live in its folder and are mirrored into the run's; a
checkpoint records how long they were, and a resumed stage cuts them back to that, so that the finished files are
those of a run that was never interrupted.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from aha.environment import environment
from aha.errors import RunFolderError
from aha.files import atomic, cannot_write, is_alive, read_json, write_atomic, write_json

LOGS = ("metrics", "timings", "rollouts")
"""The append-only logs of a stage and of a run."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MARKER = "config.yaml"
_LOCK = ".lock"


class JsonlLog:
    """An append-only file of JSON rows, optionally mirrored into a second file.

    Every row is written with one system call, so a killed process leaves whole rows (a full disk may leave a part of
    one, which readers skip and the next resume cuts off). Numbers that JSON cannot say (NaN, infinities) become null.
    """

    def __init__(self, path: Path | None, mirror: Path | None = None, prefix: Mapping[str, Any] | None = None) -> None:
        """Opens the log.

        Args:
            path: the file; None discards every row (for all ranks but the first).
            mirror: a second file that gets the same rows.
            prefix: keys that start every row, such as the stage.
        """
        self.path = path
        self._prefix = dict(prefix or {})
        self.observers: list[Callable[[Mapping[str, Any]], None]] = []
        """Called with every row that is written."""
        self._descriptors = [_open_append(p) for p in (path, mirror) if p is not None and path is not None]

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends one row.

        Raises:
            RunFolderError: the disk is full, or the file cannot be written.
        """
        if not self._descriptors or self.path is None:
            return
        line = (json.dumps(_finite({**self._prefix, **row}), ensure_ascii=False, allow_nan=False) + "\n").encode()
        for descriptor in self._descriptors:
            try:
                written = os.write(descriptor, line)
            except OSError as error:
                raise RunFolderError(cannot_write(self.path, error)) from error
            if written != len(line):
                raise RunFolderError(
                    f"cannot write {str(self.path)!r}: the disk is full; free some space and run again"
                )

        for observer in self.observers:
            observer(row)

    def lock(self) -> None:
        """Keeps other processes from locking the log until it is closed.

        Raises:
            RunFolderError: another process has locked it.
        """
        try:
            fcntl.flock(self._descriptors[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunFolderError(
                f"{str(self.path)!r} is in use by another process: wait for it, or choose another --out"
            ) from error

    def sync(self) -> int:
        """Flushes the log to the disk and returns its length in bytes, to be kept in a checkpoint."""
        if not self._descriptors:
            return 0
        os.fsync(self._descriptors[0])
        return os.fstat(self._descriptors[0]).st_size

    def close(self) -> None:
        """Closes the files. Rows written later are lost without notice, so close last."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []


def _open_append(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise RunFolderError(cannot_write(path, error)) from error


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a log; none where there is no file. A last line that lacks its end is skipped.

    Raises:
        RunFolderError: a complete line is not JSON.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise RunFolderError(f"{str(path)!r}, line {number}: damaged, not JSON") from error


class RunFolder:
    """The folder of one run: paths, the lock, the logs, and readers for the report."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Opens an existing run for reading.

        Raises:
            RunFolderError: the path is not a run folder.
        """
        if not (path / _MARKER).is_file():
            raise RunFolderError(f"{str(path)!r} is not a run folder: expected {_MARKER} in it, as `aha run` writes it")
        return cls(path)

    @classmethod
    def prepare(cls, path: Path, fresh: bool = False) -> RunFolder:
        """Creates a run folder or takes up an existing one, and locks it.

        Args:
            path: the folder. It may be missing, empty, or a run.
            fresh: delete what an earlier run left in it.

        Raises:
            RunFolderError: another process uses the folder, it holds something other than a run, or it cannot be
                written.
        """
        folder = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(cannot_write(path, error)) from error
        foreign = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
        if foreign and not (path / _MARKER).is_file():
            raise RunFolderError(
                f"{str(path)!r} is not a run folder but holds {foreign[0]!r}; choose another folder with --out"
            )
        folder.acquire()
        if fresh:
            folder.delete_contents()
        return folder

    def acquire(self, patience_seconds: float = 10.0) -> None:
        """Locks the folder until this process, and every process that inherits `lock_descriptor`, has ended.

        A folder whose owner is alive is refused at once. Where the owner died just now and only its workers, which
        end by themselves, still hold the lock, this waits for them.

        Raises:
            RunFolderError: the folder is in use, or the lock cannot be written.
        """
        if self._lock is not None:
            return
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunFolderError(cannot_write(self.path / _LOCK, error)) from error
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                if is_alive(owner) or time.monotonic() > deadline:
                    os.close(descriptor)
                    raise RunFolderError(
                        f"folder {str(self.path)!r} is in use by process {owner or 'unknown'}; "
                        "wait for it, stop it, or choose another folder with --out"
                    ) from error
                time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def in_use(self) -> bool:
        """Whether some process holds the lock. To know that, it is taken for a moment, beside others who ask."""
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    @property
    def lock_descriptor(self) -> int | None:
        """The open lock file, for worker processes to inherit; None where this process holds no lock."""
        return self._lock

    def release(self) -> None:
        """Gives the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def delete_contents(self) -> None:
        """Deletes all that is in the folder, except the lock. What makes it a run folder goes last."""
        entries = [entry for entry in self.path.iterdir() if entry.name != _LOCK]
        for entry in sorted(entries, key=lambda entry: entry.name == _MARKER):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def stage_folder(self, name: str) -> Path:
        """The folder of a stage (which may not exist yet).

        Raises:
            RunFolderError: the name could not be a plain folder name.
        """
        if not _NAME.fullmatch(name):
            raise RunFolderError(
                f"stage name {name!r}: expected letters, digits, '.', '_' and '-', not starting with a dot"
            )
        return self.path / name

    def write_config(self, text: str) -> None:
        """Writes `config.yaml`."""
        write_atomic(self.path / _MARKER, text)

    def assemble_logs(self, stages: Iterable[str]) -> None:
        """Rebuilds the run's logs from those of the given stages, in that order."""
        names = list(stages)
        for log in LOGS:
            with atomic(self.path / f"{log}.jsonl") as temporary, temporary.open("wb") as out:
                for name in names:
                    part = self.stage_folder(name) / f"{log}.jsonl"
                    if part.exists():
                        with part.open("rb") as source:
                            shutil.copyfileobj(source, out)

    def logs(self, stage: str, enabled: bool = True) -> StageLogs:
        """A stage's logs, not yet open; each row starts with the stage's name. Not enabled, they discard rows."""
        return StageLogs(self, stage, enabled)

    def write_environment(self, processes: int, device: str) -> None:
        """Writes `environment.json`: versions, git commit, machine, processes; everything that is not configuration."""
        write_json(self.path / "environment.json", {**environment(), "processes": processes, "device": device})

    def config(self) -> dict[str, Any]:
        """The resolved configuration, as plain data."""
        text = (self.path / _MARKER).read_text(encoding="utf-8")
        data: dict[str, Any] = yaml.safe_load(text)
        return data

    def rows(self, log: str, stage: str | None = None) -> Iterator[dict[str, Any]]:
        """The rows of a log ("metrics", "timings", "rollouts"), of one stage or of all."""
        path = self.path if stage is None else self.stage_folder(stage)
        return read_jsonl(path / f"{log}.jsonl")

    def metrics(self, stage: str | None = None) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`, of one stage or of all."""
        return list(self.rows("metrics", stage))

    def json(self, name: str) -> Any:
        """The content of a JSON file of the run ("summary", "lineage", "environment"), or None before it is written."""
        path = self.path / f"{name}.json"
        return read_json(path) if path.exists() else None


class StageLogs:
    """The three logs of one stage, mirrored into the run's."""

    def __init__(self, run: RunFolder, stage: str, enabled: bool = True) -> None:
        self._run = run
        self._stage = stage
        self._enabled = enabled
        self.metrics = self.timings = self.rollouts = JsonlLog(None)

    def open(self) -> None:
        """Opens the files, after they were cut back to a checkpoint. Until then rows are discarded."""
        if self._enabled:
            self.metrics, self.timings, self.rollouts = (self._log(name) for name in LOGS)

    def _log(self, name: str) -> JsonlLog:
        file = f"{name}.jsonl"
        return JsonlLog(self._run.stage_folder(self._stage) / file, self._run.path / file, {"stage": self._stage})

    def sync(self) -> dict[str, int]:
        """Flushes the logs and returns their lengths in bytes."""
        return {name: getattr(self, name).sync() for name in LOGS}

    def close(self) -> None:
        """Closes the logs."""
        for name in LOGS:
            getattr(self, name).close()


def cut_logs(folder: Path, lengths: Mapping[str, int]) -> None:
    """Cuts a stage's logs back to the lengths that a checkpoint recorded (0 where it recorded none).

    Raises:
        RunFolderError: a log is shorter than recorded, so that rows are lost for good.
    """
    for log in LOGS:
        path, length = folder / f"{log}.jsonl", lengths.get(log, 0)
        size = path.stat().st_size if path.exists() else 0
        if size < length:
            raise RunFolderError(
                f"{str(path)!r} has {size} bytes but the checkpoint was made at {length}: rows are lost; "
                "restore the file, or start anew with --fresh"
            )
        if size > length:
            os.truncate(path, length)
