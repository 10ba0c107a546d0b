"""The acts of the command line other than `run`: where their parts meet. Each imports only what it needs."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aha.errors import ConfigError
from aha.files import read_json
from aha.recipes.registry import load_reference
from aha.training.launch import WORKER_SETTINGS
from aha.types import Language

if TYPE_CHECKING:
    from aha.models.config import DeepseekV3Config
    from aha.models.dense_config import DenseConfig

REPORT = "aha.report.page:make_report"
"""`module:function`, called with (run folder, output path or None), returns the path of the page it wrote."""

EVALUATION = "aha.recipes.evaluate:evaluate_model"
"""`module:function`, called with (model folder, overrides, output path or None, seed); prints its results."""

SCALING = "aha.recipes.scale:scale"
"""`module:function`, called with (model folder, families, way of asking, overrides, JSON path, SVG path, seed)."""

COMPARISON = "aha.recipes.compare:compare"
"""`module:function`, called with (paths, way of asking, overrides, format, output path or None, seed)."""


def make_report(run_folder: Path, out: Path | None) -> Path:
    """Makes the HTML page of a run and returns its path."""
    path: Path = _act(REPORT, "report")(run_folder, out)
    return path


def evaluate_model(checkpoint: Path, overrides: Sequence[str], out: Path | None, seed: int) -> None:
    """Measures a model and prints the results."""
    for name, value in WORKER_SETTINGS.items():  # before torch is imported
        os.environ.setdefault(name, value)
    _act(EVALUATION, "eval")(checkpoint, overrides, out, seed)


def compare(
    paths: Sequence[Path], asked: str, overrides: Sequence[str], form: str, out: Path | None, seed: int
) -> None:
    """Prints one table of the models of runs and model folders."""
    for name, value in WORKER_SETTINGS.items():  # before torch is imported
        os.environ.setdefault(name, value)
    _act(COMPARISON, "compare")(paths, asked, overrides, form, out, seed)


def scale(
    checkpoint: Path,
    families: Sequence[str],
    asked: str,
    overrides: Sequence[str],
    out: Path | None,
    svg: Path | None,
    seed: int,
) -> None:
    """Draws the curves of test-time scaling of a model folder and prints them as a table."""
    for name, value in WORKER_SETTINGS.items():  # before torch is imported
        os.environ.setdefault(name, value)
    _act(SCALING, "scale")(checkpoint, families, asked, overrides, out, svg, seed)


def _act(reference: str, verb: str) -> Any:
    if not reference:
        raise ConfigError(f"`aha {verb}` is not part of this version")
    return load_reference(reference)


def describe_model(name: str) -> str:
    """The parameters and the cache of a preset, or of a folder with a `config.json`, as a text table.

    Raises:
        UnknownNameError: no such preset, and no such folder.
        CheckpointError: the folder's model is of a family that is not ours.
    """
    from aha.models.config import DeepseekV3Config
    from aha.models.dense_config import DenseConfig
    from aha.models.families import read_config
    from aha.models.presets import preset

    file = Path(name) / "config.json"
    config = read_config(read_json(file)) if file.is_file() else preset(name)
    if isinstance(config, DenseConfig):
        rows = _dense_rows(config)
    else:
        assert isinstance(config, DeepseekV3Config)
        rows = _deepseek_rows(config)
    return "\n".join(f"{label:<44}{value:>28}" for label, value in rows)


def _deepseek_rows(config: DeepseekV3Config) -> list[tuple[str, str]]:
    from aha.models.count import describe

    sizes = describe(config)
    cache, heads = sizes.cache_bytes_per_token, sizes.mha_cache_bytes_per_token
    return [
        ("parameters, embedding and head included", _count(sizes.total_parameters)),
        ("  of which active for one token", _count(sizes.active_parameters)),
        ("  besides: multi-token prediction", _count(sizes.mtp_parameters)),
        ("cache per token in bf16, latent", f"{cache:,} bytes"),
        ("  multi-head attention of the same heads", f"{heads:,} bytes ({heads / cache:.1f} times)"),
    ]


def _dense_rows(config: DenseConfig) -> list[tuple[str, str]]:
    from aha.models.count import describe_dense

    sizes = describe_dense(config)
    cache, heads = sizes.cache_bytes_per_token, sizes.mha_cache_bytes_per_token
    return [
        ("parameters, embedding and head included", _count(sizes.total_parameters)),
        ("  of which embedding and head", _count(sizes.embedding_parameters)),
        ("cache per token in bf16, keys and values", f"{cache:,} bytes"),
        ("  multi-head attention of the same heads", f"{heads:,} bytes ({heads / cache:.1f} times)"),
    ]


def _count(number: int) -> str:
    scaled = f"{number / 1e9:.2f}B" if number >= 1e8 else f"{number / 1e6:.2f}M"
    return f"{number:,} = {scaled}"


def show_task(name: str, level: int | None, count: int, language: str, seed: int) -> None:
    """Prints problems of a family with their answers.

    Raises:
        UnknownNameError: no such family.
        ConfigError: the family has no such level, or the language is not one of en and zh.
    """
    from aha.tasks.families import get_family

    family = get_family(name)
    if language not in ("en", "zh"):
        raise ConfigError(f"language = {language!r}: must be 'en' or 'zh'")
    if level is not None and level not in family.levels:
        raise ConfigError(f"level = {level}: family {name!r} has levels {', '.join(map(str, family.levels))}")
    chosen_language: Language = "en" if language == "en" else "zh"
    for chosen in family.levels if level is None else (level,):
        rng = random.Random(f"show {seed} {name} {chosen}")
        for _ in range(count):
            problem = family.sample(rng, chosen, chosen_language)
            print(f"[{problem.domain}, level {chosen}] {problem.question}\n    answer: {problem.answer}\n")
