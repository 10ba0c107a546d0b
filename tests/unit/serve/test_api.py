"""The API with the built-in engine: streams equal whole answers, seeds, counts, stops, log-probabilities, errors."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from aha.serve.app import create_app
from aha.serve.config import ServeConfig
from aha.serve.served import ServedModel
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import CONTROL_TOKENS, END_THINK, Tokenizer
from aha.types import Request

from .conftest import talking

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
Body = dict[str, Any]


def chat(model: str = "r1", text: str = "What is 2+2?", **settings: Any) -> Body:
    return {"model": model, "messages": [{"role": "user", "content": text}], **settings}


def post(client: TestClient, body: Body, path: str = CHAT) -> Body:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    result: Body = answer.json()
    return result


def events(client: TestClient, body: Body, path: str = CHAT) -> list[Body]:
    with client.stream("POST", path, json={**body, "stream": True}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def joined(chunks: list[Body], index: int = 0) -> Body:
    """What a client puts together from a stream's chunks of one sample."""
    result: Body = {"reasoning_content": "", "content": "", "finish_reason": None, "logprobs": [], "role": None}
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != index:
                continue
            result["reasoning_content"] += choice["delta"].get("reasoning_content", "")
            result["content"] += choice["delta"].get("content", "")
            result["role"] = choice["delta"].get("role") or result["role"]
            result["finish_reason"] = choice["finish_reason"] or result["finish_reason"]
            if choice["logprobs"]:
                result["logprobs"] += choice["logprobs"]["reasoning_content"] + choice["logprobs"]["content"]
    return result


@pytest.mark.parametrize("model", ["r1", "v3", "r1-zero"])
@pytest.mark.parametrize("settings", [{}, {"n": 3}, {"stop": ["e", "a"]}, {"thinking": {"budget_tokens": 4}}])
def test_a_stream_is_the_whole_answer(client: TestClient, model: str, settings: Body) -> None:
    body = chat(model, seed=7, max_completion_tokens=40, logprobs=True, temperature=1.0, **settings)
    whole = post(client, body)
    chunks = events(client, {**body, "stream_options": {"include_usage": True}})
    assert len(whole["choices"]) == settings.get("n", 1)
    for choice in whole["choices"]:
        stream = joined(chunks, choice["index"])
        message = choice["message"]
        assert stream["role"] == "assistant"
        assert stream["content"] == message["content"]
        assert stream["reasoning_content"] == (message["reasoning_content"] or "")
        assert stream["finish_reason"] == choice["finish_reason"]
        assert len(stream["logprobs"]) == sum(map(len, choice["logprobs"].values()))
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert len({chunk["id"] for chunk in chunks}) == 1
    said = "".join(f"{c['message']['content']} {c['message']['reasoning_content']}" for c in whole["choices"])
    assert not any(token in said for token in CONTROL_TOKENS)


def test_usage_counts_tokens(client: TestClient, tokenizer: Tokenizer) -> None:
    answer = post(client, chat(max_completion_tokens=30, seed=1, logprobs=True, n=2))
    usage, scores = answer["usage"], [choice["logprobs"] for choice in answer["choices"]]
    content, reasoning = (sum(len(s[part]) for s in scores) for part in ("content", "reasoning_content"))
    assert usage["completion_tokens_details"]["reasoning_tokens"] == reasoning
    assert content + reasoning <= usage["completion_tokens"] <= content + reasoning + 2  # the ends of turns
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    question = len(tokenizer.encode("What is 2+2?"))
    assert usage["prompt_tokens"] == question + 4 + len(tokenizer.encode("\n"))


def test_seeds(client: TestClient) -> None:
    def content(**settings: Any) -> list[str]:
        body = {"model": "r1", "prompt": "2+2", "max_tokens": 24, **settings}
        return [choice["text"] for choice in post(client, body, TEXT)["choices"]]

    assert content(seed=5, n=3) == content(seed=5, n=3)
    assert content(seed=5)[0] == content(seed=5, n=3)[0]
    assert content(seed=5) != content(seed=6)
    assert content() != content()
    assert len(set(content(n=4, prompt=["a", "a"]))) == 8
    assert content(temperature=0) == content(temperature=0, seed=9) == content(temperature=1e-300)
    assert content(top_p=1e-300) == content(temperature=0)


