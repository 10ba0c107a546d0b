"""What lies beside the weights in a model folder: JSON, the tokenizer, settings of generation. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aha.errors import CheckpointError, RunFolderError
from aha.files import read_json

GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"
TEXT_FILES = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
TOKENIZER_FILES = (*TEXT_FILES, "tokenizer.model")
"""What a tokenizer may consist of in a checkpoint, its chat template included."""


def read_model_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object of a model folder.

    Raises:
        CheckpointError: where there is none, or it is not an object.
    """
    if not path.exists():
        raise CheckpointError(f"{path.parent} has no {path.name}: give the folder of a Hugging Face checkpoint")
    try:
        value = read_json(path)
    except RunFolderError as error:
        raise CheckpointError(
            f"{path} is not readable JSON ({error.__cause__}): fetch or write the checkpoint again"
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def tokens_in_use(folder: Path, vocab_size: int) -> int:
    """Rows of the vocabulary that are tokens of the folder's tokenizer; all of them where there is no tokenizer.

    Raises:
        CheckpointError: the tokenizer has more tokens than the model has rows, or is not readable.
    """
    if not (folder / TOKENIZER).is_file():
        return vocab_size
    count = max(_token_ids(read_model_json(folder / TOKENIZER)), default=vocab_size - 1) + 1
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
    return read_model_json(folder / GENERATION) if (folder / GENERATION).is_file() else None


def tokenizer_files(folder: Path) -> dict[str, str | bytes]:
    """The tokenizer's files of a checkpoint and their contents, to be kept as they are."""
    return {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}
