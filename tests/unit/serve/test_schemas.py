"""Bounds and types of requests: everything out of them is a 400 that names the parameter."""

import json

import pytest

from aha.serve.errors import ApiError
from aha.serve.schemas import ChatRequest, CompletionRequest, read

BODY = {"model": "m", "messages": [{"role": "user", "content": "What is 2+2?"}]}


def refused(schema: type, body: object) -> ApiError:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(ApiError) as caught:
        read(schema, text)
    return caught.value


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"n": 0}, "n"), ({"n": 17}, "n"), ({"n": True}, "n"), ({"n": "2"}, "n"), ({"n": 10**30}, "n"),
        ({"temperature": -1}, "temperature"), ({"temperature": 2.1}, "temperature"), ({"top_p": 0}, "top_p"),
        ({"top_p": "1"}, "top_p"), ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 10**9}, "max_completion_tokens"),
        ({"stop": [""]}, "stop.0"), ({"stop": ["x"] * 17}, "stop"),
        ({"stop": "x" * 257}, "stop"), ({"stop": 5}, "stop"),
        ({"seed": 2**63}, "seed"), ({"seed": 1.5}, "seed"), ({"stream": "yes"}, "stream"), ({"votes": 65}, "votes"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"), ({"logprobs": 1}, "logprobs"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"thinking": {"budget_tokens": -1}}, "thinking.budget_tokens"),
        ({"tools": [{"type": "function"}]}, "tools.0"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"logit_bias": {"5": 100}}, "logit_bias"), ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"messages": []}, "messages"), ({"messages": [{"role": "user"}]}, "messages.0"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x"}] * 257}, "messages"), ({"model": ""}, "model"),
        ({"model": "x" * 257}, "model"), ({"temperatur": 1}, "temperatur"), ({"model": None}, "model"),
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused_by_name(settings: dict[str, object], param: str) -> None:
    error = refused(ChatRequest, {**BODY, **settings})
    assert error.status == 400
    assert (error.param or "").startswith(param.removesuffix(".0")), error.param
    assert error.body()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{", b'"x"', b"\xff", b"NaN", b'{"model": "m", "messages": NaN}', b"[" * 100_000,
        b'{"a":' * 50_000, b'{"model": "\\ud800", "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": Infinity}',
        b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
        b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "n": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(body: bytes) -> None:
    assert refused(ChatRequest, body).status == 400
    assert refused(CompletionRequest, body).status == 400


def test_messages_of_errors() -> None:
    assert "did you mean 'temperature'" in refused(ChatRequest, {**BODY, "temperatur": 1}).message
    assert "not supported" in refused(ChatRequest, {**BODY, "tools": [{}]}).message
    assert refused(ChatRequest, {"model": "m"}).message == "'messages' is required"
    assert "exclude each other" in refused(ChatRequest, {**BODY, "votes": 2, "n": 2}).message
    last = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    assert "last message" in refused(ChatRequest, {**BODY, "messages": last}).message
    assert len(refused(ChatRequest, {**BODY, "z" * 5000: 1}).message) < 300
    assert "secret" not in refused(ChatRequest, {**BODY, "n": "secret"}).message
    assert "at most" in refused(CompletionRequest, {"model": "m", "prompt": ["x"] * 16, "n": 16}).message
    assert refused(CompletionRequest, {"model": "m", "prompt": [[1, 2]]}).param == "prompt"


def test_what_clients_send_besides_is_accepted() -> None:
    turn = {"role": "assistant", "content": None, "refusal": None, "annotations": [], "audio": None, "tool_calls": None,
            "function_call": None, "reasoning_content": "hm", "reasoning": "hm", "name": "a"}  # fmt: skip
    question = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    extras = {
        "messages": [{"role": "developer", "content": "be kind"}, turn, question],
        "user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "tools": [], "tool_choice": "none",
        "logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0.0, "response_format": {"type": "text"},
        "stream_options": {"include_usage": True}, "stop": None, "modalities": ["text"], "parallel_tool_calls": True,
    }  # fmt: skip
    request = read(ChatRequest, json.dumps({**BODY, **extras}).encode())
    assert request.messages[-1].text == "ab"
    assert request.wants_usage
