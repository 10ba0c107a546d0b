"""Prompt styles: each has a template, tokens that end a reply, and a way to read the reply."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from aha.errors import ConfigError, nearest
from aha.text.templates import chat_ends, chat_prompt, plain_prompt, zero_prompt
from aha.text.thinking import Parsed, parse
from aha.text.tokenizer import Tokenizer
from aha.types import Message, Problem

StyleName = Literal["zero", "zero_think", "direct", "steps", "chat", "chat_direct"]
"""The names of all prompt styles, for settings."""
StrictStyleName = Literal["zero", "chat"]
"""The styles under which a model is trained: only a reply of the exact form counts."""
STYLE_NAMES: tuple[StyleName, ...] = get_args(StyleName)


@dataclass(frozen=True, slots=True)
class PromptStyle:
    """How a model is asked, and how its replies are read."""

    name: StyleName
    title: str
    """In a few words, for tables and reports."""
    template: Literal["zero", "plain", "steps", "chat"]
    """R1-Zero's conversation; a question as on the web; the same with "let's think step by step"; R1's chat format."""
    prefilled: bool = False
    """The prompt ends with the think tag, so the reply starts inside the thinking."""
    thinks: bool = False
    """The model thinks between tags before it answers."""
    strict: bool = False
    """An answer counts only in a well-formed reply; otherwise whatever answer can be found counts."""

    @classmethod
    def named(cls, name: str, among: Iterable[StyleName] = STYLE_NAMES) -> PromptStyle:
        """The style of a name.

        Raises:
            ConfigError: there is none of that name among those allowed.
        """
        allowed = list(among)
        if name not in allowed:
            raise ConfigError(f"prompt style {name!r}{nearest(name, allowed)}: expected one of {', '.join(allowed)}")
        return next(style for style in PROMPT_STYLES if style.name == name)

    @property
    def answer_tags(self) -> bool:
        """Whether a well-formed reply has its answer between tags. In the chat format a summary follows instead."""
        return self.name != "chat"

    def prompt(self, tokenizer: Tokenizer, problem: Problem | str) -> list[int]:
        """The token ids that ask a problem, or a question given as text."""
        question, language = (problem, "en") if isinstance(problem, str) else (problem.question, problem.language)
        if self.template == "zero":
            return zero_prompt(tokenizer, question, think_prefilled=self.prefilled)
        if self.template == "chat":
            return chat_prompt(tokenizer, [Message("user", question)], think_prefilled=self.prefilled)
        return plain_prompt(tokenizer, question, self.template == "steps", language)

    def longest_prompt(self, tokenizer: Tokenizer, problems: Iterable[Problem]) -> int:
        """Tokens of the longest prompt; 1 if there are no problems."""
        return max((len(self.prompt(tokenizer, problem)) for problem in problems), default=1)

    def stops(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """The tokens that end a reply."""
        return chat_ends(tokenizer) if self.template == "chat" else tokenizer.eos_ids

    def parse(self, reply: str, truncated: bool = False) -> Parsed:
        """Parses a reply strictly.

        Args:
            reply: decoded tokens after the prompt, without the token that ended it.
            truncated: the reply ran into its length limit.
        """
        return parse(reply, think_prefilled=self.prefilled, truncated=truncated, answer_tags=self.answer_tags)


PROMPT_STYLES = (
    PromptStyle("zero", "R1-Zero's template", "zero", thinks=True, strict=True),
    PromptStyle("zero_think", "template, think tag prefilled", "zero", prefilled=True, thinks=True),
    PromptStyle("direct", "asked directly", "plain"),
    PromptStyle("steps", "asked to think step by step", "steps"),
    PromptStyle("chat", "chat format", "chat", prefilled=True, thinks=True, strict=True),
    PromptStyle("chat_direct", "chat format, no thinking", "chat"),
)
