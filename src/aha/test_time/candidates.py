"""A question, a model, and what the model made of it: the candidates among which every test-time method chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from aha.files import derive_seed
from aha.protocols import Generator
from aha.tasks.answers import read_completion
from aha.text.elicitation import PREFILLED, THINKING, Elicitation, prompt_for, stop_ids
from aha.text.tags import ends_with_tag, find_tag
from aha.text.tokenizer import END_THINK, THINK, Tokenizer
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
    """What it thought, and `shown` what a user would be shown as the answer: what reward models read."""
    shown: str


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
class Respondent:
    """A model as test-time methods use it: the engine, how it is asked, and how it is sampled.

    All randomness comes from (seed, method, problem key, number): neither the other questions nor the order matter.
    """

    generator: Generator
    tokenizer: Tokenizer
    elicitation: Elicitation
    max_completion_tokens: int
    """Of one sample as it is."""
    room: int
    """Tokens after the prompt that fit at all: the limit of what is prolonged from outside."""
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 1.0

    def thinks(self, token_ids: Sequence[int]) -> bool:
        """Whether a completion has begun to think between tags."""
        return self.elicitation in PREFILLED or find_tag(self.tokenizer, token_ids, THINK) is not None

    def require_thinking(self, method: str) -> None:
        """Refuses a way of asking under which there is no thinking to take hold of.

        Raises:
            ValueError: with the ways that have one.
        """
        if self.elicitation not in THINKING:
            raise ValueError(
                f"{method} needs a model that thinks between tags; asked as {self.elicitation!r} it does not: "
                f"ask as one of {', '.join(THINKING)}"
            )

    def request(
        self, problem: Problem, seed: int, limit: int, after: Sequence[int] = (), tags: Sequence[str] = (), n: int = 1
    ) -> Request:
        """A request to go on after a prompt and what stands behind it.

        Args:
            problem: what is asked.
            seed: of the sampling.
            limit: tokens to sample, at most.
            after: what stands after the prompt already, forced or sampled.
            tags: what ends it, besides the end of the sentence.
            n: samples.
        """
        ends = [ends_with_tag(self.tokenizer, tag) for tag in tags]
        sampling = SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            max_completion_tokens=limit,
            stop_token_ids=(*stop_ids(self.tokenizer, self.elicitation), *(id_ for ids, _ in ends for id_ in ids)),
            stop_sequences=tuple(sequence for _, sequences in ends for sequence in sequences),
            n=n,
            seed=seed,
        )
        return Request((*prompt_for(self.tokenizer, problem, self.elicitation), *after), sampling)

    def seed_for(self, method: str, problem: Problem, *parts: int) -> int:
        """The seed of one request."""
        return derive_seed(self.seed, method, problem.key, *parts)

    def candidate(self, trace: Trace) -> Candidate:
        """Reads a trace."""
        ids = trace.token_ids
        ended = bool(ids) and ids[-1] in stop_ids(self.tokenizer, self.elicitation)
        text = self.tokenizer.decode(ids[:-1] if ended else ids)
        reading = read_completion(trace.problem, text, not trace.ended, self.elicitation, forced=trace.thinking_forced)
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
            reading.shown,
        )


def sample(respondent: Respondent, problems: Sequence[Problem], n: int = 1) -> list[list[Candidate]]:
    """Independent samples of each problem, read; result[i] belongs to problem i."""
    return read(respondent, problems, draw(respondent, problems, n))


def draw(
    respondent: Respondent,
    problems: Sequence[Problem],
    n: int = 1,
    method: str = "samples",
    numbers: Sequence[int] | None = None,
    limit: int | None = None,
) -> list[list[Completion]]:
    """Independent samples of each problem, as they came; result[i] belongs to problem i.

    Args:
        respondent: the model.
        problems: what is asked.
        n: samples of each.
        method: names the streams of random numbers.
        numbers: one per problem, for streams that differ from an earlier call's.
        limit: tokens of a sample, where that is to be less than the respondent's own limit.
    """
    limit = min(limit or respondent.max_completion_tokens, respondent.max_completion_tokens)
    requests = [
        respondent.request(problem, respondent.seed_for(method, problem, number), limit, n=n)
        for problem, number in zip(problems, numbers or [0] * len(problems), strict=True)
    ]
    return respondent.generator.generate(requests)


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
