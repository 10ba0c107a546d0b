"""A reply read while it is made: token ids in, text out, so that no split of it into pieces changes what is said.

Three things make that more than decoding: a token may be a part of a character; only a generated token id, never any
text, moves the line between thinking and answer, if the vocabulary has such ids; and a stop string may span tokens, so
what could become one is held back. Joined, the pieces of a stream are exactly the text of the whole.
"""

from __future__ import annotations

import codecs
import enum
from collections.abc import Sequence
from dataclasses import dataclass

from aha.text.tokenizer import END_THINK, THINK, Tokenizer


class Phase(enum.Enum):
    """Where in its reply a model is."""

    START = "start"
    """Nothing has been said: it may think, or answer directly."""
    THINKING = "thinking"
    ANSWERING = "answering"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a thinking was ended by the newest token."""

    tokens: int = 1
    """Those that the end tag stands in, the newest of all tokens."""
    before: bytes = b""
    """What of them is thinking, in front of the tag."""


class Decoder:
    """Bytes to text; an incomplete character waits for the rest of it, invalid bytes become U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, data: bytes) -> str:
        """The text that is certain now."""
        return self._decoder.decode(data)

    def end(self) -> str:
        """What an incomplete last character becomes."""
        return self._decoder.decode(b"", final=True)


class Trimmer:
    """Leaves out whitespace at both ends, whatever pieces the text comes in.

    Args:
        started: text has come before, so that only the whitespace at the end is left out.
    """

    def __init__(self, started: bool = False) -> None:
        self._started = started
        self._held = ""

    def push(self, text: str) -> str:
        """The text without its beginning's whitespace; whitespace that might be its end waits."""
        text = self._held + text if self._started else text.lstrip()
        body = text.rstrip()
        self._started = self._started or bool(body)
        self._held = text[len(body) :]
        return body


class StopScanner:
    """Ends a text where the first of some strings is complete, leaving that string out.

    Args:
        stops: non-empty strings. Of two that are complete at the same character the longer one counts.
        begun: the text has begun. Else whitespace at its beginning is left out and is no part of a stop string: a
            newline ends an answer, not the gap between thinking and answer.
    """

    def __init__(self, stops: Sequence[str], begun: bool = True) -> None:
        self._stops = tuple(stops)
        self._begun = begun
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The text that cannot belong to a stop string any more; nothing after one was found."""
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        if self.stopped or not self._stops:
            return "" if self.stopped else text
        text = self._held + text
        if found := self._first_complete(text):
            self.stopped, self._held = True, ""
            return text[: found[0]]
        keep = self._possible_beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """What was held back and did not become a stop string."""
        held, self._held = self._held, ""
        return held

    def _first_complete(self, text: str) -> tuple[int, int] | None:
        places = ((text.find(stop), len(stop)) for stop in self._stops)
        spans = [(start, start + length) for start, length in places if start >= 0]
        return min(spans, key=lambda span: (span[1], span[0])) if spans else None

    def _possible_beginning(self, text: str) -> int:
        """Length of the longest end of the text that begins a stop string."""
        return max(
            (
                length
                for stop in self._stops
                for length in range(min(len(stop) - 1, len(text)), 0, -1)
                if text.endswith(stop[:length])
            ),
            default=0,
        )


_WIDE_SPACES = tuple(chr(code).encode() for code in range(0x80, 0x3001) if chr(code).isspace())
"""Whitespace of more than one byte; there is none beyond."""


def _said(data: bytes) -> bytes:
    """What has been said so far: the bytes without whitespace at the beginning, as text has it."""
    return data.decode(errors="surrogateescape").lstrip().encode(errors="surrogateescape")


def _may_be_space(said: bytes) -> bool:
    """Whether nothing has been said yet, though a part of a character may be there."""
    return any(space.startswith(said) for space in _WIDE_SPACES)


class Splitter:
    """Tells thinking from answer by generated token ids: the text `</think>` is text, the token is the line.

    Accepts thinking that the prompt has opened, and thinking that the model opens itself before it says anything else.
    A think token later on means nothing. Control tokens are not part of any text.

    Args:
        tokenizer: whose control tokens to look for.
        think_prefilled: the prompt ended inside the thinking.

    Attributes:
        ending: set by the token that ends the thinking, until the next one.
        holding: whether text is held back that may become a tag; never.
    """

    holding = False

    def __init__(self, tokenizer: Tokenizer, think_prefilled: bool) -> None:
        self._think, self._end_think = tokenizer.control_id(THINK), tokenizer.control_id(END_THINK)
        self._control = set(tokenizer.control_tokens.values())
        self._bytes = tokenizer.token_bytes
        self._held = b""
        """A part of a character, before anything is said."""
        self.phase = Phase.THINKING if think_prefilled else Phase.START
        self.ending: Ending | None = None

    def push(self, token_id: int) -> tuple[Phase, bytes]:
        """The phase that a token belongs to, and what is certain now of that phase's text."""
        before, self.ending = self.phase, None
        if token_id in self._control:
            if token_id == self._think and before is Phase.START and not self._held:
                self.phase = Phase.THINKING
                return Phase.THINKING, b""
            if token_id == self._end_think and before is Phase.THINKING:
                self.ending = Ending()
            if token_id == self._end_think or self._held:
                self.phase = Phase.ANSWERING
            return before, self._release()
        data = self._bytes[token_id] if token_id < len(self._bytes) else b""
        if before is Phase.START:
            self._held = _said(self._held + data)
            if _may_be_space(self._held):
                return before, b""
            self.phase = Phase.ANSWERING
            return self.phase, self._release()
        return self.phase, data

    def reopen(self) -> None:
        """Goes on thinking, as though the end had not come."""
        self.phase, self.ending = Phase.THINKING, None

    def end(self) -> tuple[Phase, bytes]:
        """What was held back."""
        return self.phase, self._release()

    def _release(self) -> bytes:
        data, self._held = self._held, b""
        return data


