"""Models on the Hub: a stand-in that takes commits as the Hub does, and what the card says."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed: install the extra hf")

from aha.errors import ConfigError
from aha.recipes import push as pushing
from aha.recipes.push import PushError, model_card, push

SUMMARY = {
    "stages": [
        {
            "name": "r1-zero", "parent": "pretrain", "commit": "0123456789abcdef",
            "pass_at_1": {"mean": 0.762, "low": 0.749, "high": 0.774, "problems": 510, "samples": 8},
            "format_rate": 0.989,
        }
    ]
}  # fmt: skip


class Hub(BaseHTTPRequestHandler):
    """Repositories in memory: creation, what is to be uploaded how, and commits."""

    files: dict[str, bytes] = {}
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.status != 200:
            return self.reply({"error": "You don't have the rights to write here"}, self.status)
        if self.path.endswith("/preupload/main"):
            asked = json.loads(body)["files"]
            return self.reply(
                {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]}
            )
        if self.path.endswith("/commit/main"):
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self.reply({"commitUrl": "https://huggingface.co/me/x/commit/1", "commitOid": "1"})
        if self.path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        assert self.path == "/api/repos/create", self.path
        return self.reply({"url": "https://huggingface.co/me/x"})

    def do_GET(self) -> None:
        self.reply({"id": "me/x", "sha": "0", "siblings": []})

    def reply(self, content: Any, status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests are offline for the Hub; these reach a server of their own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    class Fresh(Hub):
        files: dict[str, bytes] = {}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    api = pushing.HfApi
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(pushing, "HfApi", lambda: api(endpoint=address, token="hf_test"))
    yield Fresh
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    folder = run / "r1-zero" / "model"
    folder.mkdir(parents=True)
    (run / "config.yaml").write_text("recipe: r1-zero-tiny\nseed: 3\n")
    (run / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_the_folder_arrives_with_a_card_of_what_was_measured(hub: type[Hub], model: Path) -> None:
    assert push(model, "me/x") == "https://huggingface.co/me/x/commit/1"
    card = hub.files.pop("README.md").decode()
    assert hub.files == {path.name: path.read_bytes() for path in model.iterdir()}
    assert card == model_card(model, "me/x")
    assert "| pass@1, % | 76.2 [74.9, 77.4] |" in card
    assert "| well-formed answers, % | 98.9 |" in card
    assert "510 held-out problems, 8 samples each" in card
    assert "recipe `r1-zero-tiny`, seed 3, from `pretrain`" in card
    assert "commit `0123456789ab`" in card
    assert re.search(r"^library_name: transformers$", card, re.MULTILINE)


def test_a_model_of_no_run_claims_nothing(model: Path) -> None:
    (model.parent.parent / "config.yaml").unlink()
    card = model_card(model, "me/x")
    assert "pass@1" not in card
    assert "aha chat x" in card


def test_what_the_hub_refuses_is_said_in_one_line(hub: type[Hub], model: Path) -> None:
    hub.status = 403
    with pytest.raises(PushError, match=r"did not take 'me/x'.*403") as caught:
        push(model, "me/x")
    assert "\n" not in str(caught.value)


def test_names_that_are_none_and_a_hub_that_is_away(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="expected NAME/REPO"):
        push(model, "me/x/y")
    api = pushing.HfApi
    monkeypatch.setattr(pushing, "HfApi", lambda: api(endpoint="http://127.0.0.1:9", token="hf_test"))
    with pytest.raises(PushError, match="cannot be reached"):
        push(model, "me/x")
