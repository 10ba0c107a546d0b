"""Rows on disk as they are made: a measurement that is interrupted goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from aha.errors import RunFolderError
from aha.files import fingerprint, make_folder_of
from aha.runs import JsonlLog

Row = dict[str, Any]


class ResumableLog:
    """A log that one process at a time adds to, and whose rows are read first; to be used as a context.

    What a killed process had not finished is cut off.

    Args:
        path: of the file, which is made if it does not exist.
        take: is given each row that is there, in order.

    Raises:
        RunFolderError: the file is damaged (`take` cannot read a row), in use, or cannot be written.
    """

    def __init__(self, path: Path, take: Callable[[Row], None]) -> None:
        self._path, self._log = path, JsonlLog(path)
        try:
            self._log.lock()
            self._read(take)
        except BaseException:
            self._log.close()
            raise

    def _read(self, take: Callable[[Row], None]) -> None:
        whole = 0
        for number, line in enumerate(self._path.read_bytes().split(b"\n")[:-1], start=1):
            try:
                take(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise RunFolderError(
                    f"{str(self._path)!r}, line {number}: damaged, or written by another version of aha: choose "
                    "another --out, or delete it"
                ) from error
            whole += len(line) + 1
        os.truncate(self._path, whole)

    def add(self, row: Row) -> None:
        """Keeps a row.

        Raises:
            RunFolderError: it cannot be written.
        """
        self._log.write(row)

    def close(self) -> None:
        """Gives the file free."""
        self._log.close()


class PieceStore:
    """The rows of each finished piece of work, in a file; to be used as a context. `done` deletes the file.

    Args:
        path: of the file; None keeps nothing.
        settings: everything that the rows depend on.

    Raises:
        RunFolderError: the file holds another measurement, is damaged or in use, or cannot be written.
    """

    def __init__(self, path: Path | None, settings: Row) -> None:
        self._path, self._pieces = path, dict[str, list[Row]]()
        self._settings, self._known = fingerprint(settings), False
        if path is None:
            return
        make_folder_of(path)
        self._lines = ResumableLog(path, self._take)
        if not self._known:
            self._lines.add({"settings": self._settings})

    def _take(self, row: Row) -> None:
        """The first row says of what the others are."""
        if self._known:
            self._pieces[row["piece"]] = row["rows"]
        elif row["settings"] != self._settings:
            raise RunFolderError(
                f"{str(self._path)!r} is of an unfinished measurement with other settings or of another model: choose "
                "another --out, or delete it"
            )
        self._known = True

    def get(self, piece: str) -> list[Row] | None:
        """The rows of a piece, or None where it is not finished."""
        return self._pieces.get(piece)

    def add(self, piece: str, rows: list[Row]) -> None:
        """Keeps a finished piece."""
        if self._path is not None:
            self._lines.add({"piece": piece, "rows": rows})

    def done(self) -> None:
        """The rows are somewhere else now."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._path is not None:
            self._lines.close()
