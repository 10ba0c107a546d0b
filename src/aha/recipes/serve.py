"""`aha serve`: models of run folders and model folders, the built-in engine, and the server."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aha.configuration import override_config
from aha.errors import ConfigError
from aha.files import read_json
from aha.inference.engine import Engine
from aha.models.hf import load_pretrained
from aha.recipes.r1 import ASKED as ASKED_BY_STAGE
from aha.serve.app import create_app
from aha.serve.catalog import Catalog
from aha.serve.config import ServeConfig
from aha.serve.run import check_exposure, listen, run
from aha.serve.served import ASKED, Asked, ServedModel
from aha.text.tokenizer import Tokenizer
from aha.training.interrupts import StopRequested

MODEL_STAGES = ("pretrain", "sft", "grpo")
"""Kinds of stages whose model can be talked to. Reward models cannot."""


@dataclass(frozen=True)
class Found:
    """A model on disk, and how it is asked."""

    name: str
    folder: Path
    asked: Asked


def serve(
    paths: Sequence[Path], host: str, port: int, api_key: str | None, asked: str, overrides: Sequence[str]
) -> None:
    """Serves all models that the paths hold, until stopped.

    Args:
        paths: run folders, or model folders.
        host: to listen on; other than loopback only with a key.
        port: to listen on; 0 takes a free one.
        api_key: required of clients, or None.
        asked: how model folders are asked.
        overrides: ``a.b=c`` settings of `ServeConfig`.

    Raises:
        ConfigError: a path holds no model, a setting is wrong, or the address cannot be listened on.
        CheckpointError: a model is damaged.
        StopRequested: by SIGINT or SIGTERM, after running requests had time to end.
    """
    config = override_config(ServeConfig(), {}, overrides)
    check_exposure(host, api_key)
    found = find_models(paths, asked)
    listening = listen(host, port)
    catalog = Catalog([load(model, config) for model in found], config)
    app = create_app(catalog, api_key)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("aha.serve").setLevel(logging.INFO)
    shown = f"[{host}]" if ":" in host else host
    print(f"serving at http://{shown}:{listening.getsockname()[1]}/v1", flush=True)
    for model in found:
        print(f"  {model.name:<24}{_MEANS[model.asked]}", flush=True)
    print("a key is required" if api_key else "for this machine only, without a key", "- stop with Ctrl-C", flush=True)
    number = run(app, listening, config, catalog.stop)
    if number:
        raise StopRequested(number)


_MEANS: dict[Asked, str] = {
    "chat": "chat, thinks first",
    "chat_direct": "chat, answers directly",
    "zero": "one question in R1-Zero's template; /v1/completions",
}


def find_models(paths: Sequence[Path], asked: str) -> list[Found]:
    """The models that run folders and model folders hold, each under a name of its own.

    Raises:
        ConfigError: a path holds none, or two would have one name.
    """
    way = next((known for known in ASKED if known == asked), None)
    if way is None:
        raise ConfigError(f"--asked {asked!r}: expected one of {', '.join(ASKED)}")
    runs = sum((path / "lineage.json").is_file() for path in paths)
    found: list[Found] = []
    for path in paths:
        if (path / "lineage.json").is_file():
            found += _of_run(path, prefix=f"{path.resolve().name}:" if runs > 1 else "")
        elif (path / "config.json").is_file():
            resolved = path.resolve()
            name = resolved.parent.name if resolved.name == "model" and resolved.parent.name else resolved.name
            found.append(Found(name, path, way))
        else:
            raise ConfigError(f"{str(path)!r} is neither a run folder (lineage.json) nor a model folder (config.json)")
    names = [model.name for model in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two models would be named {twice!r}: serve them from folders of different names")
    return found


def _of_run(path: Path, prefix: str) -> list[Found]:
    stages = read_json(path / "lineage.json")["stages"]
    asked = _asked_in_evaluations(path, stages)
    found = []
    for stage in stages:
        name, kind, folder = stage["name"], stage["kind"], path / stage["name"] / "model"
        if stage["done"] and kind in MODEL_STAGES and (folder / "config.json").is_file():
            way = asked.get(name) or _served(ASKED_BY_STAGE.get(name, "")) or _asked_by_kind(path, name, kind)
            found.append(Found(prefix + name, folder, way))
    if not found:
        raise ConfigError(f"{str(path)!r} has no finished model yet: let `aha run` go on")
    return found


def _asked_in_evaluations(path: Path, stages: Sequence[dict[str, Any]]) -> dict[str, Asked]:
    """How a run's own evaluations ask its models."""
    ways: dict[str, Asked] = {}
    for stage in stages:
        if stage["kind"] == "evaluation" and (path / stage["name"] / "stage.json").is_file():
            for suite in read_json(path / stage["name"] / "stage.json")["config"].get("suites", ()):
                for elicitation in suite["elicitations"]:
                    if way := _served(elicitation):
                        ways.setdefault(suite["stage"], way)
    return ways


def _served(elicitation: str) -> Asked | None:
    return next((way for way in ASKED if way == elicitation), None)


def _asked_by_kind(path: Path, name: str, kind: str) -> Asked:
    """Bases know R1-Zero's template best, reinforcement learning says which one it used, fine-tuning is for chat."""
    if kind == "grpo":
        config = read_json(path / name / "stage.json")["config"]
        return _served(config.get("form", "zero")) or "zero"
    return "zero" if kind == "pretrain" else "chat"


def load(model: Found, config: ServeConfig) -> ServedModel:
    """Loads a model and gives it an engine.

    Raises:
        CheckpointError: its files are damaged.
    """
    weights, tokenizer = load_pretrained(model.folder, device=config.device), Tokenizer.load(model.folder)
    context = min(config.context_tokens, weights.config.max_position_embeddings)
    engine = Engine(weights, max_rows=config.rows, max_context=context)
    created = int((model.folder / "config.json").stat().st_mtime)
    return ServedModel(model.name, tokenizer, engine, model.asked, created, config)
