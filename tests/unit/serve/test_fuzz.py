"""Requests made to break things: no 5xx, no hang, no growth, every error in OpenAI's shape, and good ones unharmed."""

from __future__ import annotations

import gc
import json
import mmap
import random
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from aha.inference.engine import Engine
from aha.models.deepseek_v3 import DeepseekV3
from aha.report.browser import RunBrowser
from aha.serve.app import create_app
from aha.serve.config import ServeConfig
from aha.serve.served import ServedModel
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import CONTROL_TOKENS, END_THINK, Tokenizer

PATHS = ("/v1/chat/completions", "/v1/completions")
PAGE_PATHS = ("/api/problem", "/api/judge", "/api/runs/panels", "/api/runs/search", "/api/runs/group")
EXPECTED = {200, 400, 401, 403, 404, 405, 408, 413, 415, 429}
GOOD = {"model": "r1", "messages": [{"role": "user", "content": "2+2?"}], "seed": 4, "n": 2, "max_tokens": 9}
BESIDE = {**GOOD, "n": 1, "temperature": 0.0}
"""Asked while hostile requests run: greedy, since another batch rounds differently and a draw may lie on the line."""
VALID: dict[str, dict[str, Any]] = {
    PATHS[0]: {
        **GOOD, "temperature": 1.0, "top_p": 0.9, "stop": ["x"], "stream": False, "logprobs": True, "top_logprobs": 2,
        "reasoning_effort": "low", "thinking": {"type": "enabled", "budget_tokens": 3, "min_tokens": 2}, "user": "u",
        "stream_options": {"include_usage": True}, "response_format": {"type": "text"}, "tools": [], "votes": None,
        "metadata": {},
    },
    PATHS[1]: {"model": "v3", "prompt": "2+2", "max_tokens": 5, "n": 1, "stop": None, "logprobs": 1, "echo": False},
    PAGE_PATHS[0]: {"family": "facts", "level": 1, "language": "zh", "number": 3},
    PAGE_PATHS[1]: {"problem": {"family": "boxes", "level": 2, "language": "en", "number": 1}, "replies": ["a", "5"]},
    PAGE_PATHS[2]: {"run": "r", "stage": "s"},
    PAGE_PATHS[3]: {"run": "r", "stage": "s", "family": "f", "text": "t", "offset": 0, "limit": 5, "outcome": "mixed"},
    PAGE_PATHS[4]: {"run": "r", "stage": "s", "at": 0},
}  # fmt: skip


ROLLOUT = {
    "stage": "s", "step": 0, "family": "f", "level": 1, "question": "q", "gold": "t",
    "completions": [
        {"text": "t", "tokens": 1, "finish_reason": "stop", "reward": 1.0, "rewards": {}, "advantage": 0.0},
    ],
}  # fmt: skip
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 10**9, 2**63, -(2**63), 10**400, 1e308, -0.0, 0.5, 16, 64, 1, 2.0, "", "x", "\x00",
    "high", "\ud800", "é" * 999, "9" * 999, "../../etc/passwd", "r1", "v3", "r1-zero", "strict", "{{7*7}}", "%s%n", [],
    [[]], {}, {"": {}}, ["x"] * 300, ["\n", "a"], [None], {"a": [1, {"b": None}]}, {"type": "disabled"},
    [{"role": "tool", "content": "x"}],
    [{"role": "assistant"}, {"role": "user", "content": ""}],
    [{"role": "user", "content": [{"type": "text", "text": "\u202e\ufeff"}]}],
    [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    [{"role": "system", "content": "{{ raise_exception('x') }}"}, {"role": "user", "content": "a"}],
]  # fmt: skip
BROKEN = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"[" * 9999, b'{"a":' * 999, b'"\\ud800"', b"\xff")
JSON = {"content-type": "application/json"}
ODD_HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"content-type": "text/plain"},
    {**JSON, "content-encoding": "br"},
    {**JSON, "origin": "http://evil"},
    {**JSON, "host": "evil"},
    {**JSON, "x": "\t" * 99},
)


@pytest.fixture
def fuzzed(
    network: DeepseekV3, tokenizer: Tokenizer, strict: Tokenizer, scripted_generator: Any, tmp_path: Path
) -> Iterator[TestClient]:
    said = [*strict.encode("so 4"), strict.control_id(END_THINK), *strict.encode("4"), strict.eos_id]
    models = [
        ServedModel("r1", tokenizer, Engine(deepcopy(network), 8, 48), PromptStyle.named("chat")),
        ServedModel("v3", tokenizer, Engine(deepcopy(network), 8, 48), PromptStyle.named("chat_direct")),
        ServedModel("r1-zero", tokenizer, Engine(deepcopy(network), 8, 100), PromptStyle.named("zero")),
        ServedModel(
            "strict", strict, scripted_generator(lambda *_: said, max_rows=8, max_context=48), PromptStyle.named("chat")
        ),
    ]
    config = ServeConfig(body_bytes=50_000, deadline_seconds=60)
    (tmp_path / "s").mkdir()
    (tmp_path / "config.yaml").write_text("recipe: mine\n")
    stage = {"name": "s", "kind": "grpo", "parents": [], "done": False}
    (tmp_path / "lineage.json").write_text(json.dumps({"stages": [stage]}))
    (tmp_path / "s" / "rollouts.jsonl").write_text(json.dumps(ROLLOUT) + "\n")
    runs = [RunBrowser(tmp_path, "r")]
    with TestClient(create_app(models, config, runs=runs), base_url="http://127.0.0.1") as client:
        yield client


