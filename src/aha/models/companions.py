"""The JSON files beside the weights, as far as they matter to the model: tokens of the tokenizer, generation settings.

No torch here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aha.companion_files import TOKENIZER, TOKENIZER_FILES, read_json
from aha.errors import CheckpointError

GENERATION = "generation_config.json"


def tokens_in_use(folder: Path, vocab_size: int) -> int:
    """Rows of the vocabulary that are tokens of the folder's tokenizer; all of them where there is no tokenizer.

    Raises:
        CheckpointError: the tokenizer has more tokens than the model has rows, or is not readable.
    """
    if not (folder / TOKENIZER).is_file():
        return vocab_size
    count = max(_token_ids(read_json(folder / TOKENIZER)), default=vocab_size - 1) + 1
    if count > vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {count} tokens, but config.json has vocab_size = {vocab_size}: fetch the one "
            "that belongs to the model"
        )
    return count


def _token_ids(tokenizer: Mapping[str, Any]) -> Iterator[int]:
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, dict):
        yield from vocabulary.values()
    else:  # Unigram: a list of (token, score)
        yield from range(len(vocabulary))
    for token in tokenizer.get("added_tokens") or ():
        yield token["id"]


def read_generation_config(folder: Path) -> dict[str, Any] | None:
    """The settings of `generation_config.json`, or None where there is none.

    Raises:
        CheckpointError: the file is not readable JSON.
    """
    return read_json(folder / GENERATION) if (folder / GENERATION).is_file() else None


def tokenizer_files(folder: Path) -> dict[str, str | bytes]:
    """The tokenizer's files of a checkpoint and their contents, to be kept as they are."""
    return {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}
