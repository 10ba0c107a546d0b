"""The one way to ask a model: problems in, replies out, in a prompt style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from aha.protocols import Generator
from aha.text.prompt_style import PromptStyle
from aha.text.tags import find_tag
from aha.text.tokenizer import THINK, Tokenizer
from aha.types import Completion, FinishReason, Problem, Request, SamplingParams


@dataclass(frozen=True, slots=True)
class Reply:
    """One completion as text."""

    completion: Completion
    text: str
    """Without the token that ended it."""
    truncated: bool
    """It ran into its length limit."""


@dataclass(frozen=True)
class Asker:
    """A model with its tokenizer and the style in which it is prompted."""

    generator: Generator
    tokenizer: Tokenizer
    style: PromptStyle

    def request(
        self, problem: Problem | str, sampling: SamplingParams, seed: int = 0, after: Sequence[int] = ()
    ) -> Request:
        """What the generator is given for one problem.

        Args:
            problem: to ask, or the text of a question.
            sampling: how. Its stop tokens are added to those of the style, its seed is replaced.
            seed: of the samples.
            after: tokens that the reply already begins with.
        """
        stops = (*self.style.stops(self.tokenizer), *sampling.stop_token_ids)
        prompt = (*self.style.prompt(self.tokenizer, problem), *after)
        return Request(prompt, replace(sampling, stop_token_ids=stops, seed=seed))

    def ask(
        self,
        problems: Sequence[Problem | str],
        sampling: SamplingParams | Sequence[SamplingParams],
        seeds: Sequence[int],
    ) -> list[list[Reply]]:
        """Samples `sampling.n` replies to each problem; result[i] belongs to problem i.

        Args:
            problems: to ask, or texts of questions.
            sampling: how all are sampled, or how each is; the stop tokens are the style's.
            seeds: one per problem.

        Raises:
            GenerationError: a prompt does not fit the context.
        """
        each = [sampling] * len(problems) if isinstance(sampling, SamplingParams) else sampling
        requests = [self.request(*one) for one in zip(problems, each, seeds, strict=True)]
        return [[self.reply(one) for one in completions] for completions in self.generator.generate(requests)]

    def thinks(self, token_ids: Sequence[int]) -> bool:
        """Whether a completion has begun to think between tags."""
        return self.style.prefilled or find_tag(self.tokenizer, token_ids, THINK) is not None

    def reply(self, completion: Completion) -> Reply:
        """A completion as text."""
        ended = completion.finish_reason is FinishReason.STOP
        text = self.tokenizer.decode(completion.token_ids[:-1] if ended else completion.token_ids)
        return Reply(completion, text, truncated=not ended)