def test_stop_strings_span_tokens(client: TestClient) -> None:
    body = {"model": "v3", "prompt": "2+2", "max_tokens": 60, "seed": 3}
    free = post(client, body, TEXT)["choices"][0]["text"]
    for start in range(2, 20, 3):
        stop = free[start : start + 5]
        answer = post(client, {**body, "stop": [stop, "never said"]}, TEXT)
        assert answer["choices"][0]["text"] == free[: free.index(stop)]
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] < 60
        streamed = events(client, {**body, "stop": stop}, TEXT)
        assert "".join(c["choices"][0]["text"] for c in streamed) == free[: free.index(stop)]


def test_one_sample_stops_and_the_others_go_on(client: TestClient) -> None:
    body = {"model": "v3", "prompt": "2+2", "max_tokens": 40, "seed": 11, "n": 4}
    free = [choice["text"] for choice in post(client, body, TEXT)["choices"]]
    stop = free[0][5:9]
    stopped = [choice["text"] for choice in post(client, {**body, "stop": stop}, TEXT)["choices"]]
    assert stopped == [text.partition(stop)[0] for text in free]
    assert stopped[0] != free[0] and stopped[1:] != [""] * 3


def test_logprobs(client: TestClient) -> None:
    answer = post(client, chat("v3", logprobs=True, top_logprobs=3, max_completion_tokens=12, temperature=0, seed=0))
    for score in answer["choices"][0]["logprobs"]["content"]:
        top = score["top_logprobs"]
        assert len(top) == 3
        assert score["logprob"] <= 0
        assert [entry["logprob"] for entry in top] == sorted((entry["logprob"] for entry in top), reverse=True)
        assert (score["token"], score["bytes"]) == (top[0]["token"], top[0]["bytes"])
    body = {"model": "v3", "prompt": "2+2", "max_tokens": 9, "logprobs": 2, "seed": 1}
    whole = post(client, body, TEXT)["choices"][0]["logprobs"]
    assert {len(values) for values in whole.values()} == {9}
    parts = [chunk["choices"][0]["logprobs"] for chunk in events(client, body, TEXT)]
    for name, values in whole.items():
        assert [value for part in parts if part for value in part[name]] == values


def test_thinking_is_bounded(client: TestClient) -> None:
    for settings, most in (({"thinking": {"budget_tokens": 5}}, 6), ({"reasoning_effort": "none"}, 1)):
        for seed in range(3):
            answer = post(client, chat(seed=seed, max_completion_tokens=40, temperature=1.5, **settings))
            assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] <= most
    disabled = post(client, chat(seed=0, max_completion_tokens=40, thinking={"type": "disabled"}))
    assert disabled["choices"][0]["message"]["reasoning_content"] is None


@pytest.mark.parametrize("model", ["r1", "r1-zero"])
def test_thinking_is_prolonged(client: TestClient, model: str) -> None:
    """Whatever a random model says: it thinks long enough, or has not begun to, and a stream is the whole answer."""
    begun = 0
    for seed in range(6):
        thinking = {"min_tokens": 30, "budget_tokens": 40}
        body = chat(model, seed=seed, max_completion_tokens=80, temperature=1.8, thinking=thinking, logprobs=True)
        answer = post(client, body)
        thought = answer["usage"]["completion_tokens_details"]["reasoning_tokens"]
        assert thought == 0 or 30 < thought <= 41
        begun += thought > 0
        message, stream = answer["choices"][0]["message"], joined(events(client, body))
        assert (message["reasoning_content"] or "", message["content"]) == (
            stream["reasoning_content"],
            stream["content"],
        )
        assert len(stream["logprobs"]) == sum(map(len, answer["choices"][0]["logprobs"].values()))
    assert begun == 6 or model == "r1-zero"


