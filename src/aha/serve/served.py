"""A model as the server knows it: its name, its prompt style, and the thread that works for it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from aha.errors import CheckpointError, ConfigError
from aha.protocols import BatchGenerator
from aha.serve.config import ServeConfig
from aha.serve.responses import ModelCard
from aha.serve.worker import Worker
from aha.text.prompt_style import PromptStyle, StyleName
from aha.text.templates import chat_prompt
from aha.text.tokenizer import Tokenizer
from aha.types import Message

SERVED_STYLES: tuple[StyleName, ...] = ("chat", "chat_direct", "zero")
"""The prompt styles in which models are served."""
CHAT = PromptStyle.named("chat")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(frozen=True)
class ServedModel:
    """One model of the server.

    Raises:
        ConfigError: the name is none.
        CheckpointError: it is to be asked in chats, and the checkpoint's chat template is missing or does not render.
    """

    name: str
    tokenizer: Tokenizer
    generator: BatchGenerator
    style: PromptStyle = CHAT
    created: int = 0
    """When it was made, in seconds since 1970."""
    config: ServeConfig = field(default_factory=ServeConfig)
    worker: Worker = field(init=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"model name {self.name!r}: expected letters, digits, '.', '_', ':' and '-'")
        if self.style.template == "chat":
            _check_template(self.name, self.tokenizer, self.style)
        object.__setattr__(self, "worker", Worker(self.generator, self.config.queue_samples, self.name))

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """What ends a turn: the end of the sentence, or tokens that only a prompt may hold."""
        return self.tokenizer.boundary_ids

    @property
    def card(self) -> ModelCard:
        """What /v1/models says about it."""
        return ModelCard(
            id=self.name, created=self.created, style=self.style.name, context_tokens=self.generator.max_context
        )


def _check_template(name: str, tokenizer: Tokenizer, style: PromptStyle) -> None:
    """Renders a question, so that a checkpoint that cannot be asked at all is refused before anybody asks."""
    instead = "--style zero puts one question into R1-Zero's template, and /v1/completions goes on with any text"
    if not tokenizer.is_own and tokenizer.template is None:
        raise CheckpointError(f"{name!r} has no chat template and cannot be asked as {style.name}: {instead}")
    try:
        chat_prompt(tokenizer, [Message("user", "?")])
    except CheckpointError as error:
        raise CheckpointError(f"{name!r} cannot be asked as {style.name}: {error}; {instead}") from None
