"""A model from outside of the run: checked, and linked into the run as the stage's model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from aha.configuration import Config
from aha.errors import CheckpointError
from aha.models.config.load import load_config
from aha.text.tokenizer import Tokenizer
from aha.training.stage import StageContext, StageResult

_SAMPLES, _BLOCK = 256, 1 << 16


class CheckpointConfig(Config):
    """Which model."""

    path: str = Field(min_length=1, description="a model folder in Hugging Face layout")

    def data_identity(self) -> str:
        """Of the folder's files."""
        return checkpoint_identity(self.path)


class Checkpoint:
    """The stage: reads the folder's configuration and tokenizer, and points at it. The folder is never changed."""

    kind: ClassVar[str] = "checkpoint"

    def run(self, context: StageContext[CheckpointConfig]) -> StageResult:
        """Links the folder."""
        config = context.config
        folder = Path(config.path).resolve()
        model = load_config(folder)
        name = type(model).__name__.removesuffix("Config")
        tokenizer = Tokenizer.load(folder)
        if context.distributed.is_first:
            context.model_folder.symlink_to(folder, target_is_directory=True)
        context.distributed.barrier()
        about = {"family": name, "vocab_size": model.vocab_size, "tokens": tokenizer.vocab_size}
        return StageResult({"path": str(folder), **about})


def need_model_folder(path: str) -> Path:
    """The folder, if it looks like one.

    Raises:
        CheckpointError: there is no model folder.
    """
    if not (Path(path) / "config.json").is_file():
        raise CheckpointError(f"{path!r} is not a model folder: it has no config.json (expected Hugging Face layout)")
    return Path(path)


def checkpoint_identity(path: str) -> str:
    """A hash that changes when the model does: all small files, and many blocks of each large one.

    Raises:
        CheckpointError: there is no model folder.
    """
    folder = need_model_folder(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            starts = range(0, size, max(_BLOCK, size // _SAMPLES))
            for start in starts:
                content.seek(start)
                digest.update(content.read(_BLOCK))
    return digest.hexdigest()
