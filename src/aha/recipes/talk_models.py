"""The models of run folders and model folders: found, named, and loaded with an engine, to be talked to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aha.errors import ConfigError
from aha.files import read_json
from aha.inference.engine import Engine
from aha.models.checkpoint.hf import load_pretrained
from aha.models.placement import placement
from aha.recipes.model_folders import is_run, require_model
from aha.recipes.r1 import STYLES
from aha.serve.config import ServeConfig
from aha.serve.served import SERVED_STYLES, ServedModel
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import Tokenizer

MODEL_STAGES = ("pretrain", "sft", "grpo")
"""Kinds of stages whose model can be talked to. Reward models cannot."""


@dataclass(frozen=True)
class Found:
    """A model on disk, and its prompt style."""

    name: str
    folder: Path
    style: PromptStyle


def find_models(paths: Sequence[Path], style: str) -> list[Found]:
    """The models that run folders and model folders hold, each under a name of its own.

    A run that has finished none yet holds none.

    Raises:
        ConfigError: a path is neither, a model answers nothing, or two models would have one name.
    """
    chosen = PromptStyle.named(style, among=SERVED_STYLES)
    prefixes = {path: f"{name}:" for path, name in run_names(paths).items()} if len(run_names(paths)) > 1 else {}
    found: list[Found] = []
    for path in paths:
        if is_run(path):
            found += _of_run(path, prefixes.get(path, ""))
        else:
            require_model(path)
            resolved = path.resolve()
            name = resolved.parent.name if resolved.name == "model" and resolved.parent.name else resolved.name
            found.append(Found(name, path, chosen))
    names = [model.name for model in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two models would be named {twice!r}: serve them from folders of different names")
    return found


def run_names(paths: Sequence[Path]) -> dict[Path, str]:
    """The run folders among some paths, with what they are called.

    Raises:
        ConfigError: two would have one name.
    """
    names = {path: path.resolve().name for path in paths if is_run(path)}
    if len(set(names.values())) < len(names):
        raise ConfigError("two runs have one name: serve them from folders of different names")
    return names


def _of_run(path: Path, prefix: str) -> list[Found]:
    stages = read_json(path / "lineage.json")["stages"]
    styles = _evaluated_styles(path, stages)
    found = []
    for stage in stages:
        name, kind, folder = stage["name"], stage["kind"], path / stage["name"] / "model"
        if stage["done"] and kind in MODEL_STAGES and (folder / "config.json").is_file():
            style = styles.get(name) or STYLES.get(name) or _style_by_kind(path, name, kind)
            found.append(Found(prefix + name, folder, PromptStyle.named(style)))
    return found


def _evaluated_styles(path: Path, stages: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The first style that can be served in which a run's own evaluations ask each model."""
    styles: dict[str, str] = {}
    for stage in stages:
        if stage["kind"] == "evaluation" and (path / stage["name"] / "stage.json").is_file():
            for suite in read_json(path / stage["name"] / "stage.json")["config"].get("suites", ()):
                for style in suite["styles"]:
                    if style in SERVED_STYLES:
                        styles.setdefault(suite["stage"], style)
    return styles


def _style_by_kind(path: Path, name: str, kind: str) -> str:
    """Bases know R1-Zero's template best, reinforcement learning says which one it used, fine-tuning is for chat."""
    if kind == "grpo":
        style: str = read_json(path / name / "stage.json")["config"].get("style", "zero")
        return style
    return "zero" if kind == "pretrain" else "chat"


def load(model: Found, config: ServeConfig) -> ServedModel:
    """Loads a model and gives it an engine.

    Raises:
        CheckpointError: its files are damaged.
    """
    weights, tokenizer = load_pretrained(model.folder, **placement(config.compute)), Tokenizer.load(model.folder)
    context = min(config.context_tokens, weights.config.max_position_embeddings)
    drafted = min(config.speculative_tokens, len(weights.mtp))
    engine = Engine(weights, max_rows=config.rows, max_context=context, speculative_tokens=drafted)
    created = int((model.folder / "config.json").stat().st_mtime)
    return ServedModel(model.name, tokenizer, engine, model.style, created, config)
