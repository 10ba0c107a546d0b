"""Pieces of a measurement on disk until all are there: interrupted, it goes on where it stopped."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from aha.errors import RunFolderError
from aha.files import cannot_write, fingerprint

Rows = list[dict[str, Any]]


class KeptPieces:
    """The rows of each finished piece of work, in a file; to be used as a context. `done` deletes the file.

    Args:
        path: of the file; None keeps nothing.
        settings: everything that the rows depend on.

    Raises:
        RunFolderError: the file holds another measurement, is damaged or in use, or cannot be written.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self._path, self._pieces = path, dict[str, Rows]()
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunFolderError(cannot_write(path, error)) from error
        try:
            self._take_up(path, {"settings": fingerprint(settings)})
        except BaseException:
            os.close(self._descriptor)
            raise

    def _take_up(self, path: Path, head: dict[str, Any]) -> None:
        """Reads what is there, and cuts off what a killed process had not finished writing."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunFolderError(f"{str(path)!r} is in use by another process: choose another --out") from error
        lines = path.read_bytes().split(b"\n")[:-1]
        try:
            rows = [json.loads(line) for line in lines]
            if rows and rows[0]["settings"] != head["settings"]:
                raise RunFolderError(
                    f"{str(path)!r} is of an unfinished measurement with other settings or of another model: choose "
                    "another --out, or delete it"
                )
            self._pieces = {row["piece"]: row["rows"] for row in rows[1:]}
        except (ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{str(path)!r} is damaged: choose another --out, or delete it") from error
        whole = sum(len(line) + 1 for line in lines)
        os.truncate(self._descriptor, whole)
        os.lseek(self._descriptor, whole, os.SEEK_SET)
        if not lines:
            self._write(path, head)

    def get(self, piece: str) -> Rows | None:
        """The rows of a piece, or None where it is not finished."""
        return self._pieces.get(piece)

    def add(self, piece: str, rows: Rows) -> None:
        """Keeps a finished piece, on disk when this returns.

        Raises:
            RunFolderError: it cannot be written.
        """
        if self._path is not None:
            self._write(self._path, {"piece": piece, "rows": rows})

    def done(self) -> None:
        """The rows are somewhere else now."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _write(self, path: Path, row: dict[str, Any]) -> None:
        data = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise RunFolderError(cannot_write(path, error)) from error

    def __enter__(self) -> KeptPieces:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._path is not None:
            os.close(self._descriptor)
