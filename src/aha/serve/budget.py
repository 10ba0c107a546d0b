"""How long a model may think, and has to: the end is forced when a budget is used up, and refused when it is early."""

from __future__ import annotations

from collections.abc import Sequence

from aha.serve.schemas import ChatRequest, Effort
from aha.test_time.budget_forcing import ANSWER_TOKENS, WAIT, wait_after
from aha.text.incremental import Phase
from aha.text.language import language_of
from aha.text.tokenizer import END_THINK, Tokenizer

SHARES: dict[Effort | None, float] = {"none": 0.0, "minimal": 0.25, "low": 0.25, "medium": 0.5}
"""The part of the completion's limit that thinking may take at each effort; the others leave it free."""


class ThinkingBudget:
    """Ends the thinking after so many tokens, and keeps it from ending before it has so many.

    Args:
        tokenizer: of the model.
        most: tokens of thinking; 0 closes it at once, None sets no bound.
        least: tokens of thinking; an end that comes before is replaced by `wait`.
        wait: the word to go on with.
    """

    def __init__(self, tokenizer: Tokenizer, most: int | None, least: int = 0, wait: str = WAIT["en"]) -> None:
        self.most, self.least = most, least
        self._tokenizer, self._wait = tokenizer, wait
        self._closed = False

    def forced(self, phase: Phase, thinking_tokens: int) -> Sequence[int]:
        """The closing tokens, once, when thinking has used its budget. Asked before the first token and after each."""
        if self._closed or phase is not Phase.THINKING or self.most is None or thinking_tokens < self.most:
            return ()
        self._closed = True
        return self._tokenizer.encode_markup(END_THINK)

    def instead_of_end(self, thinking_tokens: int, last: str) -> Sequence[int]:
        """The word to go on with, while thinking is too short and there is room for more; else nothing.

        Args:
            thinking_tokens: in front of the end.
            last: the last character of the thinking, where it is known.
        """
        if self._closed or thinking_tokens >= self.least:
            return ()
        ids = self._tokenizer.encode(wait_after(last, self._wait))
        return ids if self.most is None or thinking_tokens + len(ids) < self.most else ()


def wait_for(question: str) -> str:
    """What a thinking goes on with, in the language of its question."""
    return WAIT[language_of(question)]


def steering_of(request: ChatRequest, tokenizer: Tokenizer, limit: int) -> ThinkingBudget | None:
    """What a request says about its thinking, for one sample; None where it says nothing.

    Whatever is said, the end of the thinking is forced in time for an answer before the limit.

    Args:
        request: whose thinking it is.
        tokenizer: of the model.
        limit: tokens of the whole completion.
    """
    most, least = budget_of(request, limit), (request.thinking and request.thinking.min_tokens) or 0
    if most is None and not least:
        return None
    answer = ANSWER_TOKENS + len(tokenizer.encode_markup(END_THINK))
    room = limit - min(answer, limit // 4)
    most = room if most is None else min(most, room)
    return ThinkingBudget(tokenizer, most, least, wait_for(request.turns[-1].text))


def budget_of(request: ChatRequest, limit: int) -> int | None:
    """Tokens of thinking that a request allows; None where it sets no bound.

    Args:
        request: `thinking` wins over `reasoning_effort`.
        limit: tokens of the whole completion.
    """
    thinking = request.thinking
    if thinking is not None:
        return 0 if thinking.type == "disabled" else thinking.budget_tokens
    share = SHARES.get(request.reasoning_effort)
    return None if share is None else int(share * limit)