def hostile_value(rng: random.Random) -> Any:
    """What a field should not hold, or might."""
    return rng.choice([*HOSTILE, rng.choice(CONTROL_TOKENS), [{"role": "user", "content": rng.choice(CONTROL_TOKENS)}]])


def hostile_request(rng: random.Random) -> tuple[str, bytes, dict[str, str]]:
    """A path, a body and headers."""
    path = rng.choice(PATHS if rng.random() < 0.85 else PAGE_PATHS)
    needed = ("model", "messages", "prompt")
    body = {key: value for key, value in VALID[path].items() if key in needed or rng.random() < 0.7}
    if path in PATHS:
        body["stream"] = rng.random() < 0.3
        body["model"] = rng.choice((body["model"], "strict"))
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        key = rng.choice([*VALID[path], "prompt", "messages", "suffix", "best_of", "logit_bias", "\x00", "unknown"])
        body[key] = hostile_value(rng)
    data = json.dumps(body).encode()
    kind = rng.random()
    if kind < 0.08:
        at = rng.randrange(len(data))
        data = data[:at] + rng.randbytes(rng.randrange(4)) + data[at + rng.randrange(3) :]
    elif kind < 0.12:
        data = data.replace(b"9", rng.choice(BROKEN), 1)
    elif kind < 0.14:
        data = data * rng.choice((0, 2, 200))
    headers = rng.choice(ODD_HEADERS) if rng.random() < 0.05 else JSON
    return path, data, headers


def check(status: int, text: str, kind: str) -> None:
    """An answer is one that a client can understand."""
    assert status in EXPECTED, (status, text)
    if status != 200:
        error = json.loads(text)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert "Traceback" not in text and "/src/" not in text
    elif kind.startswith("text/event-stream"):
        assert text.endswith("data: [DONE]\n\n")
        assert '"error"' not in text
    else:
        json.loads(text)


@contextmanager
def good_requests(client: TestClient) -> Iterator[None]:
    """Somebody else's good requests, all the while: each is answered as ever."""
    expected = client.post(PATHS[0], json=BESIDE).json()["choices"]
    answers: list[Any] = []
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.05):
            answers.append(client.post(PATHS[0], json=BESIDE).json()["choices"])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert len(answers) > 2
    assert [answer for answer in answers if answer != expected] == []


def resident_bytes() -> int:
    """Memory of this process now: a high-water mark would hide growth below an earlier peak."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@contextmanager
def no_growth() -> Iterator[None]:
    """What happens inside may cost 5% of the memory there was before."""
    before = resident_bytes()
    yield
    grown = resident_bytes() / before
    assert grown < 1.05, f"memory grew to {grown:.1%}"


def fuzz(client: TestClient, count: int, seed: int) -> None:
    """Sends `count` hostile requests."""
    rng = random.Random(seed)
    for _ in range(count):
        path, data, headers = hostile_request(rng)
        answer = client.post(path, content=data, headers=headers)
        check(answer.status_code, answer.text, answer.headers["content-type"])


def made_by_schema(client: TestClient, count: int) -> list[dict[str, Any]]:
    """Requests that schemathesis makes of the server's own description, right and wrong."""
    made: list[dict[str, Any]] = []
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    operations = [result.ok() for result in schema.get_all_operations()]
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    strategies = [operation.as_strategy(generation_mode=mode) for operation in operations for mode in modes]

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(strategies))
    def make(case: Any) -> None:
        body = case.body if isinstance(case.body, dict | list | str | int | float | bool) else None
        if isinstance(body, dict) and body.get("model"):
            body = {**body, "model": ("v3", "strict")[len(made) % 2]}  # one that exists, so that the rest is looked at
        made.append({"method": case.method, "url": case.formatted_path, **({} if body is None else {"json": body})})

    make()
    return made


def send(client: TestClient, requests: list[dict[str, Any]]) -> int:
    """Sends requests, but those that the client itself cannot put on the wire; returns how many it sent."""
    sent = 0
    for request in requests:
        try:
            answer = client.request(**request)
        except (UnicodeEncodeError, ValueError):
            continue
        check(answer.status_code, answer.text, answer.headers.get("content-type", ""))
        sent += 1
    return sent


def attack(client: TestClient, count: int, by_schema: int) -> None:
    """Sends requests beside good ones, after some that fill caches and pools, and looks at what is left of them.

    Args:
        client: of the server.
        count: of all that are sent.
        by_schema: how many schemathesis may make, all before memory is looked at: it keeps some of its own.
    """
    made = made_by_schema(client, by_schema)
    send(client, made[: by_schema // 5])
    fuzz(client, count // 5, seed=0)
    with no_growth(), good_requests(client):
        sent = send(client, made)
        assert sent > by_schema // 2
        fuzz(client, count - sent, seed=1)


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


def touched(count: int) -> mmap.mmap:
    """So many resident bytes of their own: an allocator would hand out what it has kept of the peak."""
    memory = mmap.mmap(-1, count)
    for start in range(0, count, mmap.PAGESIZE):
        memory[start] = 1
    return memory


@needs_proc
def test_growth_is_seen_below_an_earlier_peak() -> None:
    touched(2 * resident_bytes() // 10).close()
    with pytest.raises(AssertionError, match="memory grew"), no_growth():
        kept = touched(resident_bytes() // 10)
    kept.close()


@needs_proc
def test_hostile_requests(fuzzed: TestClient) -> None:
    attack(fuzzed, 400, 120)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@needs_proc
def test_ten_thousand_hostile_requests(fuzzed: TestClient) -> None:
    attack(fuzzed, 10_000, 3_000)
