"""`aha serve` as a process: it says where it is, answers, keeps its key to itself, and ends when it is told to."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import torch

from aha.models.checkpoint.hf import save_pretrained
from aha.models.config.presets import preset
from aha.models.deepseek_v3 import DeepseekV3
from aha.text.tokenizer import Tokenizer

KEY = "a-key-of-this-test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer.train(["What is 2+2? The answer is 4."] * 20, 320)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "moe_intermediate_size": 32}
    model = DeepseekV3(preset("tiny", vocab_size=tokenizer.vocab_size, n_routed_experts=4, **small))
    model.init_weights(torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("models") / "random"
    save_pretrained(model, path, tokenizer_files=tokenizer.files())
    return path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "aha", "serve", *arguments]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_from_start_to_stop(folder: Path, number: signal.Signals, code: int) -> None:
    environment = {**os.environ, "AHA_API_KEY": KEY, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command(str(folder), "--port", "0", "--style", "chat_direct", "--set", "context_tokens=64"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    url = process.stdout.readline().removeprefix("serving at ").strip()
    try:
        assert process.stdout.readline().split()[0] == "random"
        body = {"model": "random", "messages": [{"role": "user", "content": "2+2?"}], "max_tokens": 4}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] <= 4
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{url}/models", timeout=60)
    finally:
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert KEY not in output + errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "set a key"),
        (["--style", "nicely"], "expected one of"),
        (["--set", "rows=0"], "rows"),
        (["--api-key", ""], "visible ASCII"),
    ],
)
def test_what_it_refuses(folder: Path, arguments: list[str], words: str) -> None:
    done = subprocess.run(command(str(folder), *arguments), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_chat_in_the_terminal(folder: Path) -> None:
    typed = "hello\n/model\n/nothing\n/quit\n"
    chat = [sys.executable, "-m", "aha", "chat", str(folder), "--style", "chat_direct", "--set", "context_tokens=64"]
    done = subprocess.run(chat, input=typed, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    # Random weights may open a thinking all by themselves.
    assert re.search(r"\d+ tokens, \d+ of them thinking, in", done.stdout)
    assert "* random" in done.stdout and "unknown command /nothing" in done.stdout
    refused = subprocess.run([*chat, "--model", "x"], capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 1 and "there is no model 'x'; known: random" in refused.stderr
