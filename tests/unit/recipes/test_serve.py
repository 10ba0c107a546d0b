"""Which models `aha serve` finds, under which names, and how it asks them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aha.cli import talk
from aha.errors import ConfigError
from aha.inference.engine import Engine
from aha.models.checkpoint.hf import save_pretrained
from aha.models.config.presets import preset
from aha.models.model_from_config import build
from aha.recipes.talk_models import Found, find_models, load, run_names
from aha.serve.config import ServeConfig
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import Tokenizer


def make_run(folder: Path, stages: dict[str, tuple[str, dict[str, Any]]]) -> Path:
    rows = []
    for name, (kind, config) in stages.items():
        (folder / name / "model").mkdir(parents=True)
        (folder / name / "model" / "config.json").write_text("{}")
        (folder / name / "stage.json").write_text(json.dumps({"config": config}))
        rows.append({"name": name, "kind": kind, "done": name != "unfinished"})
    (folder / "lineage.json").write_text(json.dumps({"stages": rows}))
    return folder


STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "pretrain": ("pretrain", {}),
    "r1-zero": ("grpo", {"style": "zero"}),
    "v3": ("sft", {}),
    "dev1": ("sft", {}),
    "helpful-rm": ("reward_model", {}),
    "my-rl": ("grpo", {"style": "chat"}),
    "my-zero": ("grpo", {"style": "zero"}),
    "qwen3-base": ("pretrain", {}),
    "qwen3": ("sft", {}),
    "mine": ("sft", {}),
    "unfinished": ("sft", {}),
    "evaluation": (
        "evaluation",
        {"suites": [{"stage": "mine", "styles": ["direct", "chat_direct"]}, {"stage": "v3", "styles": []}]},
    ),
}


def test_a_run_serves_its_models_in_the_form_they_know(tmp_path: Path) -> None:
    found = find_models([make_run(tmp_path / "run", STAGES)], "chat")
    assert {model.name: model.style.name for model in found} == {
        "pretrain": "zero", "r1-zero": "zero", "v3": "chat_direct", "dev1": "chat", "my-rl": "chat", "my-zero": "zero",
        "qwen3-base": "zero", "qwen3": "chat", "mine": "chat_direct",
    }  # fmt: skip


def test_several_runs_and_model_folders(tmp_path: Path) -> None:
    one, two = (make_run(tmp_path / name, {"r1": STAGES["dev1"]}) for name in ("a", "b"))
    found = find_models([one, two, one / "r1" / "model"], "zero")
    assert [(model.name, model.style.name) for model in found] == [("a:r1", "chat"), ("b:r1", "chat"), ("r1", "zero")]
    with pytest.raises(ConfigError, match="two models would be named 'r1'"):
        find_models([one, one / "r1" / "model"], "chat")


def test_what_cannot_be_served(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a run folder"):
        find_models([tmp_path], "chat")
    with pytest.raises(ConfigError, match=r"prompt style 'direct'.*: expected one of chat, chat_direct, zero"):
        find_models([], "direct")


def test_a_run_without_a_finished_model_is_served_for_its_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"unfinished": STAGES["dev1"]})
    assert find_models([run], "chat") == []
    assert run_names([run, tmp_path]) == {run: "run"}
    other = make_run(tmp_path / "elsewhere" / "run", {"unfinished": STAGES["dev1"]})
    with pytest.raises(ConfigError, match="two runs have one name"):
        run_names([run, other])


@pytest.mark.parametrize(("name", "drafted"), [("tiny", 1), ("qwen3-tiny", 0)])
def test_models_draft_as_many_tokens_as_they_can(tmp_path: Path, name: str, drafted: int) -> None:
    tokenizer = Tokenizer.train(["What is 2+2? <think>4</think>"] * 20, 300)
    model = build(preset(name, vocab_size=tokenizer.vocab_size)).init_weights()
    save_pretrained(model, tmp_path / "m", tokenizer_files=tokenizer.files())
    served = load(Found("m", tmp_path / "m", PromptStyle.named("zero")), ServeConfig(speculative_tokens=2))
    assert isinstance(served.generator, Engine)
    assert served.generator.speculative_tokens == drafted


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(ConfigError, match=r"needs uvicorn: .* -m pip install .*\[serve\]'"):
        talk.serve([])
