"""Files of JSON lines, read row by row in any order without being held in memory."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from aha.errors import ConfigError
from aha.files import atomic

T = TypeVar("T")


class LazySequence(Sequence[T], ABC):
    """A sequence whose items are made when they are asked for; a slice is a list of them."""

    @abstractmethod
    def at(self, index: int) -> T:
        """Item `index`, from 0 to the length."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        numbers = range(len(self))[index]
        return self.at(numbers) if isinstance(numbers, int) else [self.at(number) for number in numbers]


class IndexedRows:
    """The rows of a JSONL file that this package wrote: `rows[i]` seeks, so a shuffle costs 8 bytes a row.

    Raises:
        ConfigError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts = array("q")
        at = 0
        try:
            with path.open("rb") as file:
                for line in file:
                    self._starts.append(at)
                    at += len(line)
        except OSError as error:
            raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}") from error

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Any:
        with self._path.open("rb") as file:
            file.seek(self._starts[index])
            line = file.readline()
        try:
            return json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{self._path}, line {index + 1}: not JSON ({error})") from error

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


def write_rows(path: Path, rows: Iterable[Any]) -> int:
    """Streams JSON lines into a file, which is there only when all of them are; returns how many.

    Raises:
        RunFolderError: the file cannot be written.
    """
    count = 0
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")
            count += 1
    return count
