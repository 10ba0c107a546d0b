"""OpenAI's own client, unchanged, against the server on a socket; and the requests that Open WebUI makes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import openai
import pytest

from aha.serve.app import create_app
from aha.serve.config import ServeConfig
from aha.serve.served import ServedModel
from aha.text.tokenizer import END_THINK, Tokenizer
from aha.types import Request

KEY = "sk-test"
QUESTION = [{"role": "user", "content": "What is 2+2?"}]


@pytest.fixture
def sdk(models: list[ServedModel], listening: Callable[..., AbstractContextManager[int]]) -> Iterator[openai.OpenAI]:
    with (
        listening(create_app(models, ServeConfig(), KEY)) as port,
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


WEBUI = {
    "Authorization": f"Bearer {KEY}",
    "Content-Type": "application/json",
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate, br",
    "User-Agent": "Python/3.11 aiohttp/3.12.15",
    "X-OpenWebUI-User-Name": "J%C3%B6rg",
    "X-OpenWebUI-User-Id": "5c9e",
    "X-OpenWebUI-User-Email": "me@example.org",
    "X-OpenWebUI-User-Role": "admin",
    "X-OpenWebUI-Chat-Id": "77aa",
}
"""Its headers, with the forwarding of users switched on."""
TITLE = """### Task:
Generate a concise, 3-5 word title with an emoji summarizing the chat history.
### Output:
JSON format: { "title": "your concise title here" }
### Chat History:
<chat_history>
USER: What is 2+2?
ASSISTANT: The answer is 4.
</chat_history>"""


def test_open_webuis_requests(scripted: Any, tokenizer: Tokenizer) -> None:
    """Its list of models, a stream with usage, its title request; and what is refused of its settings."""

    def script(request: Request, index: int) -> list[int]:
        asked = tokenizer.decode(request.prompt_token_ids)
        answer = '{"title": "A sum"}' if "### Task" in asked else "The answer is 4."
        return [*tokenizer.encode("so"), tokenizer.control_id(END_THINK), *tokenizer.encode(answer), tokenizer.eos_id]

    with scripted(script, api_key=KEY, max_context=4000) as (http, _, _):
        http.headers.clear()
        http.headers.update(WEBUI)
        listed = http.get("/v1/models").json()
        assert listed["object"] == "list" and [model["id"] for model in listed["data"]] == ["m"]
        thought = "<think>hm</think>\nThe answer is 4."
        body = {
            "stream": True,
            "model": "m",
            "messages": [
                {"role": "system", "content": "User Context:\n\nBe brief."},
                *QUESTION,
                {"role": "assistant", "content": thought},
                {"role": "user", "content": [{"type": "text", "text": "And again?"}]},
            ],
            "stream_options": {"include_usage": True},
            "temperature": 0.8,
            "top_p": 0.9,
            "max_tokens": 128,
            "seed": 7,
            "stop": ["###"],
            "frequency_penalty": 0.0,
            "presence_penalty": 0.0,
            "reasoning_effort": "medium",
            "logit_bias": {},
        }
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
            lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
        assert lines.pop() == "[DONE]"
        chunks = [json.loads(line) for line in lines]
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "so"
        assert "".join(delta.get("content", "") for delta in deltas) == "The answer is 4."
        assert chunks[-1]["usage"]["completion_tokens"] > 0 and chunks[-1]["choices"] == []
        title = {"model": "m", "messages": [{"role": "user", "content": TITLE}], "stream": False}
        whole = http.post("/v1/chat/completions", json={**title, "max_completion_tokens": 1000}).json()
        assert json.loads(whole["choices"][0]["message"]["content"]) == {"title": "A sum"}
        for name, value in (("top_k", 40), ("min_p", 0.05), ("repeat_penalty", 1.1), ("frequency_penalty", 0.5)):
            refused = http.post("/v1/chat/completions", json={**body, name: value})
            assert refused.status_code == 400 and refused.json()["error"]["param"] == name
