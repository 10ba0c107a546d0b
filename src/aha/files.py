"""Files that survive a crash: whole or absent, never half written; and the hashes that prove it.

Every file that a later step relies on is written to a temporary name, flushed to the disk, and renamed into place;
the folder is flushed after that. A reader therefore sees the old content or the new, whatever moment the machine
stopped at.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from aha.errors import ConfigError, RunFolderError

_BLOCK = 1 << 20
_TEMPORARY = ".tmp-"
"""In the name of what `atomic` is writing; the process's number follows."""


def canonical_json(value: Any) -> str:
    """The one text of a JSON value: sorted keys, no spaces, so that equal values give equal bytes and hashes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def fingerprint(value: Any) -> str:
    """SHA-256, in hexadecimal, of a JSON value's canonical text."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) that is a function of its parts alone, such as (run seed, stage, step, sample).

    Randomness made this way needs no saving: a resumed run, or one with another number of processes, draws the same
    numbers.

    >>> derive_seed(0, "pretrain", 12) == derive_seed(0, "pretrain", 12) != derive_seed(0, "pretrain", 13)
    True
    """
    return int.from_bytes(hashlib.sha256(canonical_json(list(parts)).encode()).digest()[:8], "big") >> 1


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sync_file(path: Path) -> None:
    """Flushes a file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Flushes a folder's entries (names made, renamed and removed in it) to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Gives a temporary path for a file or a folder to be made at, which takes the place of `path` at the end.

    `path` is whole or untouched, and on the disk when the block ends. A folder cannot take the place of another one.

    Raises:
        RunFolderError: it cannot be written; what was there before is intact.
    """
    temporary = path.with_name(f".{path.name}{_TEMPORARY}{os.getpid()}")
    try:
        yield temporary
        for inner in temporary.rglob("*") if temporary.is_dir() else ():
            _sync(inner)
        _sync(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    except RunFolderError:
        raise
    except OSError as error:
        raise RunFolderError(cannot_write(path, error)) from error
    finally:
        _remove(temporary)


def _sync(path: Path) -> None:
    (sync_folder if path.is_dir() else sync_file)(path)


def _remove(path: Path) -> None:
    """Removes a file or folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a small file through `atomic`.

    Raises:
        RunFolderError: as `atomic`.
    """
    with atomic(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def clear_unfinished(folder: Path) -> None:
    """Removes what killed processes left of `atomic` in a folder; what a living one is writing stays."""
    for path in folder.glob(f".*{_TEMPORARY}*"):
        if not is_alive(path.name.rpartition(_TEMPORARY)[2]):
            _remove(path)


def is_alive(pid: str) -> bool:
    """Whether a process of that number, as it stands in a file or its name, runs on this machine."""
    if not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_json(path: Path, value: Any, sort_keys: bool = False) -> None:
    """Writes a JSON value, indented for people, atomically. Keys keep their order unless they are to be sorted."""
    write_atomic(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False, sort_keys=sort_keys) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        RunFolderError: the file is missing, unreadable, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise RunFolderError(f"{str(path)!r} is damaged: not JSON ({error})") from error


def names_of(folders: Sequence[Path]) -> list[str]:
    """A name for each folder of a run or model: the last parts of its path that tell it from the others.

    >>> names_of([Path("a/r1/model"), Path("b/r1/model")])
    ['a-r1', 'b-r1']

    Raises:
        ConfigError: two are one.
    """
    parts = [[part for part in _absolute(folder).parts if part != "model"] for folder in folders]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["-".join(own[-length:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError("a folder is named twice")


def _absolute(folder: Path) -> Path:
    """Links are left as they are named, unless the way leads up again."""
    return folder.resolve() if ".." in folder.parts else folder.absolute()


def make_folder_of(path: Path) -> None:
    """Makes the folder of a file that is to be written: what cannot be is said before the work begins.

    Raises:
        RunFolderError: with the reason.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise RunFolderError(f"cannot write {str(path)!r}: {str(path.parent)!r} is a file, not a folder") from None
    except OSError as error:
        raise RunFolderError(cannot_write(path, error)) from error


def cannot_write(path: Path, error: OSError) -> str:
    """One line on why a path cannot be written, with the way out where there is a usual one."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"cannot write {str(path)!r}: the disk is full; free some space and give the same command again"
    return f"cannot write {str(path)!r}: {error.strerror or error}"
