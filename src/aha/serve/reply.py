"""One sample's reply while it is made: from tokens to pieces of thinking and answer, with counts and log-probabilities.

The same reader stands behind streams and whole replies, so that joined deltas are the whole reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aha.serve.budget import Steering
from aha.text.incremental import Decoder, Phase, RawText, Splitter, StopScanner, TagSplitter, Trimmer
from aha.text.tokenizer import Tokenizer
from aha.types import FinishReason


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token with its log-probability and the most likely ones in its place."""

    data: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


@dataclass(frozen=True, slots=True)
class End:
    """How a sample ended, and what it took."""

    reason: FinishReason
    completion_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step adds to one sample."""

    index: int
    reasoning: str = ""
    content: str = ""
    reasoning_scores: tuple[TokenScore, ...] = ()
    content_scores: tuple[TokenScore, ...] = ()
    end: End | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to send."""
        return not (self.reasoning or self.content or self.reasoning_scores or self.content_scores or self.end)


class ReplyReader:
    """Reads one sample.

    Args:
        index: of the sample in the response.
        tokenizer: of the model.
        splitter: tells thinking from answer.
        stops: strings that end the answer. Thinking is not searched for them.
        trim: leave out whitespace around thinking and answer.
        begun: the prompt holds the beginning of the thinking, so that whitespace may follow it.
        logprobs: keep log-probabilities.
        steering: may force tokens.
    """

    def __init__(
        self,
        index: int,
        tokenizer: Tokenizer,
        splitter: Splitter | TagSplitter | RawText,
        stops: Sequence[str] = (),
        trim: bool = True,
        begun: bool = False,
        logprobs: bool = False,
        steering: Steering | None = None,
    ) -> None:
        self.index = index
        self.completion_tokens = 0
        self.reasoning_tokens = 0
        self._token_bytes = tokenizer.token_bytes
        self._eos_ids = tokenizer.eos_ids
        self._splitter = splitter
        self._thinking, self._answer = Decoder(), Decoder()
        self._scanner = StopScanner(stops)
        self._trims = (Trimmer(begun), Trimmer()) if trim else None
        self._logprobs = logprobs
        self._steering = steering

    @property
    def stopped(self) -> bool:
        """Whether a stop string is complete, so that the sample has to be ended."""
        return self._scanner.stopped

    def forced(self) -> Sequence[int]:
        """Token ids that have to come next, or nothing."""
        return self._steering.forced(self._splitter.phase, self.reasoning_tokens) if self._steering else ()

    def push(self, token_id: int, logprob: float, top: Sequence[tuple[int, float]] = ()) -> Delta:
        """Takes a token."""
        phase, data = self._splitter.push(token_id)
        thinking = phase is Phase.THINKING
        self.completion_tokens += 1
        self.reasoning_tokens += thinking
        scores: tuple[TokenScore, ...] = ()
        if self._logprobs and token_id not in self._eos_ids:
            likely = tuple((self._bytes_of(other), value) for other, value in top)
            scores = (TokenScore(self._bytes_of(token_id), logprob, likely),)
        if thinking:
            text = self._thinking.push(data)
            if self._splitter.phase is not Phase.THINKING:
                text += self._thinking.end()
            return Delta(self.index, reasoning=self._trim(0, text), reasoning_scores=scores)
        return Delta(
            self.index, content=self._trim(1, self._scanner.push(self._answer.push(data))), content_scores=scores
        )

    def finish(self, reason: FinishReason) -> Delta:
        """Gives what was held back. A stop string that is complete makes the reason `stop`, whatever came after."""
        phase, data = self._splitter.end()
        thought, said = (data, b"") if phase is Phase.THINKING else (b"", data)
        reasoning = self._trim(0, self._thinking.push(thought) + self._thinking.end())
        content = self._answer.push(said) + self._answer.end()
        content = self._trim(1, self._scanner.push(content) + self._scanner.end())
        reason = FinishReason.STOP if self.stopped else reason
        return Delta(self.index, reasoning, content, end=End(reason, self.completion_tokens, self.reasoning_tokens))

    def _trim(self, which: int, text: str) -> str:
        return self._trims[which].push(text) if self._trims else text

    def _bytes_of(self, token_id: int) -> bytes:
        return self._token_bytes[token_id] if token_id < len(self._token_bytes) else b""
