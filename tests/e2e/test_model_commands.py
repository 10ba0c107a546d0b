"""`aha model DIR` and `aha export DIR` through the real command line, as the guide has them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aha.models.checkpoint.adapter import save_adapter
from aha.models.checkpoint.hf import save_pretrained
from aha.models.config.presets import preset
from aha.models.lora import add_adapters
from aha.models.lora_linear import LoRAConfig
from aha.models.model_from_config import build
from aha.text.templates import CHAT_TEMPLATE
from aha.text.tokenizer import Tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A student and adapters for it."""
    tokenizer = Tokenizer.train(["What is 2+2? The answer is 4."] * 20, 300, CHAT_TEMPLATE)
    model = build(preset("qwen3-tiny", vocab_size=tokenizer.vocab_size)).init_weights(torch.Generator().manual_seed(0))
    save_pretrained(model, tmp_path / "student", tokenizer_files=tokenizer.files())
    save_adapter(add_adapters(model, LoRAConfig(r=2), seed=0), tmp_path / "my-adapter")
    return tmp_path


def aha(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aha", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_model_says_what_a_folder_is(folder: Path) -> None:
    done = aha(folder, "model", "student")
    assert done.returncode == 0, done.stderr
    assert "qwen3, 3 layers" in done.stdout
    assert "renders (" in done.stdout
    assert "GRPO, LoRA" in done.stdout


def test_export(folder: Path) -> None:
    pytest.importorskip("gguf", reason="gguf is not installed: install the extra gguf")
    done = aha(folder, "export", "student", "--to", "gguf", "--out", "student.gguf")
    assert (done.returncode, done.stdout) == (0, "student.gguf\n"), done.stderr
    assert (folder / "student.gguf").read_bytes()[:4] == b"GGUF"
    done = aha(folder, "export", "student", "--adapter", "my-adapter", "--out", "mine")
    assert done.returncode == 0, done.stderr
    assert (folder / "mine" / "chat_template.jinja").read_text() == CHAT_TEMPLATE
    before = (folder / "student" / "model.safetensors").read_bytes()
    over = aha(folder, "export", "student", "--out", "./student")
    assert over.returncode == 1 and "nothing is written over" in over.stderr
    assert (folder / "student" / "model.safetensors").read_bytes() == before
    done = aha(folder, "export", "student", "--to", "onnx", "--out", "mine")
    assert done.returncode == 1
    assert done.stderr == "aha: error: unknown format 'onnx'; known: gguf, hf\n"
