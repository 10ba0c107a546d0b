"""A question, a model, and what the model made of it: the candidates among which every test-time method chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aha.files import derive_seed
from aha.tasks.answers import read_completion
from aha.text.asker import Asker
from aha.text.prompt_style import PROMPT_STYLES
from aha.text.tags import ends_with_tag, find_tag
from aha.text.tokenizer import END_THINK, THINK
from aha.types import Completion, FinishReason, Problem, Request, SamplingParams


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer that a method saw, with what it cost. Whether it is right is nothing that a method may know."""

    text: str
    """All that stands after the prompt, forced tokens included, without the end-of-sentence token."""
    answer: str
    vote: str | None
    """The answer in canonical form; None where there is no answer that counts."""
    tokens: int
    """Tokens sampled for it, the suppressed ones included."""
    forced_tokens: int
    """Tokens put into it from outside."""
    mean_logprob: float
    """Of the sampled tokens, in nats at temperature 1; 0 without any."""
    truncated: bool
    thinking_tokens: int
    """Tokens up to the end of the thinking, of all where it has none."""
    thinking: str
    """What it thought. Reward models read this and `visible`."""
    visible: str
    """What a user would see as the answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a method answers, what it spent, and what it saw."""

    answer: str
    """Empty where there was no answer to choose."""
    vote: str | None
    tokens: int
    """All tokens sampled for this question, those of candidates that lost included."""
    forced_tokens: int
    """All tokens put in from outside: nobody had to sample them, so they are counted apart."""
    seen: tuple[Candidate, ...]


def outcome(chosen: Candidate | None, seen: Sequence[Candidate]) -> Outcome:
    """The outcome of choosing one candidate, or none, after having paid for all."""
    return Outcome(
        chosen.answer if chosen else "",
        chosen.vote if chosen else None,
        sum(candidate.tokens for candidate in seen),
        sum(candidate.forced_tokens for candidate in seen),
        tuple(seen),
    )


@dataclass(slots=True)
class Trace:
    """A completion as it grows, piece by piece, by sampling and by force."""

    problem: Problem
    token_ids: list[int] = field(default_factory=list)
    """What stands after the prompt so far."""
    sampled: int = 0
    forced: int = 0
    logprobs: float = 0.0
    """Sum over the sampled tokens."""
    ended: bool = False
    """The model ended it; if not, it is truncated."""
    thinking_forced: bool = False
    """The thinking was ended from outside."""

    def take(self, completion: Completion) -> None:
        """Adds what was sampled."""
        self.token_ids += completion.token_ids
        self.sampled += len(completion.token_ids)
        self.logprobs += sum(completion.logprobs)

    def force(self, token_ids: Sequence[int]) -> None:
        """Adds what nobody sampled."""
        self.token_ids += token_ids
        self.forced += len(token_ids)


@dataclass(frozen=True)
class Respondent(Asker):
    """A model as test-time methods use it: how it is asked, how it is sampled, and how long it may go on.

    All randomness comes from (seed, method, problem key, number): neither the other questions nor the order matter.
    """

    sampling: SamplingParams
    """Of one sample as it is."""
    room: int
    """Tokens after the prompt that fit at all: the limit of what is prolonged from outside."""
    seed: int = 0

    def require_thinking(self, method: str) -> None:
        """Refuses a prompt style without thinking.

        Raises:
            ValueError: with the styles that have one.
        """
        if not self.style.thinks:
            raise ValueError(
                f"{method} needs a model that thinks between tags; asked as {self.style.name!r} it does not: "
                f"ask as one of {', '.join(style.name for style in PROMPT_STYLES if style.thinks)}"
            )

    def continuation(
        self, problem: Problem, seed: int, limit: int, after: Sequence[int] = (), tags: Sequence[str] = ()
    ) -> Request:
        """A request to go on after a prompt and the beginning of a reply.

        Args:
            problem: to ask.
            seed: of the sampling.
            limit: tokens to sample, at most.
            after: what the reply begins with, forced or sampled.
            tags: what ends it, besides the end of the sentence.
        """
        ends = [ends_with_tag(self.tokenizer, tag) for tag in tags]
        sampling = replace(
            self.sampling,
            max_completion_tokens=limit,
            stop_token_ids=tuple(id_ for ids, _ in ends for id_ in ids),
            stop_sequences=tuple(sequence for _, sequences in ends for sequence in sequences),
        )
        return self.request(problem, sampling, seed, after)

    def samples(self, problems: Sequence[Problem], n: int = 1) -> list[list[Completion]]:
        """Independent samples of each problem; result[i] belongs to problem i."""
        seeds = [self.seed_for("samples", problem, 0) for problem in problems]
        replies = self.ask(problems, replace(self.sampling, n=n), seeds)
        return [[reply.completion for reply in own] for own in replies]

    def seed_for(self, method: str, problem: Problem, *parts: int) -> int:
        """The seed of one request."""
        return derive_seed(self.seed, method, problem.key, *parts)

    def candidate(self, trace: Trace) -> Candidate:
        """Reads a trace."""
        ids = trace.token_ids
        ended = bool(ids) and ids[-1] in self.style.stops(self.tokenizer)
        text = self.tokenizer.decode(ids[:-1] if ended else ids)
        reading = read_completion(trace.problem, text, not trace.ended, self.style, forced=trace.thinking_forced)
        return Candidate(
            text,
            reading.answer,
            reading.vote,
            trace.sampled,
            trace.forced,
            trace.logprobs / trace.sampled if trace.sampled else 0.0,
            not trace.ended,
            len(closed.before) if (closed := find_tag(self.tokenizer, ids, END_THINK)) else len(ids),
            reading.parsed.thinking or text.replace(THINK, "").split(END_THINK)[0].strip(),
            reading.visible,
        )


def read(
    respondent: Respondent, problems: Sequence[Problem], drawn: Sequence[Sequence[Completion]]
) -> list[list[Candidate]]:
    """Reads whole samples; drawn[i] are those of problem i."""
    return [
        [respondent.candidate(whole(problem, completion)) for completion in completions]
        for problem, completions in zip(problems, drawn, strict=True)
    ]


def whole(problem: Problem, completion: Completion) -> Trace:
    """A sample as it is."""
    trace = Trace(problem, ended=completion.finish_reason is FinishReason.STOP)
    trace.take(completion)
    return trace
