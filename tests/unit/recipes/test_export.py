"""`aha export`: what is written is the model, adapters merged in, with everything that lay beside the weights."""

from pathlib import Path

import pytest
import torch

from aha.errors import ConfigError, UnknownNameError
from aha.models.checkpoint.adapter import save_adapter
from aha.models.checkpoint.hf import load_pretrained, save_pretrained
from aha.models.config.presets import preset
from aha.models.layouts import Ragged
from aha.models.lora import add_adapters
from aha.models.lora_linear import LoRAConfig
from aha.models.model_from_config import build
from aha.recipes.export import export_model
from aha.text.templates import CHAT_TEMPLATE
from aha.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["What is 2+2? The answer is 4."] * 20, 300, CHAT_TEMPLATE)
IDS = torch.arange(11) * 13 % TOKENIZER.vocab_size


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A model and adapters that change it."""
    torch.manual_seed(0)
    model = build(preset("llama-tiny", vocab_size=320)).init_weights()
    save_pretrained(model, tmp_path / "model", tokenizer_files=TOKENIZER.files() | {"merges.txt": "a b\n"})
    add_adapters(model, LoRAConfig(r=2), seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    save_adapter(model, tmp_path / "adapter")
    save_pretrained(model, tmp_path / "expected")
    return tmp_path / "model", tmp_path / "adapter"


def logits(folder: Path) -> torch.Tensor:
    model = load_pretrained(folder)
    return model.logits(model(IDS, Ragged([11])).hidden_ND)[:, : TOKENIZER.vocab_size]


def test_a_folder_has_the_adapters_merged_and_keeps_what_lay_beside(folders: tuple[Path, Path], tmp_path: Path) -> None:
    model, adapter = folders
    export_model(model, tmp_path / "out", "hf", adapter, "f32")
    torch.testing.assert_close(logits(tmp_path / "out"), logits(tmp_path / "expected"), atol=1e-5, rtol=0)
    assert float((logits(tmp_path / "out") - logits(model)).detach().abs().max()) > 0.1
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "merges.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (model / name).read_bytes()
    assert load_pretrained(tmp_path / "out").num_tokens == TOKENIZER.vocab_size < 320


def test_a_gguf_file_of_base_and_adapters(folders: tuple[Path, Path], tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="gguf is not installed: install the extra gguf")
    model, adapter = folders
    export_model(model, tmp_path / "out.gguf", "gguf", adapter, "f32")
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    expected = load_pretrained(tmp_path / "expected").layers[0].mlp.down_proj.weight.detach()
    torch.testing.assert_close(torch.tensor(tensors["blk.0.ffn_down.weight"]), expected, atol=1e-6, rtol=0)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_gguf_file_goes_where_it_is_said_to_in_any_precision(folders: tuple[Path, Path], tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="gguf is not installed: install the extra gguf")
    out = tmp_path / "new" / "folder" / "out.gguf"
    export_model(folders[0], out, "gguf", folders[1], "f16")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(out).tensors}
    assert (kinds["blk.0.ffn_down.weight"], kinds["output_norm.weight"]) == ("F16", "F32")
    with pytest.raises(ConfigError, match="is a folder: name the GGUF file"):
        export_model(folders[0], out.parent, "gguf", None, "f32")


def test_unknown_formats_and_precisions(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown format"):
        export_model(folders[0], tmp_path / "out", "ggml", None, "f32")
    with pytest.raises(UnknownNameError, match="unknown precision 'q4'"):
        export_model(folders[0], tmp_path / "out", "gguf", None, "q4")
    with pytest.raises(ConfigError, match="f32 or bf16"):
        export_model(folders[0], tmp_path / "out", "hf", None, "f16")
