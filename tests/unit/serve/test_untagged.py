"""A model whose vocabulary has no thinking tags, such as a Llama: thinking is told by the tags in its text."""

import json
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from aha.serve.app import create_app
from aha.serve.config import ServeConfig
from aha.serve.served import ServedModel
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import Tokenizer

from ...foreign import write_tokenizer
from .conftest import Scripted, talking

SAID = "\n2 plus 2 is</thinner> 4\n</think>\n\nThe answer is 4."


@pytest.fixture(scope="module")
def untagged(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("untagged")
    write_tokenizer(folder, ["What is 2+2? The answer is 4. <think></think>"] * 20, vocab_size=340, think=False)
    return Tokenizer.load(folder)


def asking(tokenizer: Tokenizer, style: str, said: str) -> Iterator[TestClient]:
    script = [*tokenizer.encode(said), tokenizer.eos_id]
    model = ServedModel(
        "m", tokenizer, Scripted(lambda request, index: script), PromptStyle.named(style), config=ServeConfig()
    )
    with talking(create_app([model], ServeConfig())) as http:
        yield http


@pytest.mark.parametrize(("style", "said"), [("chat", SAID), ("zero", "<think>" + SAID)])
def test_thinking_and_answer_come_apart(untagged: Tokenizer, style: str, said: str) -> None:
    for http in asking(untagged, style, said):
        body = {"model": "m", "messages": [{"role": "user", "content": "What is 2+2?"}]}
        message = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
        assert message["reasoning_content"] == "2 plus 2 is</thinner> 4"
        assert message["content"] == "The answer is 4."
        with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as stream:
            lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: {")]
        deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
        streamed = ["".join(delta.get(part) or "" for delta in deltas) for part in ("reasoning_content", "content")]
        assert streamed == [message["reasoning_content"], message["content"]]


def test_a_budget_closes_the_thinking(untagged: Tokenizer) -> None:
    for http in asking(untagged, "chat", "and on and on"):
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": "What is 2+2?"}],
            "thinking": {"type": "enabled", "budget_tokens": 3},
            "max_completion_tokens": 40,
        }
        reply = http.post("/v1/chat/completions", json=body).json()
        message, usage = reply["choices"][0]["message"], reply["usage"]
        assert message["reasoning_content"] and message["content"]
        assert "think" not in message["reasoning_content"] + message["content"]
        closing = len(untagged.encode_markup("</think>"))
        assert usage["completion_tokens_details"]["reasoning_tokens"] == 3 + closing


def test_a_spelled_end_that_comes_too_early_is_replaced(untagged: Tokenizer) -> None:
    for http in asking(untagged, "chat", "so.</think>"):
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": "What is 2+2?"}],
            "thinking": {"min_tokens": 20},
            "max_completion_tokens": 100,
            "logprobs": True,
        }
        whole = http.post("/v1/chat/completions", json=body).json()
        choice = whole["choices"][0]
        assert choice["message"]["reasoning_content"].startswith("so. Wait")
        assert "think" not in choice["message"]["reasoning_content"]
        scores = b"".join(bytes(score["bytes"]) for score in choice["logprobs"]["reasoning_content"]).decode()
        assert scores.startswith("so. Wait") and scores.count("</think>") <= 1
        assert whole["usage"]["completion_tokens_details"]["reasoning_tokens"] > 20
        with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as stream:
            lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: {")]
        deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == choice["message"]["reasoning_content"]
