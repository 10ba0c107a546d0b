"""Where layers meet: the engine, the tasks and the rewards as the rest of the package sees them. No torch here."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from aha.types import Completion, Domain, FinishReason, Language, Problem, Request, Solution, Step, Style, Voice


@runtime_checkable
class Generator(Protocol):
    """Token ids in, token ids and log-probabilities out. Whatever samples, scores or streams stands behind this."""

    @property
    def weights_version(self) -> int:
        """The version of the weights in use, as given to `load_weights`."""
        ...

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Completes every request; result[i][j] is sample j of request i."""
        ...

    def stream(self, request: Request) -> Iterator[tuple[int, float]]:
        """Yields (token id, log-probability) of one sample as it is made. Closing the iterator cancels the request."""
        ...

    def cancel(self, request_id: str) -> None:
        """Ends a request: its samples return what they have, with FinishReason.CANCELLED."""
        ...

    def score(self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Log-probabilities of given completions: for each (prompt ids, completion ids).

        One number per completion token.
        """
        ...

    def load_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """Replaces the weights (name to tensor, as in the model's state) and names their version."""
        ...


class LiveSample(Protocol):
    """One sample of a request while it is made: a step adds a token, or several where the engine speculates.

    It can be steered between steps, and after each of its tokens by who watches it.
    """

    @property
    def tokens(self) -> Sequence[int]:
        """What it has so far."""
        ...

    @property
    def logprobs(self) -> Sequence[float]:
        """One for each of `tokens`."""
        ...

    @property
    def top_logprobs(self) -> Sequence[Sequence[tuple[int, float]]]:
        """For each of `tokens`, the most likely ones, if the request asked for them; else nothing."""
        ...

    @property
    def finish_reason(self) -> FinishReason | None:
        """None while it runs or waits."""
        ...

    def force(self, token_ids: Sequence[int]) -> None:
        """Makes these its next tokens, whatever the model would say; then it goes on by itself."""
        ...

    def take_back(self, count: int) -> None:
        """Takes the last tokens away again, for `watcher` to call: what comes next follows the ones that are left."""
        ...

    def watch(self, watcher: Callable[[], None]) -> None:
        """Has `watcher` called after each new token, before the next is decided: it may force, take back, or end."""
        ...

    def end(self, reason: FinishReason) -> None:
        """Ends it with what it has; its place is free at the next step."""
        ...


@runtime_checkable
class BatchGenerator(Protocol):
    """A generator whose steps somebody else drives: requests come and go while others run. For one thread."""

    @property
    def max_context(self) -> int:
        """Prompt and completion tokens of one sample, at most."""
        ...

    @property
    def max_rows(self) -> int:
        """Samples that run at once; more wait."""
        ...

    def add(self, request: Request) -> Sequence[LiveSample]:
        """Queues a request and returns its n samples. Raises GenerationError if it can never be served."""
        ...

    def step(self) -> bool:
        """Advances every running sample by at least one token; returns whether there is anything left to do."""
        ...

    def reset(self) -> None:
        """Forgets all requests, after an error."""
        ...


class Judge(Protocol):
    """Says what answers to a problem are worth."""

    def verify(self, problem: Problem, answer: str) -> bool:
        """Whether an answer, read from a completion, is right. Raises GradingError if it cannot be judged here."""
        ...

    def canonical(self, problem: Problem, answer: str) -> str | None:
        """The one text of all answers that are equivalent to this one; None for what is not an answer at all.

        Votes count these. It is a function of the question and the answer alone and never looks at the right answer;
        equivalent answers are all right or all wrong, and what is not an answer is wrong.
        """
        ...

    def check_steps(self, problem: Problem, thinking: str) -> Sequence[Step]:
        """The steps of a text of thinking that can be checked, each with whether it is true."""
        ...


@runtime_checkable
class Family(Judge, Protocol):
    """A family of verifiable problems with levels of difficulty, in two languages. Its `verify` never raises."""

    name: str
    domain: Domain
    levels: tuple[int, ...]

    def sample(self, rng: random.Random, level: int, language: Language) -> Problem:
        """Draws a problem."""
        ...

    def solve(
        self,
        problem: Problem,
        rng: random.Random,
        style: Style,
        voice: Voice,
        second_pass: float = 0.0,
        slip: float = 0.0,
        further_pass: float = 0.0,
        restate: bool = True,
    ) -> Solution:
        """Writes a solution as somebody might.

        Args:
            problem: to solve.
            rng: of all that is random.
            style: a guess, work that is given up for a guess, or the whole way.
            voice: language of the words.
            second_pass: of whole ways, the share that goes on with "Wait" and a second pass.
            slip: of these, the share whose first pass holds a mistake, which a later one repairs.
            further_pass: probability of one more pass after two that agree.
            restate: each line carries the state that the next one needs.
        """
        ...


@runtime_checkable
class GeneralFamily(Family, Protocol):
    """A family of tasks beyond reasoning, whose answers are better or worse rather than right or wrong."""

    def score(self, problem: Problem, response: str) -> float:
        """How good a response truly is, in [0, 1]: the world checks its own constraints exactly. Never raises."""
        ...

    def think(self, problem: Problem) -> str:
        """A few words on what is asked, as thinking before a response."""
        ...

    def respond(self, problem: Problem, rng: random.Random, quality: float = 1.0) -> str:
        """Writes a response as somebody might: with probability 1 - `quality` a worse one."""
        ...


class Scorer(Protocol):
    """A learned judge of finished sequences: a reward model, as the rewards see it."""

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """One finite number per token sequence; larger is better. Only differences and order have a meaning."""
        ...


@runtime_checkable
class DatasetTask(Judge, Protocol):
    """A set of problems from a file, with the rule that judges answers to them, or texts that state one."""

    name: str
    domain: Domain
    files: Mapping[str, str]
    """Where the problems of each split lie in the data folder."""
    hub: str
    """The dataset's name on the Hugging Face hub; empty where there is none."""
    needs_problem: bool
    """Whether a gold answer alone is not enough to judge by."""
    instruction: str
    """What a model is told beside the question, so that its answer can be read; empty: nothing."""

    def problem(self, row: Mapping[str, Any], place: str, index: int) -> Problem:
        """Makes a problem of row `index` (from 0). Raises ConfigError, with the place, where it is none."""
        ...

    def from_answer(self, answer: str) -> Problem:
        """A problem of which nothing but the gold answer is known. Raises ValueError if it is none."""
        ...

    def prepare(self) -> None:
        """Starts what `verify` needs. Raises GradingError, with the way to get it, where it is not there."""
        ...

    def gold(self, problem: Problem) -> str | None:
        """An answer that is right; None where none is known."""
        ...

    def solution(self, problem: Problem) -> Solution | None:
        """The data's own worked solution, to train on; None where there is none."""
        ...

    def wrong_answers(self, problem: Problem) -> list[str]:
        """Answers that are wrong, some of them nearly right."""
        ...

    def close(self) -> None:
        """Ends what grading has started."""
        ...
