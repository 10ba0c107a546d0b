"""JSON Lines files of problems, plain or gzipped: every complaint names the file and the line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aha.errors import ConfigError

MAX_LINE_CHARACTERS = 10_000_000


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (place, row) of every line that is not empty; the place is "file, line n".

    Raises:
        ConfigError: the file cannot be read, or a line is not a JSON object.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                place = f"{path}, line {number}"
                if line.strip():
                    yield place, _row(line, place)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {str(path)!r}: not UTF-8 text") from error


def _row(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line) if len(line) <= MAX_LINE_CHARACTERS else None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place}: not JSON ({str(error)[:100]})") from error
    if not isinstance(row, dict):
        raise ConfigError(f"{place}: must be a JSON object of at most {MAX_LINE_CHARACTERS:,} characters")
    return row


def text_of(row: dict[str, Any], place: str, *names: str) -> str:
    """The text of the first of these columns that a row has.

    Raises:
        ConfigError: it has none of them, or no text in it.
    """
    for name in names:
        if name in row:
            if not isinstance(row[name], str) or not row[name].strip():
                raise ConfigError(f"{place}: {name!r} must be a text that is not empty")
            return row[name]
    raise ConfigError(
        f"{place}: no column {' or '.join(map(repr, names))}; it has {', '.join(map(repr, row)) or 'none'}"
    )
