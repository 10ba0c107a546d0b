"""The files of a tokenizer in a model folder, and how a checkpoint's JSON is read: once, for all who do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aha.errors import CheckpointError

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


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointError: where there is none, or it is not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} has no {path.name}: give the folder of a Hugging Face checkpoint"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}): fetch or write the checkpoint again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value
