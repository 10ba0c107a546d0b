"""What a stage is given, made by hand: one process, a folder of its own, parents that are folders beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from aha.configuration import Config
from aha.models.checkpoint.hf import save_pretrained
from aha.models.config.presets import preset
from aha.models.deepseek_v3 import DeepseekV3
from aha.runs import RunFolder
from aha.text.templates import CHAT_TEMPLATE
from aha.text.tokenizer import Tokenizer
from aha.training.checkpointer import Checkpointer
from aha.training.distributed import Distributed
from aha.training.progress import Progress
from aha.training.stage import StageContext

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
}
TEXTS = ["What is 2+2? The answer is 4. 2+2等于多少？答案是4。"] * 20

MakeContext = Callable[[str, Config, tuple[str, ...]], StageContext]


@pytest.fixture
def make_context(tmp_path: Path) -> MakeContext:
    run = RunFolder.prepare(tmp_path / "run")

    def make(name: str, config: Config, parents: tuple[str, ...] = ()) -> StageContext:
        folder = run.path / name
        folder.mkdir(parents=True, exist_ok=True)
        distributed = Distributed()
        logs = run.logs(name)
        checkpointer = Checkpointer(folder, "identity", distributed, logs, interval_seconds=0.0)
        checkpointer.find()
        logs.open()
        return StageContext(
            run, name, folder, config, 0, distributed, checkpointer, logs, Progress(enabled=False), parents
        )

    return make


@pytest.fixture
def base(tmp_path: Path) -> Tokenizer:
    """A small model with random weights, as the stage `base` would have made it; returns its tokenizer."""
    tokenizer = Tokenizer.train(TEXTS, 320, CHAT_TEMPLATE)
    model = DeepseekV3(preset("tiny", vocab_size=tokenizer.vocab_size, **SMALL))
    model.init_weights(torch.Generator().manual_seed(0))
    save_pretrained(model, tmp_path / "run" / "base" / "model", tokenizer_files=tokenizer.files())
    return tokenizer


def nested(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings with dots in their names as sections: {"loss.kl_beta": 0.1} becomes {"loss": {"kl_beta": 0.1}}."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        section, _, field = name.partition(".")
        if field:
            found.setdefault(section, {})[field] = value
        else:
            found[section] = value
    return found
