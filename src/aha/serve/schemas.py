"""What may be asked: OpenAI's requests with bounds on everything, strict in types, and nothing unknown.

Fields that a client may send but that mean nothing here are accepted and ignored; fields that would change the answer
and are not supported are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aha.errors import nearest
from aha.serve.errors import ApiError

MAX_MESSAGES = 256
MAX_PARTS = 256
MAX_N = 16
MAX_VOTES = 64
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_PROMPTS = 16
MAX_TOP_LOGPROBS = 20
MAX_TOKENS = 1_000_000

UNSUPPORTED = frozenset({
    "audio", "best_of", "echo", "frequency_penalty", "function_call", "functions", "logit_bias", "modalities",
    "prediction", "presence_penalty", "response_format", "suffix", "tool_calls", "tool_choice", "tools",
})  # fmt: skip
"""Refused unless they ask for nothing: for these the message is the same whatever was wrong."""

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Note = Annotated[str, Field(max_length=1024)]
Nothing = Annotated[list[Any], Field(max_length=0)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
Stops = Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)]
Zero = Annotated[float, Field(ge=0, le=0)]


class Strict(BaseModel):
    """Base of all requests: exact types, finite numbers, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class TextPart(Strict):
    """A piece of a message's text."""

    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    """One turn. Reasoning of earlier turns is accepted and never shown to the model again.

    With `prefix` (DeepSeek's field) an assistant's turn at the end is no reply but the beginning of one: the model goes
    on with the thinking in its `reasoning_content`, which may be empty: then a thinking is opened and no more.
    """

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(max_length=MAX_PARTS)] | None = None
    name: Note | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    prefix: bool | None = None
    refusal: str | None = None
    annotations: Nothing | None = None
    tool_calls: Nothing | None = None
    function_call: None = None
    audio: None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a message of role '{self.role}' needs content")
        if self.prefix and (self.role != "assistant" or self.text or self.reasoning_content is None):
            raise ValueError("prefix: true needs the role 'assistant', reasoning_content to go on with, and no content")
        return self

    @property
    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(Strict):
    """What a stream carries beside its text."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class Thinking(Strict):
    """Whether and how long to think (DeepSeek's field; the numbers are an extension)."""

    type: Literal["enabled", "disabled"] = "enabled"
    budget_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS)
    """At most; then the end of the thinking is forced."""
    min_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS)
    """At least: an end of the thinking that comes before is replaced by "Wait"."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        most = 0 if self.type == "disabled" else self.budget_tokens
        if most is not None and (self.min_tokens or 0) > most:
            raise ValueError(f"min_tokens is {self.min_tokens}, but thinking ends after {most} tokens")
        return self


class ResponseFormat(Strict):
    """Plain text is the only one."""

    type: Literal["text"]


class SamplingRequest(Strict):
    """What both endpoints share."""

    model: Name
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=MAX_N)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: Note | None = None

    @property
    def samples(self) -> int:
        """Completions asked for."""
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(SamplingRequest):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    reasoning_effort: Effort | None = None
    thinking: Thinking | None = None
    votes: int | None = Field(None, ge=1, le=MAX_VOTES)
    """Extension: samples to draw and vote on; the one choice that comes back carries the winning answer."""
    response_format: ResponseFormat | None = None
    tools: Nothing | None = None
    functions: Nothing | None = None
    tool_choice: Literal["none", "auto"] | None = None
    function_call: Literal["none", "auto"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    audio: None = None
    prediction: None = None
    parallel_tool_calls: bool | None = None
    metadata: Annotated[dict[Note, Note], Field(max_length=16)] | None = None
    store: bool | None = None
    service_tier: Note | None = None
    prompt_cache_key: Note | None = None
    safety_identifier: Note | None = None
    verbosity: Literal["low", "medium", "high"] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.messages[-1].role == "assistant" and not self.messages[-1].prefix:
            raise ValueError("the last message is the assistant's; it must be one to answer, or have prefix: true")
        if any(message.prefix for message in self.messages[:-1]) or len(self.turns) == 0:
            raise ValueError("prefix belongs to the last message, after the one to answer")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.votes is not None and self.n not in (None, 1):
            raise ValueError("votes and n exclude each other: votes draws the samples and returns one choice")
        return self

    @property
    def turns(self) -> list[ChatMessage]:
        """The conversation up to what is to be answered."""
        return [message for message in self.messages if not message.prefix]

    @property
    def thought(self) -> str | None:
        """Thinking that the reply begins with, where one is begun."""
        return self.messages[-1].reasoning_content if self.messages[-1].prefix else None

    @property
    def limit(self) -> int | None:
        """Most tokens of a completion, thinking included."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


class CompletionRequest(SamplingRequest):
    """POST /v1/completions: text is continued as it is, without a template."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: Literal[False] | None = None
    suffix: None = None
    best_of: Literal[1] | None = None

    @property
    def prompts(self) -> tuple[str, ...]:
        """The texts to continue."""
        return (self.prompt,) if isinstance(self.prompt, str) else tuple(self.prompt)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.prompts) * self.samples > MAX_VOTES:
            raise ValueError(f"prompts times n must be at most {MAX_VOTES}")
        return self


R = TypeVar("R", bound=Strict)


def read(schema: type[R], body: bytes) -> R:
    """Validates a body that came in no HTTP request.

    Raises:
        ApiError: 400, naming the first parameter that is wrong and how.
    """
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise refusal(schema, error.errors(include_url=False)[0]) from None


def refusal(schema: type[BaseModel], fault: Mapping[str, Any]) -> ApiError:
    """What a client is told about a fault that pydantic has found: 400, naming the parameter and nothing it holds."""
    path = tuple(part for part in fault["loc"] if isinstance(part, int) or (part.isidentifier() and part != "str"))
    param = ".".join(map(str, path))
    shown = param if len(param) <= 128 else param[:128] + "..."  # names come from the client: no endless one goes back
    if any(part in UNSUPPORTED for part in path):
        message = f"{shown!r} is not supported by this server: leave it out"
    elif fault["type"] == "extra_forbidden":
        known = schema.model_fields if len(path) == 1 else ()
        message = f"unknown parameter {shown!r}{nearest(str((path or ('',))[-1])[:64], known)}"
    elif fault["type"] == "missing":
        message = f"{shown or 'a body'!r} is required"
    else:
        text = fault["msg"].removeprefix("Value error, ")
        message = f"{shown!r}: {text}" if shown else text
    return ApiError(400, message, param or None)
