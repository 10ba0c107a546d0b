"""The guides: commands and blocks of code on models, rewards, thinking longer and clients, as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import torch
import yaml

from aha.errors import GradingError
from aha.grading.sandbox.local import Sandbox
from aha.inference.engine import Engine
from aha.models.checkpoint.adapter import save_adapter
from aha.models.checkpoint.hf import load_pretrained, save_pretrained
from aha.models.config.presets import preset
from aha.models.lora import add_adapters
from aha.models.lora_linear import LoRAConfig
from aha.models.model_from_config import build
from aha.tasks.families import held_out_suite
from aha.test_time.budget_forcing import think_at_least
from aha.test_time.candidates import Respondent
from aha.test_time.voting import majority_vote
from aha.text.prompt_style import PromptStyle
from aha.text.templates import CHAT_TEMPLATE
from aha.text.tokenizer import Tokenizer
from aha.types import SamplingParams

from ..foreign import write_checkpoint

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
GUIDES = ROOT / "docs" / "guides"
DATA = ROOT / "tests" / "data"


def pieces(guide: str) -> list[tuple[str | None, str]]:
    """A guide cut at its fences: (language, code), or (None, prose)."""
    parts = re.split(r"^```(.*)\n", (GUIDES / guide).read_text(encoding="utf-8"), flags=re.MULTILINE)
    prose = [(None, text) for text in parts[0::4]]
    code = list(zip(parts[1::4], parts[2::4], strict=True))
    return [*prose, *code]


def blocks(guide: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return [text for name, text in pieces(guide) if name == language]


def commands(guide: str) -> list[list[str]]:
    """The commands of a guide: those in blocks, and whole ones within the text."""
    lines = [line for block in blocks(guide, "") for line in re.sub(r"\\?\n +", " ", block).splitlines()]
    inline = [one for name, text in pieces(guide) if name is None for one in re.findall(r"`(aha [a-z]+ [^`]+)`", text)]
    return [words for line in (*lines, *inline) if (words := shlex.split(line, comments=True))]


def run(folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything has the name that it has in the guides."""
    folder = tmp_path_factory.mktemp("guides")
    rows = [json.loads(line) for line in (DATA / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    write_checkpoint(folder / "Qwen3-0.6B", [row["question"] + row["answer"] for row in rows] * 5, num_hidden_layers=2)
    student = folder / "runs" / "r1-tiny-seed0" / "qwen3" / "model"
    tokenizer = Tokenizer.train(["What is 2+2? The answer is 4."] * 20, 300, CHAT_TEMPLATE)
    ours = build(preset("qwen3-tiny", vocab_size=tokenizer.vocab_size)).init_weights(torch.Generator().manual_seed(0))
    save_pretrained(ours, student, tokenizer_files=tokenizer.files())
    for stage in ("r1-tiny-seed0/r1", "r1-zero-tiny-seed0/r1-zero", "r1-zero-tiny-seed0/pretrain"):
        shutil.copytree(student, folder / "runs" / stage / "model")
    model = load_pretrained(folder / "Qwen3-0.6B")
    save_adapter(add_adapters(model, LoRAConfig(r=2), seed=0), folder / "my-adapter")
    (folder / "data").symlink_to(DATA)
    answers = [{"completion": row["answer"], "answer": row["answer"]} for row in rows]
    programs = [{"problem": f"HumanEval/{number}", "completion": "    pass\n"} for number in (32, 52)]
    conversations = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(12)]
    for name, lines in (("answers", answers), ("programs", programs), ("conversations", conversations)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    return folder


def test_a_model_is_looked_at_and_exported(place: Path) -> None:
    pytest.importorskip("gguf", reason="gguf is not installed: install the extra gguf")
    found = commands("your_model.md")
    assert [words[1] for words in found] == ["export", "export", "model"]
    for words in found:
        run(place, words)
    assert (place / "student.gguf").read_bytes()[:4] == b"GGUF"
    merged, base = load_pretrained(place / "Qwen3-0.6B-mine"), load_pretrained(place / "Qwen3-0.6B")
    assert merged.state_dict().keys() == base.state_dict().keys()


def test_its_settings_are_settings(place: Path) -> None:
    for number, block in enumerate(blocks("your_model.md", "yaml")):
        changes = {**yaml.safe_load(block), "examples_per_step": 4, "epochs": 1, "validation_examples": 2}
        words = [
            "aha",
            "run",
            "sft",
            "--model",
            "Qwen3-0.6B",
            "--data",
            "conversations.jsonl",
            "--out",
            f"sft-{number}",
        ]
        for name, value in changes.items():
            words += ["--set", f"sft.{name}={json.dumps(value)}"]
        run(place, words)
        assert (place / f"sft-{number}" / "sft" / "model" / "config.json").is_file()
    assert (place / "sft-0" / "sft" / "model-adapter" / "adapter_model.safetensors").is_file()


def test_its_harness_is_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: install the extra eval")
    (code,) = blocks("your_model.md", "python")
    monkeypatch.chdir(place)
    asked: list[object] = []
    monkeypatch.setattr(lm_eval, "simple_evaluate", lambda model, tasks: asked.extend([model, *tasks]))
    exec(compile(code, "your_model.md", "exec"), {})
    assert asked[1:] == ["arc_easy"] and isinstance(asked[0], lm_eval.api.model.LM)


def test_completions_are_graded_and_programs_run(place: Path) -> None:
    try:
        with Sandbox() as sandbox:
            sandbox.start()
    except GradingError as error:
        pytest.skip(str(error))
    found = commands("your_reward_and_sandbox.md")
    assert [words[1] for words in found] == ["grade", "grade", "task"]
    for words in found[:2]:
        run(place, words)
    run(place, [*found[2], "--data", "data"])
    scores = [json.loads(line) for line in (place / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [score["rewards"]["accuracy"] for score in scores] == [0.0, 0.0]
    for code in blocks("your_reward_and_sandbox.md", "python"):
        done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_more_tokens_are_spent(place: Path) -> None:
    *scales, recipe = (words for words in commands("think_longer.md") if words[1] != "probe")
    assert [words[1] for words in scales] == ["scale"] * 3 and recipe[:3] == ["aha", "run", "r1-tiny"]
    small = ["levels=[1]", "problems_per_level=1", "samples=2", "repeats=1", "budgets=[4,8]"]
    small += ["max_completion_tokens=16", "answer_tokens=8"]
    for words in scales:
        few = ["data=data", "problems_limit=1", "room=128"] if "gsm8k" in words else ["room=128"]
        done = run(place, [*words, *(part for one in (*small, *few) for part in ("--set", one))])
        assert "majority" in done.stdout
    curves = json.loads((place / "curves.json").read_text(encoding="utf-8"))
    assert curves and (place / "curves.svg").read_text(encoding="utf-8").startswith("<svg")
    printed = yaml.safe_load(run(place, [*recipe, "--print-config"]).stdout)
    assert [suite["stage"] for suite in printed["scaling"]["suites"]] == ["pretrain", "r1-zero", "r1", "qwen3"]


def test_a_base_is_probed(place: Path) -> None:
    probes = [words for words in commands("think_longer.md") if words[1] == "probe"]
    assert len(probes) == 2
    for words in probes:
        small = ["max_completion_tokens=16", "room=64", "problems_per_level=1", "samples=2"]
        done = run(place, [*words, *(part for one in small for part in ("--set", one))])
        assert "In RL thinking" in done.stdout
    assert json.loads((place / "probe.json").read_text(encoding="utf-8"))["results"]["verdict"] in done.stdout


def test_methods_are_functions(place: Path) -> None:
    (code,) = blocks("think_longer.md", "python")
    folder = place / "runs" / "r1-tiny-seed0" / "r1" / "model"
    problems = list(held_out_suite(["sums"], [1], 1, seed=0))
    known = {
        "Respondent": Respondent,
        "Engine": Engine,
        "PromptStyle": PromptStyle,
        "SamplingParams": SamplingParams,
        "majority_vote": majority_vote,
        "think_at_least": think_at_least,
        "model": load_pretrained(folder),
        "tokenizer": Tokenizer.load(folder),
        "problems": problems,
    }
    code = code.replace("256", "8").replace("448", "120").replace("budget=64", "budget=4")
    exec(compile(code, "think_longer.md", "exec"), known)
    assert len(known["outcomes"]) == len(problems)


def test_clients_are_answered(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai", reason="openai is not installed: pip install openai")
    (curl,) = (words for words in commands("serve.md") if words[0] == "curl")
    code = next(code for code in blocks("serve.md", "python") if "OpenAI(" in code)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "aha", "serve", "runs/r1-tiny-seed0/r1/model", "--port", "0"],
        cwd=place,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("serving at ").strip().removesuffix("/v1")
        url = curl[1].replace("http://127.0.0.1:8000", address)
        body = {**json.loads(curl[curl.index("-d") + 1]), "max_tokens": 8}
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] <= 8
        exec(compile(code.replace("http://127.0.0.1:8000", address), "serve.md", "exec"), {})
        assert capsys.readouterr().out
    finally:
        process.terminate()
        process.communicate(timeout=60)