class TagSplitter:
    """Tells thinking from answer by tags in the text, for vocabularies without tokens for them.

    The same rules: thinking opens before anything else is said, and closes once. What could become a tag is held back,
    and what follows one in the same token comes with the next.

    Args:
        tokenizer: of the model.
        think_prefilled: the prompt ended inside the thinking.

    Attributes:
        ending: set by the token that ends the thinking, until the next one.
    """

    def __init__(self, tokenizer: Tokenizer, think_prefilled: bool) -> None:
        self._control = set(tokenizer.control_tokens.values())
        self._bytes = tokenizer.token_bytes
        self._held = b""
        self._pieces: list[bytes] = []
        """Of the tokens that a tag may stand in."""
        self.phase = Phase.THINKING if think_prefilled else Phase.START
        self.ending: Ending | None = None

    @property
    def holding(self) -> bool:
        """Whether text is held back that may become a tag."""
        return bool(self._held)

    def push(self, token_id: int) -> tuple[Phase, bytes]:
        """The phase that a token belongs to, and what is certain now of that phase's text."""
        known = token_id not in self._control and token_id < len(self._bytes)
        piece = self._bytes[token_id] if known else b""
        self._pieces = [*self._pieces, piece] if self._held else [piece]
        self._held += piece
        self.ending = None
        if self.phase is Phase.START:
            return self._start()
        if self.phase is Phase.THINKING:
            return self._thinking()
        return Phase.ANSWERING, self._release(len(self._held))

    def end(self) -> tuple[Phase, bytes]:
        """What was held back."""
        return self.phase, self._release(len(self._held))

    def _start(self) -> tuple[Phase, bytes]:
        said, tag = _said(self._held), THINK.encode()
        if said.startswith(tag):
            self.phase, self._held = Phase.THINKING, said[len(tag) :]
            return Phase.THINKING, b""
        if tag.startswith(said) or _may_be_space(said):
            return Phase.START, b""
        self.phase = Phase.ANSWERING
        return Phase.ANSWERING, self._release(len(self._held))

    def _thinking(self) -> tuple[Phase, bytes]:
        tag = END_THINK.encode()
        place = self._held.find(tag)
        if place >= 0:
            self.ending = _ending(self._pieces, len(self._held) - place)
            data = self._release(place)
            self._held = self._held[len(tag) :]
            self.phase = Phase.ANSWERING
            return Phase.THINKING, data
        begun = (length for length in range(len(tag) - 1, 0, -1) if self._held.endswith(tag[:length]))
        return Phase.THINKING, self._release(len(self._held) - next(begun, 0))

    def reopen(self) -> None:
        """Goes on thinking, as though the end, and what followed it in its last token, had not come."""
        self.phase, self.ending, self._held = Phase.THINKING, None, b""

    def _release(self, count: int) -> bytes:
        data, self._held = self._held[:count], self._held[count:]
        return data


def _ending(pieces: Sequence[bytes], behind: int) -> Ending:
    """The tokens that the last `behind` bytes stand in, and what stands in them before those."""
    count = size = 0
    while size < behind:
        count += 1
        size += len(pieces[-count])
    return Ending(count, pieces[-count][: size - behind])


def splitter_for(tokenizer: Tokenizer, think_prefilled: bool) -> Splitter | TagSplitter:
    """By token ids where the vocabulary has both tags as tokens, else by text."""
    by_id = THINK in tokenizer.control_tokens and END_THINK in tokenizer.control_tokens
    return (Splitter if by_id else TagSplitter)(tokenizer, think_prefilled)


class RawText:
    """A continuation as it is: control tokens are spelled out, except the end of the text. All of it is answer."""

    phase = Phase.ANSWERING
    ending: Ending | None = None
    holding = False

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._bytes = tokenizer.token_bytes
        self._ends = tokenizer.eos_ids

    def push(self, token_id: int) -> tuple[Phase, bytes]:
        """The bytes of a token."""
        known = token_id < len(self._bytes) and token_id not in self._ends
        return Phase.ANSWERING, self._bytes[token_id] if known else b""

    def reopen(self) -> None:
        """Nothing: no thinking ever ends here."""

    def end(self) -> tuple[Phase, bytes]:
        """What was held back: nothing."""
        return self.phase, b""
