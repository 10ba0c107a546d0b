"""How long a model may think: when the budget is used up, the end-of-think token is forced and the model goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aha.serve.schemas import ChatRequest, Effort
from aha.text.incremental import Phase

SHARES: dict[Effort, float | None] = {
    "none": 0.0,
    "minimal": 0.25,
    "low": 0.25,
    "medium": 0.5,
    "high": None,
    "xhigh": None,
    "max": None,
}
"""The part of the completion's limit that thinking may take at each effort; None leaves it free."""


class Steering(Protocol):
    """Decides while a reply is made whether tokens are to be forced next."""

    def forced(self, phase: Phase, thinking_tokens: int) -> Sequence[int]:
        """Token ids that come next, or nothing. Asked before the first token and after each one."""
        ...


class ThinkingBudget:
    """Ends the thinking after so many tokens.

    Args:
        tokens: of thinking, at most; 0 closes it at once.
        end_think_ids: what closes it.
    """

    def __init__(self, tokens: int, end_think_ids: Sequence[int]) -> None:
        self.tokens = tokens
        self._end_think_ids = tuple(end_think_ids)
        self._closed = False

    def forced(self, phase: Phase, thinking_tokens: int) -> Sequence[int]:
        """The closing tokens, once, when thinking has used its budget."""
        if self._closed or phase is not Phase.THINKING or thinking_tokens < self.tokens:
            return ()
        self._closed = True
        return self._end_think_ids


def budget_of(request: ChatRequest, limit: int) -> int | None:
    """Tokens of thinking that a request allows; None where it sets no bound.

    Args:
        request: `thinking` wins over `reasoning_effort`.
        limit: tokens of the whole completion.
    """
    thinking = request.thinking
    if thinking is not None:
        return 0 if thinking.type == "disabled" else thinking.budget_tokens
    share = SHARES[request.reasoning_effort] if request.reasoning_effort is not None else None
    return None if share is None else int(share * limit)
