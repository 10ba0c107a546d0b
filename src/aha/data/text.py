"""Text of one's own to pretrain on: tokenized once into a file on disk, then read in rows of any seed's order.

Rows are cut from one long stream, epoch after epoch, each with its documents in another order. Row r is a function of
(seed, r) alone, so that any number of processes shares the rows of a step and nothing but the step needs to be saved.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from aha.configuration import Config
from aha.data.rows import Place, Row, text_of
from aha.data.sources import Reading, Source, read_source, source_identity
from aha.errors import ConfigError, RunFolderError
from aha.files import cannot_write, file_sha256

PLAIN = (".txt", ".md", ".text")
"""Endings of files that hold text and nothing else."""
TOKENS, DOCUMENTS = "tokens.bin", "documents.bin"
"""Files of `TokenizedText`: token ids, and a pair of int64 for each document: its length and whether it is held out."""


class TextConfig(Config):
    """Documents to pretrain on, in place of the laptop world's."""

    files: tuple[str, ...] = Field(
        min_length=1,
        description="plain files (.txt, .md), folders of them, or tables of documents (.jsonl, .json, .csv, .parquet, "
        "hf:NAME)",
    )
    column: str = Field("text", min_length=1, description="the column of a table that holds the document")
    separator: str = Field("", description="what stands between documents of a plain file; empty: a file is a document")
    held_out: float = Field(0.01, gt=0, lt=0.5, description="share of the documents kept for the held-out loss")

    @model_validator(mode="after")
    def _no_puzzles(self) -> Self:
        if any(name.startswith("gym:") for name in self.files):
            raise ValueError("files: gym: makes puzzles, not text; name a file, a folder or hf:NAME")
        return self

    def paths(self) -> list[str]:
        """Files and tables in order, folders taken apart.

        Raises:
            ConfigError: something is not there, or a folder has no plain file.
        """
        found: list[str] = []
        for name in self.files:
            path = Path(name)
            if path.is_dir():
                plain = sorted(file for file in path.rglob("*") if file.suffix.lower() in PLAIN and file.is_file())
                if not plain:
                    raise ConfigError(f"the folder {name!r} has no file that ends in {', '.join(PLAIN)}")
                found += map(str, plain)
            elif name.startswith("hf:") or path.is_file():
                found.append(name)
            else:
                raise ConfigError(f"pretrain.text: there is no file or folder {name!r}")
        return found

    def data_identity(self) -> str:
        """The hash of all content, so that pretraining is redone when a file changes."""
        digest = hashlib.sha256()
        for name in self.paths():
            plain = Path(name).suffix.lower() in PLAIN
            digest.update((file_sha256(Path(name)) if plain else source_identity(Source(path=name))).encode())
        return digest.hexdigest()

    def documents(self) -> Iterator[str]:
        """All documents that are not blank, in order.

        Raises:
            ConfigError: a file cannot be read, is not UTF-8, or a row has no text in the column.
        """
        for name in self.paths():
            found = self._plain(Path(name)) if Path(name).suffix.lower() in PLAIN else self._table(name)
            yield from (document for document in found if document.strip())

    def _plain(self, path: Path) -> Iterable[str]:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {str(path)!r} as UTF-8 text: {error}") from error
        return text.split(self.separator) if self.separator else [text]

    def _table(self, name: str) -> Iterable[str]:
        def convert(row: Row, place: Place) -> str:
            return text_of(row, place, self.column)

        return read_source(Source(path=name), convert, Reading())


def is_held_out(document: str, share: float) -> bool:
    """Whether a document is kept for the held-out loss: by the hash of its text, so that copies are on one side."""
    return int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big") < share * 2**64


class TokenizedText:
    """Documents as token ids on disk, mapped and not read.

    Args:
        folder: what `write` has filled.
        vocab_size: of the tokenizer; it decides how wide an id is.
    """

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self._tokens = np.memmap(folder / TOKENS, dtype=_dtype(vocab_size), mode="r")
        self._lengths, held_out = np.fromfile(folder / DOCUMENTS, dtype="<i8").reshape(-1, 2).T
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._sides = {side: np.flatnonzero(held_out == side) for side in (False, True)}
        self._epoch: tuple[tuple[int, int, bool], np.ndarray, np.ndarray] | None = None

    def num_tokens(self, held_out: bool) -> int:
        """Tokens of the documents of one side."""
        return int(self._lengths[self._sides[held_out]].sum())

    @staticmethod
    def write(folder: Path, documents: Iterable[tuple[Sequence[int], bool]], vocab_size: int) -> int:
        """Writes (token ids, held out) of all documents, which are there only when all are; returns how many.

        Raises:
            ConfigError: no document is left for one of the two sides.
            RunFolderError: the folder cannot be written.
        """
        unfinished = folder / f".{TOKENS}"
        described: list[tuple[int, int]] = []
        try:
            with unfinished.open("wb") as file:
                for ids, held_out in documents:
                    np.array(ids, dtype=_dtype(vocab_size)).tofile(file)
                    described.append((len(ids), int(held_out)))
            if len({side for _, side in described}) < 2:
                raise ConfigError(
                    f"pretrain.text: of {len(described)} documents, {sum(side for _, side in described)} are held out; "
                    "each side needs one: give more documents, name what separates them (pretrain.text.separator), or "
                    "change held_out"
                )
            unfinished.replace(folder / TOKENS)
            np.array(described, dtype="<i8").tofile(folder / f".{DOCUMENTS}")
            (folder / f".{DOCUMENTS}").replace(folder / DOCUMENTS)
        except OSError as error:
            raise RunFolderError(cannot_write(folder / TOKENS, error)) from error
        return len(described)

    def row(self, number: int, length: int, seed: int, held_out: bool = False) -> list[list[int]]:
        """The (parts of) documents of row `number`, `length` tokens together."""
        total, at, left = self.num_tokens(held_out), number * length, length
        parts: list[list[int]] = []
        while left:
            epoch, offset = divmod(at, total)
            order, ends = self._order(seed, epoch, held_out)
            place = int(np.searchsorted(ends, offset, side="right"))
            document = order[place]
            skipped = offset - int(ends[place] - self._lengths[document])
            count = min(left, int(self._lengths[document]) - skipped)
            start = int(self._starts[document]) + skipped
            parts.append(self._tokens[start : start + count].tolist())
            at, left = at + count, left - count
        return parts

    def _order(self, seed: int, epoch: int, held_out: bool) -> tuple[np.ndarray, np.ndarray]:
        """Documents of a side in an epoch's order, and where each ends in that epoch's stream."""
        key = (seed, epoch, held_out)
        if self._epoch is None or self._epoch[0] != key:
            order = self._sides[held_out].tolist()
            random.Random(f"{seed}:{epoch}").shuffle(order)
            shuffled = np.array(order, dtype=np.int64)
            self._epoch = key, shuffled, np.cumsum(self._lengths[shuffled])
        return self._epoch[1], self._epoch[2]


def _dtype(vocab_size: int) -> str:
    return "<u2" if vocab_size <= 1 << 16 else "<u4"
