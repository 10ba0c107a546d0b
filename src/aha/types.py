"""The values that travel between layers: problems, requests, completions, rollouts. No torch here.

Shape legend of the whole package: B batch, T time, D model dim, H heads, K head dim, L layers, V vocab, E routed
experts, A experts per token, F expert hidden dim, C latent dim, R rope dim, G group, N flattened tokens.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Language = Literal["en", "zh"]
Domain = Literal["math", "code", "science", "logic", "general"]
"""The four domains of R1's reasoning RL, and everything else (writing, facts, role-play, translation, safety)."""
Style = Literal["guess", "given_up", "long"]
"""How a solution is written: a guess; work that is given up half-way for a guess; the whole way."""
Voice = Literal["en", "zh", "mixed"]
"""The language of a solution's words; `mixed` takes Chinese ones whatever the question's language."""


class FinishReason(enum.StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    """The model produced a stop token or a stop sequence."""
    LENGTH = "length"
    """The limit on completion tokens or on context was reached: the completion is truncated."""
    CANCELLED = "cancelled"
    """The caller withdrew the request."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str
    reasoning_content: str | None = None
    """The thinking of an assistant turn, kept apart from the answer."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A question whose answer can be checked by rules.

    Two problems are the same problem when `family` and `facts` agree, whatever the wording or language of the question:
    `key` hashes exactly those, and it is what training and held-out sets are kept apart by.
    """

    family: str
    domain: Domain
    level: int
    """From 1, the easiest, on."""
    language: Language
    question: str
    answer: str
    """One right answer in canonical form. Other right answers may exist: ask the family's verifier."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the problem says, as JSON-able values; never the wording. Verifiers and solvers read only this.
    Names that begin with `_` are no part of its identity: how it is presented (the order of terms), how it was made
    (which operations were allowed). What is the same problem to somebody who solves it has the same others."""

    @property
    def key(self) -> str:
        """Sixteen hex digits that identify the problem in canonical form."""
        identity = {name: value for name, value in self.facts.items() if not name.startswith("_")}
        text = json.dumps([self.family, identity], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_hint(self, instruction: str) -> Problem:
        """The same problem with an instruction below its question."""
        return replace(self, question=f"{self.question}\n\n{instruction}") if instruction else self


@dataclass(frozen=True, slots=True)
class Solution:
    """A worked solution as somebody might write it: it can contain slips, so its answer can be wrong."""

    thinking: str
    answer: str


class Piece(NamedTuple):
    """A part of a document of the corpus, as markup."""

    text: str
    predictable: bool = True
    """False of what nobody can foretell: operands of a question, guesses."""


@dataclass(frozen=True, slots=True)
class Step:
    """One written step of a text of thinking."""

    text: str
    true: bool
    line: int
    """The number of its line."""
    accepts: bool | None = None
    """None: a computation; True: a verdict that takes an attempt, False: one that sends it away."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to sample one request's completions."""

    temperature: float = 1.0
    """0 takes the most likely token."""
    top_p: float = 1.0
    """Nucleus: keep the most likely tokens until their probability reaches this. 1 keeps all."""
    max_completion_tokens: int = 256
    stop_token_ids: tuple[int, ...] = ()
    """A completion ends with (and includes) the first of these."""
    stop_sequences: tuple[tuple[int, ...], ...] = ()
    """Token-id sequences that end a completion, included in it."""
    n: int = 1
    """Completions per prompt, sharing one prefill."""
    seed: int = 0
    """Sample i of a request draws from its own stream, a function of (seed, i) alone: never of the batch around it."""
    top_logprobs: int = 0
    """How many of the most likely tokens are kept at each position, beside the one that was taken."""
    report_experts: bool = False
    """Whether completions say which experts each token went through; the built-in engine alone can."""
    processed_logprobs: bool = False
    """Whether log-probabilities are those at `temperature`, as a trainer compares them, instead of at temperature 1."""


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to be continued. To continue from forced tokens, append them to the prompt."""

    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the engine made of one sample of a request."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Log-probability, in nats, of each token of `token_ids` under the weights that sampled it: at temperature 1, or at
    the temperature of sampling where the request asked for processed ones. A nucleus does not show in them."""
    finish_reason: FinishReason
    weights_version: int = 0
    experts: NDArray[np.int16] | None = field(default=None, compare=False)
    """Where asked for: those that each mixture-of-experts layer chose, [P + T - 1, L, A], for the prompt's P tokens and
    the completion's T without the last, which no layer has seen."""


@dataclass(slots=True)
class Rollout:
    """One sampled completion of a problem, with its rewards by part."""

    completion_token_ids: tuple[int, ...]
    old_logprobs: tuple[float, ...]
    finish_reason: FinishReason
    text: str = ""
    rewards: dict[str, float] = field(default_factory=dict)
    """Unweighted rewards by name, for logging."""
    reward: float | None = None
    """The weighted sum, or None where a grader gave no verdict: such a sample is dropped, not scored 0."""
    advantage: float = 0.0
    experts: NDArray[np.int16] | None = field(default=None, compare=False)
    """`Completion.experts` of the completion's tokens, [T - 1, L, A]."""
    forced: range = range(0)
    """Places in `completion_token_ids` of tokens that were put in from outside: nothing is learnt from them, and in
    `old_logprobs` 0 stands for them."""

    @property
    def sampled_tokens(self) -> int:
        """How many of the tokens the model has sampled, and is trained on."""
        return len(self.completion_token_ids) - len(self.forced)


@dataclass(slots=True)
class RolloutGroup:
    """The G completions of one prompt, over which advantages are computed."""

    problem: Problem
    prompt_token_ids: tuple[int, ...]
    rollouts: list[Rollout] = field(default_factory=list)
    prompt_experts: NDArray[np.int16] | None = field(default=None, compare=False)
    """`Completion.experts` of the prompt's tokens, [P, L, A]."""
