"""Names of models, runs and stages are looked up and nothing else: whatever they spell, no file of theirs is opened."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from aha.report.browser import RunBrowser
from aha.serve.app import create_app
from aha.serve.config import ServeConfig
from aha.serve.served import ServedModel

from .conftest import ask, talking

SECRET = "the secret beside the run"
TARGETS = ("secret", "r1/model", "s/rollouts.jsonl", "lineage.json", "etc/passwd")
DISGUISES = [
    "{}", "../{}", "../../{}", "../../../../../../{}", "./{}", "/{}", "//{}", "s/../../{}", "..\\{}", "..%2f{}",
    "%2e%2e/{}", "%2e%2e%2f{}", "%252e%252e%252f{}", "..%c0%af{}", "..%5c{}", "．．／{}", "‥/{}", "…/{}", "..;/{}",
    "....//{}", "{}\x00", "../{}\x00.json", "{}%00", "{}/", "{}/.", "../{}/..", "{} ", " {}", "{}.", "../{}\n",
    "\r\n../{}", "file://{}", "file:///{}", "C:\\{}", "\\\\?\\{}", "\\\\host\\{}", "~/{}", "~root/{}", "$HOME/{}",
    "$(cat ../{})", "`cat ../{}`", "/proc/self/cwd/{}", "/proc/self/root/{}", "/dev/fd/0/{}", "{}::$DATA", "link/{}",
    "\u202e../{}", "\ufeff../{}", "../{}\u200b", "https://example.com/{}",
]  # fmt: skip
ODD = [
    "..", ".", "/", "~", "*", "-r1", "R1", "r1 ", "S", "s/", "link", "CON", "nul", "r1\x00", "r1;ls", "", "\ud800",
    "x" * 4096, "../" * 1000, "a/" * 127,
]  # fmt: skip
NAMES = [disguise.format(target) for disguise in DISGUISES for target in TARGETS] + ODD
_watched: list[str] = []
_watching = False


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in ("open", "os.listdir", "os.scandir") and not isinstance(arguments[0], int):
        _watched.append(os.fsdecode(arguments[0] or "."))


@pytest.fixture(scope="module")
def opened() -> Callable[[], AbstractContextManager[list[str]]]:
    """Called: the files and folders that this process opens meanwhile, in whatever way."""
    sys.addaudithook(_note)  # for good: nothing takes a hook away again

    @contextmanager
    def watch() -> Iterator[list[str]]:
        global _watching
        _watched.clear()
        _watching = True
        try:
            yield _watched
        finally:
            _watching = False

    return watch


@pytest.fixture
def app(models: list[ServedModel], tmp_path: Path) -> FastAPI:
    """A server of models and of a run, beside which a secret lies; a link in the run leads to it."""
    run, secret = tmp_path / "r", tmp_path / "secret"
    for folder in (run / "s", secret):
        folder.mkdir(parents=True)
        (folder / "rollouts.jsonl").write_text(json.dumps(SECRET) + "\n" if folder == secret else "")
    (run / "link").symlink_to(secret)
    (run / "config.yaml").write_text("recipe: mine\n")
    stage = {"name": "s", "kind": "grpo", "parents": [], "done": False}
    (run / "lineage.json").write_text(json.dumps({"stages": [stage]}))
    return create_app(models, ServeConfig(), runs=[RunBrowser(run, "r")])


@pytest.fixture
def served(app: FastAPI) -> Iterator[TestClient]:
    with talking(app) as http:
        yield http


def refuse(client: TestClient, path: str, body: dict[str, Any], param: str | None) -> None:
    """A name that there is not: 404, or 400 where it can be none."""
    answer = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code in (400, 404), (body, answer.text)
    assert answer.json()["error"]["param"] == param or answer.status_code == 400
    assert SECRET not in answer.text


def test_there_are_many_names() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 250


def test_the_watch_sees_every_way_of_opening(
    opened: Callable[[], AbstractContextManager[list[str]]], tmp_path: Path
) -> None:
    file = tmp_path / "f"
    file.write_text("x")
    opens: list[Callable[[], Any]] = [
        file.read_text,
        lambda: open(file).close(),  # noqa: PTH123 - each way there is
        lambda: os.close(os.open(file, os.O_RDONLY)),
        lambda: list(tmp_path.iterdir()),
    ]
    for way in opens:
        with opened() as seen:
            way()
        assert seen and all(str(tmp_path) in path for path in seen)


def test_a_models_name_opens_nothing(
    app: FastAPI, served: TestClient, opened: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    chat, text = {"messages": [{"role": "user", "content": "2+2?"}]}, {"prompt": "2+2"}
    for name in NAMES[:2]:  # what is imported or compiled at the first request
        refuse(served, "/v1/chat/completions", {"model": name, **chat}, "model")
    with opened() as seen:
        for name in NAMES:
            refuse(served, "/v1/chat/completions", {"model": name, **chat}, "model")
            refuse(served, "/v1/completions", {"model": name, **text}, "model")
            for safe in ("", "/\\:;$`~*()"):
                raw = "/v1/models/" + quote(name, safe=safe, errors="replace")
                status, body = ask(app, "GET", raw, [(b"host", b"127.0.0.1")])
                assert status == 404 and SECRET.encode() not in body, raw
    assert seen == []


def test_a_runs_or_a_stages_name_opens_nothing_outside_of_the_run(
    served: TestClient, opened: Callable[[], AbstractContextManager[list[str]]], tmp_path: Path
) -> None:
    paths: dict[str, dict[str, Any]] = {"/api/runs/panels": {}, "/api/runs/search": {}, "/api/runs/group": {"at": 0}}
    for path, more in paths.items():
        refuse(served, path, {"run": "r", "stage": "t", **more}, None)
    with opened() as seen:
        for name in NAMES:
            for path, more in paths.items():
                refuse(served, path, {"run": name, "stage": "s", **more}, "run")
    assert seen == []
    with opened() as seen:
        for name in NAMES:
            for path, more in paths.items():
                refuse(served, path, {"run": "r", "stage": name, **more}, None)
    assert set(seen) <= {str(tmp_path / "r" / "lineage.json")}
