"""One sample's reply while it is made: from tokens to pieces of thinking and answer, with counts and log-probabilities.

The same reader stands behind streams and whole replies, so that joined deltas are the whole reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aha.serve.budget import ThinkingBudget
from aha.text.incremental import Decoder, Ending, Phase, RawText, Splitter, StopScanner, TagSplitter, Trimmer
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
        steering: may force tokens, and may refuse the end of the thinking.

    Attributes:
        taken_back: how many of the newest tokens the last `push` has refused: the end of a thinking that is to go on.
            They have never been; take them from the sample too, and then force what `forced` says.
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
        steering: ThinkingBudget | None = None,
    ) -> None:
        self.index = index
        self.completion_tokens = 0
        self.reasoning_tokens = 0
        self.taken_back = 0
        self._encode = tokenizer.encode
        self._token_bytes = tokenizer.token_bytes
        self._eos_ids = tokenizer.eos_ids
        self._splitter = splitter
        self._thinking, self._answer = Decoder(), Decoder()
        self._scanner = StopScanner(stops, begun=not trim)
        self._trims = (Trimmer(begun), Trimmer()) if trim else None
        self._logprobs = logprobs
        self._steering = steering
        self._last = "." if begun else ""
        """The last character of the thinking; of one that the prompt has begun it is only known that there is one."""
        self._instead: list[int] = []
        self._shown = 0
        """Of the next tokens, those whose text has been given already."""
        self._held_scores: list[TokenScore] = []

    @property
    def stopped(self) -> bool:
        """Whether a stop string is complete, so that the sample has to be ended."""
        return self._scanner.stopped

    def forced(self) -> Sequence[int]:
        """Token ids that have to come next, or nothing."""
        if self._steering is None:
            return ()
        instead, self._instead = self._instead, []
        return [*instead, *self._steering.forced(self._splitter.phase, self.reasoning_tokens)]

    def push(
        self, token_id: int, logprob: float, top: Sequence[tuple[int, float]] = (), stopped: bool = False
    ) -> Delta:
        """Takes a token.

        Args:
            token_id: of the token.
            logprob: its log-probability.
            top: the most likely tokens in its place.
            stopped: the sample ends with it.
        """
        self.taken_back = 0
        scores: tuple[TokenScore, ...] = ()
        if self._logprobs and token_id not in self._eos_ids:
            likely = tuple((self._bytes_of(other), value) for other, value in top)
            scores = (TokenScore(self._bytes_of(token_id), logprob, likely),)
        self.completion_tokens += 1
        if self._shown:
            self._shown -= 1
            self.reasoning_tokens += 1
            return Delta(self.index, reasoning_scores=scores)
        phase, data = self._splitter.push(token_id)
        if phase is Phase.THINKING:
            self.reasoning_tokens += 1
            return self._think(data, scores, stopped)
        return Delta(
            self.index, content=self._trim(1, self._scanner.push(self._answer.push(data))), content_scores=scores
        )

    def _think(self, data: bytes, scores: Sequence[TokenScore], stopped: bool) -> Delta:
        """What a token of thinking adds. Scores wait as long as their text: both may be those of a refused end."""
        text = self._thinking.push(data)
        self._last = text[-1:] or self._last
        ending = Ending() if stopped and self._splitter.phase is Phase.THINKING else self._splitter.ending
        self._held_scores += scores
        if ending is not None and self._goes_on(ending):
            del self._held_scores[len(self._held_scores) - (len(scores) if stopped else ending.tokens) :]
        elif self._splitter.phase is not Phase.THINKING:
            text += self._thinking.end()
        waiting = self._splitter.phase is Phase.THINKING and self._splitter.holding
        given, self._held_scores = ([], self._held_scores) if waiting else (self._held_scores, [])
        return Delta(self.index, reasoning=self._trim(0, text), reasoning_scores=tuple(given))

    def _goes_on(self, ending: Ending) -> bool:
        """Takes the end of the thinking back, if it has come too early."""
        thought = self.reasoning_tokens - ending.tokens
        instead = self._steering.instead_of_end(thought, self._last) if self._steering else ()
        if not instead:
            return False
        if self._splitter.ending is not None:
            self._splitter.reopen()
        before = self._encode(ending.before.decode(errors="replace"))
        self._instead, self._shown = [*before, *instead], len(before)
        self.taken_back = ending.tokens
        self.completion_tokens -= ending.tokens
        self.reasoning_tokens = thought
        return True

    def finish(self, reason: FinishReason) -> Delta:
        """Gives what was held back. A stop string that is complete makes the reason `stop`, whatever came after."""
        phase, data = self._splitter.end()
        thought, said = (data, b"") if phase is Phase.THINKING else (b"", data)
        reasoning = self._trim(0, self._thinking.push(thought) + self._thinking.end())
        content = self._answer.push(said) + self._answer.end()
        content = self._trim(1, self._scanner.push(content) + self._scanner.end())
        reason = FinishReason.STOP if self.stopped else reason
        end = End(reason, self.completion_tokens, self.reasoning_tokens)
        return Delta(self.index, reasoning, content, tuple(self._held_scores), end=end)

    def _trim(self, which: int, text: str) -> str:
        return self._trims[which].push(text) if self._trims else text

    def _bytes_of(self, token_id: int) -> bytes:
        return self._token_bytes[token_id] if token_id < len(self._token_bytes) else b""
