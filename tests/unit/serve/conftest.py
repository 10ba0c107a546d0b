"""Models to serve: a tiny one with random weights, and one that says what it is told; and a server on a socket."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from typing import Any
from urllib.parse import unquote

import pytest
import torch
from fastapi import FastAPI
from starlette.testclient import TestClient

from aha.errors import GenerationError
from aha.inference.engine import Engine
from aha.inference.scheduler import Sample, Scheduler
from aha.models.config.presets import preset
from aha.models.deepseek_v3 import DeepseekV3
from aha.serve.app import create_app
from aha.serve.config import ServeConfig
from aha.serve.run import make_server
from aha.serve.served import ServedModel
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import Tokenizer
from aha.types import Request

from ...foreign import write_tokenizer

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
}
ALTERNATING = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate\\n\x1b[2Juser/assistant/user/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
"""A template as Mistral's: no system prompt, and never two questions in a row. Its words try to clear the screen."""
TEXTS = ["What is 2+2? The answer is 4. 2+2等于多少？答案是4。 <think> </think> é ü 😀"] * 20
CONTEXT = 160
Headers = list[tuple[bytes, bytes]]


class Scripted:
    """A `BatchGenerator` whose samples say what a script tells them.

    Args:
        script: token ids of sample i of a request.
        steps: if given, a step waits for a permit.
        burst: tokens a step, as where drafts are accepted.
    """

    def __init__(
        self,
        script: Callable[[Request, int], Sequence[int]],
        max_rows: int = 4,
        max_context: int = CONTEXT,
        steps: threading.Semaphore | None = None,
        burst: int = 1,
    ) -> None:
        self.script, self.max_rows, self.max_context, self.steps = script, max_rows, max_context, steps
        self.burst = burst
        self.fail = False
        self.scheduler = Scheduler(max_rows)

    def add(self, request: Request) -> list[Sample]:
        if len(request.prompt_token_ids) >= self.max_context:
            raise GenerationError("too long")
        return self.scheduler.add(0, request)

    def step(self) -> bool:
        if self.fail:
            self.fail = False
            raise RuntimeError("a secret: /home/private")
        self.scheduler.retire()
        self.scheduler.admit()
        if self.scheduler.running and self.steps is not None:
            self.steps.acquire()
        for sample in self.scheduler.running:
            said = self.script(sample.request, sample.index)
            for _ in range(self.burst):
                if sample.finish_reason is None:
                    token = sample.forced.popleft() if sample.forced else said[len(sample.tokens) % len(said)]
                    sample.append(token, -0.5)
        self.scheduler.retire()
        return bool(self.scheduler.running or self.scheduler.waiting)

    def reset(self) -> None:
        self.scheduler = Scheduler(self.max_rows)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 340)


@pytest.fixture(scope="session")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tokenizer]:
    """Somebody else's tokenizer, whose chat template refuses some conversations."""
    folder = tmp_path_factory.mktemp("strict")
    write_tokenizer(folder, TEXTS, 340)
    (folder / "chat_template.jinja").write_text(ALTERNATING)
    loaded = Tokenizer.load(folder)
    assert loaded.template is not None
    with loaded.template:
        yield loaded


@pytest.fixture(scope="session")
def untemplated(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Somebody else's tokenizer, of a base model: it has no chat template."""
    folder = tmp_path_factory.mktemp("untemplated")
    write_tokenizer(folder, TEXTS, 340)
    (folder / "chat_template.jinja").unlink()
    return Tokenizer.load(folder)


@pytest.fixture(scope="session")
def network(tokenizer: Tokenizer) -> DeepseekV3:
    model = DeepseekV3(preset("tiny", vocab_size=tokenizer.vocab_size, **SMALL))
    return model.init_weights(torch.Generator().manual_seed(0))


@pytest.fixture
def models(network: DeepseekV3, tokenizer: Tokenizer) -> list[ServedModel]:
    """One random model under three names, each in its own prompt style."""
    styles = {"r1": "chat", "v3": "chat_direct", "r1-zero": "zero"}
    return [
        ServedModel(name, tokenizer, Engine(deepcopy(network), 8, CONTEXT), PromptStyle.named(style))
        for name, style in styles.items()
    ]


@pytest.fixture
def client(models: list[ServedModel]) -> Iterator[TestClient]:
    """Talks to `models` without a key."""
    with talking(create_app(models, ServeConfig())) as http:
        yield http


@contextmanager
def talking(app: FastAPI, **options: object) -> Iterator[TestClient]:
    """Talks to an application without a socket."""
    with TestClient(app, base_url="http://127.0.0.1", **options) as http:  # type: ignore[arg-type]
        yield http


def ask(
    app: FastAPI, method: str, raw: str, headers: Headers, query: str = "", version: str = "1.1"
) -> tuple[int, bytes]:
    """Calls the application as uvicorn would; returns status and body."""
    sent: list[dict[str, Any]] = []
    received = [{"type": "http.request", "body": b"{}", "more_body": False}]
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": version, "method": method,
        "path": unquote(raw), "raw_path": raw.encode(), "query_string": query.encode(), "root_path": "",
        "headers": headers, "scheme": "http", "server": ("127.0.0.1", 1), "client": ("10.0.0.9", 2), "state": {},
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return received.pop() if received else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


Serving = Callable[..., AbstractContextManager[tuple[TestClient, ServedModel, Scripted]]]


@pytest.fixture
def scripted(tokenizer: Tokenizer) -> Serving:
    """Called with a script: a server with one scripted model named `m`."""

    @contextmanager
    def serve(
        script: Callable[[Request, int], Sequence[int]],
        style: str = "chat",
        config: ServeConfig | None = None,
        api_key: str | None = None,
        **options: object,
    ) -> Iterator[tuple[TestClient, ServedModel, Scripted]]:
        config = config or ServeConfig()
        generator = Scripted(script, **options)  # type: ignore[arg-type]
        model = ServedModel("m", tokenizer, generator, PromptStyle.named(style), config=config)
        with talking(create_app([model], config, api_key)) as http:
            yield http, model, generator

    return serve


@pytest.fixture(scope="session")
def scripted_generator() -> type[Scripted]:
    """A generator that says what a script tells it, for servers of several models."""
    return Scripted


@contextmanager
def _listen(
    app: FastAPI, config: ServeConfig | None = None, end_work: Callable[[], None] = lambda: None
) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = make_server(app, config or ServeConfig(), end_work)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture(scope="session")
def listening() -> Callable[..., AbstractContextManager[int]]:
    """Called with an application: it listens on a real socket; gives the port."""
    return _listen


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The system's Chromium, driven; the driver brings no browser along. Skips where one of the two is missing.

    Not for the whole session: until it ends, the driver has an event loop running in this thread.
    """
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright (the extra `dev`)")
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if binary is None:
        pytest.skip("needs Chromium: apt install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=binary, args=["--no-sandbox", "--disable-gpu", "--no-first-run"]
        )
        yield browser
        browser.close()


def solved(prompt: str) -> int | None:
    """The answer to the last question about cards in a prompt, worked out by the rules."""
    questions = re.findall(r"Cards((?: [0-9][a-z])+)\. Start with ([0-9]), add ([a-z]) to ([a-z])\.", prompt)
    if not questions:
        return None
    cards, start, first, last = questions[-1]
    return (int(start) + sum(int(card[0]) for card in cards.split() if first <= card[1] <= last)) % 10
