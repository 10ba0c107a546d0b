"""Checkpoints: what is refused and how, FP8, and writing whole or not at all."""

import json
import math
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from aha.errors import CheckpointError
from aha.models.checkpoint import files
from aha.models.checkpoint.fp8 import dequantize
from aha.models.checkpoint.hf import HfTensors, load_config, load_pretrained, save_pretrained
from aha.models.config.presets import tiny
from aha.models.deepseek_v3 import DeepseekV3

from ....foreign import quantize

torch.set_num_threads(1)


def build(**changes: object) -> DeepseekV3:
    torch.manual_seed(4)
    return DeepseekV3(tiny(40, hidden_size=24, num_hidden_layers=2, n_routed_experts=4, **changes)).init_weights()


def edit(folder: Path, file: str = "model.safetensors", **changes: torch.Tensor | None) -> None:
    """Rewrites tensors of a file; None removes one. Names have _ for the dots that keywords cannot have."""
    tensors = load_file(folder / file)
    for name, value in changes.items():
        key = next((k for k in tensors if k.replace(".", "_") == name), name)
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value
    save_file(tensors, folder / file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_pretrained(build(), tmp_path / "model")
    return tmp_path / "model"


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_tensor(folder: Path) -> None:
    edit(folder, model_norm_weight=None)
    assert "lacks 1 tensors, such as model.norm.weight" in refusal(folder)


def test_unexpected_tensor(folder: Path) -> None:
    edit(folder, extra=torch.zeros(2))
    assert "unexpected 1 tensors, such as extra" in refusal(folder)


def test_wrong_shape_is_seen_before_anything_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(folder, model_norm_weight=torch.zeros(25))
    monkeypatch.setattr("aha.models.checkpoint.files.TensorReader.read", lambda *_: pytest.fail("read"))
    message = refusal(folder)
    assert "model.norm.weight" in message
    assert "[24]" in message
    assert "[25]" in message


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(folder: Path, value: float) -> None:
    norm = torch.ones(24)
    norm[7] = value
    edit(folder, model_norm_weight=norm)
    message = refusal(folder)
    assert "model.norm.weight holds values that are not finite" in message


def test_damaged_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 10**12) + b"{}")
    assert "damaged" in refusal(folder)


def test_truncated_file(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refusal(folder)


def test_pickles_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickles" in refusal(folder)


def test_empty_folder(tmp_path: Path) -> None:
    assert "no config.json" in refusal(tmp_path)


def test_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no model.safetensors" in refusal(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b", "..", "", 3, "a\\b"])
def test_index_must_stay_in_the_folder(folder: Path, name: object) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "must name a file in the folder" in refusal(folder)


def test_links_must_stay_in_the_folder(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    weights.rename(tmp_path / "elsewhere.safetensors")
    weights.symlink_to(tmp_path / "elsewhere.safetensors")
    assert "leaves the folder" in refusal(folder)


def test_the_hugging_face_cache_is_made_of_links(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--a--b"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        file.rename(repository / "blobs" / file.name)
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / file.name)
    assert load_pretrained(snapshot).config.hidden_size == 24


def test_code_in_the_checkpoint_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}
    (folder / "config.json").write_text(json.dumps(config))
    assert "auto_map" in refusal(folder)


def test_generation_settings_are_kept(folder: Path, tmp_path: Path) -> None:
    settings = {"eos_token_id": [7, 9], "temperature": 0.7, "top_k": 20, "transformers_version": "4.51.0"}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    save_pretrained(load_pretrained(folder), tmp_path / "again")
    assert json.loads((tmp_path / "again" / "generation_config.json").read_text()) == settings
    (folder / "generation_config.json").write_text("[]")
    assert "generation_config.json must hold a JSON object" in refusal(folder)