def test_the_word_that_prolongs_is_in_the_questions_language(scripted: Any, tokenizer: Tokenizer) -> None:
    end = tokenizer.control_id(END_THINK)

    def ask(text: str, limit: int = 100) -> tuple[str, str, int]:
        with scripted(lambda *_: [*tokenizer.encode("a"), *[end] * 99]) as (http, _, _):
            body = chat("m", text, thinking={"min_tokens": 12}, max_completion_tokens=limit, logprobs=True)
            whole, stream = post(http, body), joined(events(http, body))
        message = whole["choices"][0]["message"]
        assert stream["reasoning_content"] == message["reasoning_content"]
        tokens = [score["token"] for score in whole["choices"][0]["logprobs"]["reasoning_content"]]
        assert tokens.count(END_THINK) == 1 and tokens[-1] == END_THINK
        return message["reasoning_content"], message["content"], len(tokens) - 1

    reasoning, content, thought = ask("What is 2+2?")
    assert re.fullmatch(r"a( Wait)+", reasoning) and content == "" and thought >= 12
    reasoning, _, thought = ask("2+2等于多少？")
    assert re.fullmatch(r"a(等等)+", reasoning) and thought >= 12
    assert ask("What is 2+2?", limit=12)[2] <= 9  # the limit comes first, and a quarter of it is left for an answer


def test_who_does_not_think_cannot_think_longer(client: TestClient) -> None:
    for thinking, param in (
        ({"min_tokens": 9, "budget_tokens": 8}, "thinking"),
        ({"min_tokens": 9, "type": "disabled"}, "thinking"),
        ({"min_tokens": -1}, "thinking.min_tokens"),
    ):
        refused = client.post(CHAT, json=chat(thinking=thinking))
        assert refused.status_code == 400 and refused.json()["error"]["param"] == param
    refused = client.post(CHAT, json=chat("v3", thinking={"min_tokens": 9}))
    assert refused.status_code == 400 and "answers without thinking" in refused.json()["error"]["message"]
    assert refused.json()["error"]["param"] == "thinking.min_tokens"


def test_votes(client: TestClient) -> None:
    body = chat("v3", votes=9, seed=2, max_completion_tokens=6, temperature=1.0)
    answer = post(client, body)
    (choice,) = answer["choices"]
    votes = choice["votes"]
    assert votes["of"] == 9 and sum(votes["counts"].values()) <= 9
    assert votes["count"] == max(votes["counts"].values())
    assert answer["usage"]["completion_tokens"] > 9
    chunks = events(client, body)
    assert joined(chunks)["content"] == choice["message"]["content"]
    assert chunks[-1]["choices"][0]["votes"] == votes
    assert "votes" not in post(client, chat(max_completion_tokens=2))["choices"][0]


