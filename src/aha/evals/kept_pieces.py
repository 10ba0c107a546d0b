"""Pieces of a measurement on disk until all are there: interrupted, it goes on where it stopped."""

from __future__ import annotations

import json
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
        RunFolderError: the file holds another measurement, or it cannot be written.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self._path, self._pieces = path, dict[str, Rows]()
        if path is None:
            return
        head = {"settings": fingerprint(settings)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
            if lines and json.loads(lines[0]) != head:
                raise RunFolderError(
                    f"{str(path)!r} is of an unfinished measurement with other settings or of another model: choose "
                    "another --out, or delete it"
                )
            self._pieces = {row["piece"]: row["rows"] for row in map(json.loads, lines[1:])}
            whole = sum(len(line) + 1 for line in lines)
            self._file = path.open("r+b" if lines else "wb")
            self._file.truncate(whole)  # what a killed process had not finished writing
            self._file.seek(whole)
            if not lines:
                self._write(head)
        except (ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{str(path)!r} is damaged: choose another --out, or delete it") from error
        except OSError as error:
            raise RunFolderError(cannot_write(path, error)) from error

    def get(self, piece: str) -> Rows | None:
        """The rows of a piece, or None where it is not finished."""
        return self._pieces.get(piece)

    def add(self, piece: str, rows: Rows) -> None:
        """Keeps a finished piece, on disk when this returns."""
        if self._path is not None:
            try:
                self._write({"piece": piece, "rows": rows})
            except OSError as error:
                raise RunFolderError(cannot_write(self._path, error)) from error

    def done(self) -> None:
        """The rows are somewhere else now."""
        if self._path is not None:
            self._path.unlink()

    def _write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def __enter__(self) -> KeptPieces:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._path is not None:
            self._file.close()