def test_a_shape_of_a_trillion_numbers_is_refused_before_it_is_allocated(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vocab_size"] = 10**11
    (folder / "config.json").write_text(json.dumps(config))
    assert "must have shape [100000000000, 24] by config.json, got [40, 24]" in refusal(folder)


def test_index_and_shards_must_agree(tmp_path: Path) -> None:
    save_pretrained(build(), tmp_path, max_shard_bytes=20_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    name = next(key for key, file in index["weight_map"].items() if file == shards[0])
    index["weight_map"][name] = shards[1]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "does not have it" in refusal(tmp_path)
    (tmp_path / shards[0]).unlink()
    assert shards[0] in refusal(tmp_path)


def test_broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "not readable JSON" in refusal(folder)


def test_save_replaces_a_checkpoint_but_nothing_else(tmp_path: Path) -> None:
    model = build()
    save_pretrained(model, tmp_path / "a")
    with torch.no_grad():
        model.norm.weight.fill_(3.0)
    save_pretrained(model, tmp_path / "a", tokenizer_files={"tokenizer.json": "{}", "raw.bin": b"\x00"})
    assert load_pretrained(tmp_path / "a").norm.weight[0] == 3.0
    assert (tmp_path / "a" / "tokenizer.json").read_text() == "{}"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "important.txt").touch()
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        save_pretrained(model, tmp_path / "notes")


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    save_pretrained(model, tmp_path / "a")

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("aha.models.checkpoint.hf.write_json", fail)
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(model, tmp_path / "a")
    assert load_config(tmp_path / "a") == model.config
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_exported_tensors_are_views_and_include_the_biases() -> None:
    model = build()
    tensors = HfTensors(model)
    biases = [name for name in tensors if name.endswith("e_score_correction_bias")]
    assert len(biases) == len(list(model.routers()))
    up = tensors["model.layers.1.mlp.experts.2.up_proj.weight"]
    assert up.data_ptr() == model.layers[1].mlp.experts.gate_up_proj[2, 96:].data_ptr()


def test_files_have_ordinary_permissions(folder: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        (folder / "config.json").stat().st_mode & 0o777
    }


@pytest.mark.parametrize("shape", [(128, 128), (130, 250), (1, 300), (257, 3)])
def test_fp8_blocks_round_trip(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape) * torch.logspace(-3, 2, shape[1])
    quantized, scale = quantize(weight)
    restored = dequantize(quantized, scale)
    block_max = scale.repeat_interleave(128, 0)[: shape[0]].repeat_interleave(128, 1)[:, : shape[1]] * 448
    assert bool(((restored - weight).abs() <= weight.abs() / 16 + block_max * 2**-15).all())
    again, scale_again = quantize(restored)
    torch.testing.assert_close(dequantize(again, scale_again), restored, atol=0, rtol=1e-6)


def test_fp8_checkpoint_is_multiplied_out(folder: Path) -> None:
    name = "model.layers.0.self_attn.o_proj.weight"
    weight = load_file(folder / "model.safetensors")[name]
    quantized, scale = quantize(weight)
    edit(folder, **{name: quantized, name + "_scale_inv": scale})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load_pretrained(folder).layers[0].self_attn.o_proj.weight
    torch.testing.assert_close(loaded.detach(), dequantize(quantized, scale), atol=0, rtol=0)
    edit(folder, **{name + "_scale_inv": torch.ones(2, 1)})
    assert "_scale_inv must have shape [1, 1], got [2, 1]" in refusal(folder)
    edit(folder, **{name + "_scale_inv": None})
    assert "without its" in refusal(folder)


def test_a_file_is_opened_once_for_many_tensors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for its header and once for what it holds; again only after much has been read."""
    opened = []

    def counted(path: Path, **how: str) -> object:
        opened.append(path)
        return safe_open(path, **how)

    monkeypatch.setattr(files, "safe_open", counted)
    with files.TensorReader(folder) as reader:
        names = sorted(reader.names())
        for name in names:
            reader.read(name)
        assert len(opened) == 2 < len(names)
        monkeypatch.setattr(files, "REMAP_BYTES", 0)
        for name in names:
            reader.read(name)
        assert len(opened) == 2 + len(names)
