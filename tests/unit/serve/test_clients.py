"""OpenAI's own client, unchanged, against the server on a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import openai
import pytest

from aha.serve.app import create_app
from aha.serve.catalog import Catalog
from aha.serve.config import ServeConfig
from aha.serve.served import ServedModel

KEY = "sk-test"
QUESTION = [{"role": "user", "content": "What is 2+2?"}]


@pytest.fixture
def sdk(models: list[ServedModel], listening: Callable[..., AbstractContextManager[int]]) -> Iterator[openai.OpenAI]:
    with (
        listening(create_app(Catalog(models, ServeConfig()), KEY)) as port,
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0) as client,
    ):
        yield client


def test_chat_stream_and_completion(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == ["r1", "v3", "r1-zero"]
    assert sdk.models.retrieve("v3").id == "v3"
    settings = {"model": "r1", "messages": QUESTION, "max_completion_tokens": 30, "seed": 2, "temperature": 1.0}
    whole = sdk.chat.completions.create(**settings)  # type: ignore[call-overload]
    message = whole.choices[0].message
    assert whole.usage.completion_tokens_details.reasoning_tokens > 0
    pieces = {"content": "", "reasoning_content": ""}
    usage = None
    options = {"stream": True, "stream_options": {"include_usage": True}}
    for chunk in sdk.chat.completions.create(**settings, **options):  # type: ignore[call-overload]
        usage = chunk.usage or usage
        for choice in chunk.choices:
            for part in pieces:
                pieces[part] += getattr(choice.delta, part, None) or ""
    assert pieces == {"content": message.content, "reasoning_content": message.reasoning_content or ""}
    assert usage == whole.usage
    again = [*QUESTION, message.model_dump(), *QUESTION]
    assert sdk.chat.completions.create(model="r1", messages=again, max_tokens=3).choices  # type: ignore[arg-type]
    text = sdk.completions.create(model="v3", prompt="2+2", max_tokens=5, logprobs=1, seed=1).choices[0]
    assert text.logprobs is not None and len(text.logprobs.tokens or []) == 5
    votes = sdk.chat.completions.create(model="v3", messages=QUESTION, max_tokens=5, extra_body={"votes": 3})  # type: ignore[arg-type]
    assert votes.choices[0].votes["of"] == 3  # type: ignore[attr-defined]


def test_errors_are_the_clients_own(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        sdk.chat.completions.create(model="r1", messages=QUESTION, n=100)  # type: ignore[arg-type]
    assert bad.value.param == "n"
    with pytest.raises(openai.NotFoundError, match="no such model"):
        sdk.chat.completions.create(model="gpt", messages=QUESTION)  # type: ignore[arg-type]
    with pytest.raises(openai.AuthenticationError, match="API key"):
        sdk.with_options(api_key="wrong").models.list()
