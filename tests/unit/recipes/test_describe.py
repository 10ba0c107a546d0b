"""`aha model DIR`: what a checkpoint is, from its small files alone."""

import json
from pathlib import Path

import pytest

from aha.errors import CheckpointError
from aha.models.config.presets import preset
from aha.recipes.describe import describe_model


def folder(tmp_path: Path, **changes: object) -> Path:
    """A checkpoint whose weights are not there, like one that is still being fetched."""
    config = preset("qwen2-tiny", vocab_size=151936, hidden_size=896, num_attention_heads=14, head_dim=64)
    (tmp_path / "config.json").write_text(json.dumps(config.to_hf_dict() | changes))
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": {"a": 151642}}, "added_tokens": [{"id": 151664}]})
    )
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (tmp_path / "model.safetensors").write_bytes(bytes(3 << 20))
    return tmp_path


def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aha.recipes.describe.gpus", lambda: [("NVIDIA H100", 80 << 30)])
    text = describe_model(str(folder(tmp_path)))
    assert "151,665 tokens, 271 rows of padding" in text
    assert "1 files, 3.0 MiB" in text
    assert "qwen2, 3 layers" in text
    assert "NVIDIA H100 80.0 GiB" in text
    assert "renders (16 characters)" in text
    for stage in ("fine-tuning, all weights", "fine-tuning, LoRA", "GRPO, all weights", "GRPO, LoRA", "serving"):
        assert stage in text


def test_released_fp8_weights(tmp_path: Path) -> None:
    config = preset("v3").to_hf_dict() | {
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "671,026,419,200 = 671.03B" in describe_model(str(tmp_path))


def test_a_chat_template_that_does_not_render(tmp_path: Path) -> None:
    (folder(tmp_path) / "chat_template.jinja").write_text("{{ ''.__class__ }}{{ missing.name }}")
    assert "the chat template cannot be used: " in describe_model(str(tmp_path))


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="auto_map"):
        describe_model(str(folder(tmp_path, auto_map={"AutoModel": "x.Y"})))