def test_history_drops_reasoning(client: TestClient) -> None:
    def prompt_tokens(*turns: Body) -> int:
        body = {"model": "r1", "messages": [*turns, {"role": "user", "content": "and?"}], "max_tokens": 1}
        count: int = post(client, body)["usage"]["prompt_tokens"]
        return count

    bare = prompt_tokens({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    thought = {"role": "assistant", "content": "b", "reasoning_content": "a long thought"}
    inside = {"role": "assistant", "content": "<think>a long thought</think>\n\nb"}
    assert prompt_tokens({"role": "user", "content": "a"}, thought) == bare
    assert prompt_tokens({"role": "user", "content": "a"}, inside) == bare
    nothing, stopped = ({"role": "assistant", "content": said} for said in ("", "\n<think>a long thou"))
    assert prompt_tokens({"role": "user", "content": "a"}, stopped) == prompt_tokens(
        {"role": "user", "content": "a"}, nothing
    )


def test_thinking_goes_on_from_a_prefix(scripted: Any, tokenizer: Tokenizer) -> None:
    asked: list[str] = []
    end = [tokenizer.control_id(END_THINK), *tokenizer.encode("5"), tokenizer.eos_id]

    def script(request: Request, index: int) -> list[int]:
        asked.append(tokenizer.decode(request.prompt_token_ids))
        return [*tokenizer.encode(" it is 5"), *end]

    begun = {"role": "assistant", "content": "", "reasoning_content": "it is 4</think>\nWait", "prefix": True}
    for way, opening in (("chat", "<think>\n"), ("zero", "<think>")):
        with scripted(script, way) as (http, _, _):
            body = {"model": "m", "messages": [{"role": "user", "content": "2+3?"}, begun]}
            message = post(http, body)["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == (" it is 5", "5")
        assert asked[-1].endswith(opening + begun["reasoning_content"])
    with scripted(script, "chat_direct") as (http, _, _):
        assert http.post(CHAT, json=body).status_code == 400


def test_an_empty_prefix_opens_a_thinking(scripted: Any, tokenizer: Tokenizer) -> None:
    asked: list[str] = []

    def script(request: Request, index: int) -> list[int]:
        asked.append(tokenizer.decode(request.prompt_token_ids))
        return [*tokenizer.encode("\nso"), tokenizer.control_id(END_THINK), *tokenizer.encode("5"), tokenizer.eos_id]

    begun = {"role": "assistant", "content": "", "reasoning_content": "", "prefix": True}
    body = {"model": "m", "messages": [{"role": "user", "content": "2+3?"}, begun]}
    for way, opening in (("chat", "<think>\n"), ("zero", "<think>")):
        with scripted(script, way) as (http, _, _):
            message = post(http, body)["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == ("so", "5")
        assert asked[-1].endswith(opening)
    with scripted(script, "chat_direct") as (http, _, _):
        assert http.post(CHAT, json=body).status_code == 400


def test_a_prefix_is_the_end_and_nothing_else(client: TestClient) -> None:
    question = {"role": "user", "content": "2+3?"}
    begun = {"role": "assistant", "content": "", "reasoning_content": "x", "prefix": True}
    for messages in (
        [begun], [begun, question], [question, begun, begun], [question, {**begun, "content": "5"}],
        [question, {**begun, "reasoning_content": None}], [question, {**question, "prefix": True}],
        [question, {**begun, "prefix": False}],
    ):  # fmt: skip
        assert client.post(CHAT, json=chat(messages=messages)).status_code == 400
    assert client.post(CHAT, json=chat(messages=[question, begun], max_completion_tokens=2)).status_code == 200


def test_what_a_checkpoints_template_refuses_is_the_clients_error(strict: Tokenizer, scripted_generator: Any) -> None:
    generator = scripted_generator(lambda *_: [*strict.encode("4"), strict.eos_id])
    question, system = {"role": "user", "content": "2+2?"}, {"role": "system", "content": "Be brief."}
    with talking(
        create_app([ServedModel("m", strict, generator, PromptStyle.named("chat_direct"))], ServeConfig())
    ) as http:
        for messages in ([question, question], [system, question]):
            for stream in (False, True):
                answer = http.post(CHAT, json=chat("m", messages=messages, stream=stream))
                error = answer.json()["error"]
                assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
                assert (error["param"], error["code"]) == ("messages", "template_refused")
                words = "the chat template refuses the conversation: Roles must alternate [2Juser/assistant/user/..."
                assert error["message"] == f"'m' cannot be asked this: {words}"
        reply = {"role": "assistant", "content": "4"}
        for messages in ([question], [question, reply, question]):
            assert post(http, chat("m", messages=messages))["choices"][0]["message"]["content"] == "4"


def test_limits_are_cut_to_the_context(client: TestClient) -> None:
    answer = post(client, chat("v3", max_completion_tokens=1_000_000, stop="\x00never", seed=1, temperature=2))
    assert answer["usage"]["total_tokens"] <= 160


def test_models(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert [card["id"] for card in listed["data"]] == ["r1", "v3", "r1-zero"]
    assert client.get("/v1/models/v3").json() == listed["data"][1]
    assert client.get("/health").json() == {"status": "ok"}
    assert set(client.get("/openapi.json").json()["paths"]) >= {CHAT, TEXT}


def test_errors_have_openais_shape(client: TestClient) -> None:
    long = chat(text="word " * 500)
    cases = [
        (client.post(CHAT, json=chat(n=99)), 400), (client.post(CHAT, json=chat("x")), 404),
        (client.post(CHAT, content=b"{}", headers={"content-type": "text/plain"}), 415),
        (client.post(CHAT, json={}, headers={"content-encoding": "gzip"}), 415), (client.get(CHAT), 405),
        (client.post(CHAT, content=b" " * (1 << 21), headers={"content-type": "application/json"}), 413),
        (client.post(CHAT, json=long), 400), (client.get("/v1"), 404), (client.get("//v1/models"), 404),
        (client.get("/v1/models/"), 404), (client.get("/v1/models/nope"), 404), (client.delete("/health"), 405),
        (client.post(CHAT, json=chat("r1-zero", messages=[{"role": "user", "content": "a"}] * 2)), 400),
    ]  # fmt: skip
    for answer, status in cases:
        assert answer.status_code == status, answer.text
        assert set(answer.json()) == {"error"}
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"]
    assert client.post(CHAT, json=long).json()["error"]["code"] == "context_length_exceeded"
