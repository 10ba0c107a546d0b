"""Conversations to train on: JSON lines in and out, token ids with a loss mask, batches of whole examples.

One line is one conversation: `{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...,
"reasoning_content": ...}], ...}`; other keys (where it comes from) are kept and ignored by training.
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from aha.data.indexed import IndexedRows, LazySequence, write_rows
from aha.errors import CheckpointError, ConfigError
from aha.text.templates import chat_example
from aha.text.tokenizer import Tokenizer
from aha.types import Message

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation that ends with the assistant's turn, and where it comes from."""

    messages: tuple[Message, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able: source, family, level, problem key."""

    @classmethod
    def of(cls, question: str, response: str, reasoning: str | None = None, **about: Any) -> Conversation:
        """One question and its answer."""
        return cls((Message("user", question), Message("assistant", response, reasoning)), about)

    def to_json(self) -> dict[str, Any]:
        """One line's content."""
        messages = [
            {"role": m.role, "content": m.content}
            | ({} if m.reasoning_content is None else {"reasoning_content": m.reasoning_content})
            for m in self.messages
        ]
        return {"messages": messages, **self.about}

    @classmethod
    def from_json(cls, row: Any) -> Conversation:
        """Reads one line's content.

        Raises:
            ValueError: it is not a conversation that ends with an assistant turn; the message says what is wrong.
        """
        turns = row.get("messages") if isinstance(row, dict) else None
        if not isinstance(turns, list) or not turns:
            raise ValueError("expected an object with a list `messages`")
        messages = []
        for turn in turns:
            if not isinstance(turn, dict) or turn.get("role") not in ROLES or not isinstance(turn.get("content"), str):
                raise ValueError(f"a message needs a role out of {', '.join(ROLES)} and a text `content`: {turn!r:.80}")
            reasoning = turn.get("reasoning_content")
            if reasoning is not None and not isinstance(reasoning, str):
                raise ValueError("`reasoning_content` must be a text")
            messages.append(Message(turn["role"], turn["content"], reasoning))
        if messages[-1].role != "assistant":
            raise ValueError("the last message must be the assistant's: it is what is trained on")
        return cls(tuple(messages), {key: value for key, value in row.items() if key != "messages"})


def write_conversations(path: Path, conversations: Iterable[Conversation]) -> int:
    """Writes JSON lines, whole or not at all; returns how many."""
    return write_rows(path, (conversation.to_json() for conversation in conversations))


class ConversationFile(LazySequence[Conversation]):
    """The conversations of a file of JSON lines, each read when it is asked for.

    Args:
        path: the file.
        limit: at most so many, from the front; 0 takes all.

    Raises:
        ConfigError: the file cannot be read, or a line is not a conversation; with file and line number.
    """

    def __init__(self, path: Path, limit: int = 0) -> None:
        self._path, self._rows = path, IndexedRows(path)
        self._count = min(limit, len(self._rows)) if limit else len(self._rows)

    def __len__(self) -> int:
        return self._count

    def place(self, index: int) -> str:
        """File and line of a conversation, for messages."""
        return f"{self._path}, line {index + 1}"

    def at(self, index: int) -> Conversation:
        """Reads one line."""
        row = self._rows[index]
        try:
            return Conversation.from_json(row)
        except ValueError as error:
            raise ConfigError(f"{self.place(index)}: {error}") from error


def read_conversations(path: Path) -> Iterator[Conversation]:
    """Reads JSON lines in order; raises as `ConversationFile` does."""
    return iter(ConversationFile(path))


@dataclass(frozen=True, slots=True)
class Example:
    """A tokenized conversation."""

    token_ids: tuple[int, ...]
    loss_mask: tuple[int, ...]
    """1 on the tokens that are trained on: the last assistant turn and its end."""

    @property
    def num_tokens(self) -> int:
        """Prompt included."""
        return len(self.token_ids)


def encode(tokenizer: Tokenizer, conversation: Conversation) -> Example:
    """Token ids and loss mask in DeepSeek-R1's training form, which keeps the reasoning."""
    token_ids, loss_mask = chat_example(tokenizer, conversation.messages)
    return Example(tuple(token_ids), tuple(loss_mask))


class Tokenized(Protocol):
    """Whatever goes through a model as a whole."""

    @property
    def num_tokens(self) -> int:
        """How long it is."""
        ...


T = TypeVar("T", bound=Tokenized)


class Examples(LazySequence[Example]):
    """Conversations of several sources one after another, tokenized each time that they are asked for.

    Args:
        tokenizer: of the model that is trained.
        sources: the conversations.
        chosen: which of them, by number; None takes all.

    Raises:
        ConfigError: a conversation cannot be tokenized, such as one that the chat template refuses; with its place.
    """

    def __init__(
        self, tokenizer: Tokenizer, sources: Sequence[ConversationFile], chosen: Sequence[int] | None = None
    ) -> None:
        self._tokenizer, self._sources = tokenizer, sources
        self._ends = list(itertools.accumulate(map(len, sources)))
        self._chosen = range(self._ends[-1] if self._ends else 0) if chosen is None else chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def only(self, numbers: Iterable[int]) -> Examples:
        """Some of these examples."""
        return Examples(self._tokenizer, self._sources, [self._chosen[number] for number in numbers])

    def at(self, index: int) -> Example:
        """Reads and tokenizes one conversation."""
        number = self._chosen[index]
        which = bisect.bisect_right(self._ends, number)
        source, place = self._sources[which], number - self._ends[which] + len(self._sources[which])
        try:
            return encode(self._tokenizer, source[place])
        except CheckpointError as error:
            raise ConfigError(f"{source.place(place)}: {error}") from error


def epoch_order(count: int, epochs: int, seed: int) -> list[int]:
    """Indices of all examples, `epochs` times, each time in another order."""
    order = []
    for epoch in range(epochs):
        indices = list(range(count))
        random.Random(f"{seed}:{epoch}").shuffle(indices)
        order += indices
    return order


def micro_batches(examples: Iterable[T], limit: int) -> Iterator[list[T]]:
    """Cuts examples into lists of at most `limit` tokens (or a single longer one), in order."""
    batch: list[T] = []
    size = 0
    for example in examples:
        if batch and size + example.num_tokens > limit:
            yield batch
            batch, size = [], 0
        batch.append(example)
        size += example.num_tokens
    if batch:
        yield batch
