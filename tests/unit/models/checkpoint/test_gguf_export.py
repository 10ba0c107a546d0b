"""GGUF files read back: tensors, sizes and the tokenizer are those of the checkpoint."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aha.errors import CheckpointError, ConfigError
from aha.models.checkpoint.gguf_export import export_gguf, neighbouring_pairs
from aha.models.checkpoint.hf import save_pretrained
from aha.models.config.base import Llama3Scaling, RopeScaling
from aha.models.config.presets import preset
from aha.models.model_from_config import build
from aha.models.rope import inverse_frequencies
from aha.text.templates import CHAT_TEMPLATE
from aha.text.tokenizer import BOS, CONTROL_TOKENS, EOS, Tokenizer

gguf = pytest.importorskip("gguf", reason="gguf is not installed: install the extra gguf")

TOKENIZER = Tokenizer.train(["What is 2+2? The answer is 4. 2+2等于多少？答案是4。"] * 20, 300, CHAT_TEMPLATE)
ROWS = 384
LLAMA3 = Llama3Scaling(factor=8, low_freq_factor=1, high_freq_factor=4, original_max_position_embeddings=64)
YARN = RopeScaling(factor=4, original_max_position_embeddings=256)
MODELS = {
    "qwen3": {"rope_scaling": YARN},
    "qwen2": {"tie_word_embeddings": True},
    "llama": {"rope_scaling": LLAMA3, "num_key_value_heads": 1},
}
LAYER = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def checkpoint(family: str, folder: Path) -> None:
    torch.manual_seed(1)
    model = build(preset(f"{family}-tiny", vocab_size=ROWS, **MODELS.get(family, {}))).init_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("norm.weight", "bias")):
                parameter.uniform_(0.5, 1.5)
    save_pretrained(model, folder, tokenizer_files=TOKENIZER.files(), max_shard_bytes=200_000)


def hf_name(name: str) -> str:
    """The checkpoint's name of a tensor, by a table of our own."""
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("blk."):
        _, index, own = stem.split(".")
        return f"model.layers.{index}.{next(hf for hf, short in LAYER.items() if short == own)}.{kind}"
    return f"{next(hf for hf, short in OUTSIDE.items() if short == stem)}.{kind}"


def halves(weight: torch.Tensor, dim: int) -> torch.Tensor:
    """llama.cpp's order of rows back to the checkpoint's."""
    return torch.cat([head[0::2] if half == 0 else head[1::2] for head in weight.split(dim) for half in (0, 1)])


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_tensors_and_metadata(family: str, precision: str, tmp_path: Path) -> None:
    checkpoint(family, tmp_path / "model")
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", precision)
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    files = (tmp_path / "model").glob("*.safetensors")
    expected = {name: tensor for file in files for name, tensor in load_file(file).items()}
    seen = set()
    for tensor in reader.tensors:
        found = torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type)))
        if tensor.name == "rope_freqs.weight":
            config = preset("llama-tiny", rope_theta=10000.0, **MODELS["llama"])
            plain = inverse_frequencies(config.model_copy(update={"rope_scaling": None}))
            torch.testing.assert_close(plain / found, inverse_frequencies(config))
            continue
        name = hf_name(tensor.name)
        if family == "llama" and ("q_proj" in name or "k_proj" in name):
            assert torch.equal(neighbouring_pairs(halves(found, 24), 24), found)
            found = halves(found, 24)
        wanted = expected[name]
        assert torch.equal(found, wanted if precision == "f32" or wanted.dim() == 1 else wanted.bfloat16().float())
        seen.add(name)
    assert seen == expected.keys()
    assert ("rope_freqs.weight" in {tensor.name for tensor in reader.tensors}) == (family == "llama")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == family
    assert fields[f"{family}.block_count"] == 3
    assert fields[f"{family}.attention.head_count"] == 4
    assert fields[f"{family}.attention.head_count_kv"] == (1 if family == "llama" else 2)
    assert fields[f"{family}.attention.key_length"] == 24
    assert fields[f"{family}.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert fields.get("qwen3.rope.scaling.type") == ("yarn" if family == "qwen3" else None)


def test_yarns_factor_is_what_llama_cpp_multiplies_by(tmp_path: Path) -> None:
    """Its own factor for a context four times as long is 0.1 ln 4 + 1."""
    scaling = YARN.model_copy(update={"attention_factor": 0.9})
    model = build(preset("qwen3-tiny", vocab_size=ROWS, rope_scaling=scaling)).init_weights()
    save_pretrained(model, tmp_path, tokenizer_files=TOKENIZER.files())
    export_gguf(tmp_path, tmp_path / "model.gguf")
    field = gguf.GGUFReader(tmp_path / "model.gguf").fields["qwen3.rope.scaling.attn_factor"]
    assert field.contents() * (0.1 * math.log(4) + 1) == pytest.approx(0.9)


def test_the_tokenizer_is_the_checkpoints(tmp_path: Path) -> None:
    checkpoint("qwen3", tmp_path / "model")
    export_gguf(tmp_path / "model", tmp_path / "model.gguf")
    fields = {n: field.contents() for n, field in gguf.GGUFReader(tmp_path / "model.gguf").fields.items()}
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    raw = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    assert len(tokens) == len(kinds) == ROWS
    assert all(tokens[index] == token for token, index in raw["model"]["vocab"].items())
    assert tokens[: len(CONTROL_TOKENS)] == list(CONTROL_TOKENS)
    assert set(kinds[: len(CONTROL_TOKENS)]) == {3}
    assert set(kinds[TOKENIZER.vocab_size :]) == {5}
    assert fields["tokenizer.ggml.merges"] == [" ".join(merge) for merge in raw["model"]["merges"]]
    assert tokens[fields["tokenizer.ggml.eos_token_id"]] == EOS
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "smollm")
    assert fields["tokenizer.chat_template"] == CHAT_TEMPLATE


def exported(folder: Path, settings: dict[str, object], post_processor: dict[str, object] | None = None) -> Any:
    """Fields of the file made from a checkpoint with more in tokenizer_config.json and another post-processor."""
    checkpoint("llama", folder)
    for name, more in (("tokenizer_config.json", settings), ("tokenizer.json", {"post_processor": post_processor})):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | more))
    (folder / "chat_template.jinja").unlink()
    export_gguf(folder, folder / "model.gguf")
    return {name: field.contents() for name, field in gguf.GGUFReader(folder / "model.gguf").fields.items()}


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("{{ messages }}", "{{ messages }}"),
        ([{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}], "yes"),
        (None, None),
    ],
)
def test_the_chat_template_of_older_folders_is_in_tokenizer_config(
    stored: object, expected: str | None, tmp_path: Path
) -> None:
    assert exported(tmp_path, {"chat_template": stored}).get("tokenizer.chat_template") == expected


def template_processing(*tokens: str) -> dict[str, object]:
    """A post-processor as in Llama 3's tokenizer.json: these tokens, then the text."""
    single = [{"SpecialToken": {"id": token, "type_id": 0}} for token in tokens]
    single.append({"Sequence": {"id": "A", "type_id": 0}})
    special = {token: {"id": token, "ids": [TOKENIZER.control_id(token)], "tokens": [token]} for token in tokens}
    step = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    return {"type": "Sequence", "processors": [level, step]}


@pytest.mark.parametrize(
    ("settings", "post_processor", "expected"),
    [
        ({}, None, None),
        ({}, template_processing(BOS), True),
        ({}, template_processing(BOS)["processors"][1], True),
        ({}, template_processing(EOS), None),
        ({}, template_processing(), None),
        ({"bos_token": None}, template_processing(BOS), None),
        ({"add_bos_token": True}, None, True),
        ({"add_bos_token": False}, template_processing(BOS), False),
        ({"add_bos_token": None}, None, None),
    ],
)
def test_the_first_token_is_added_where_the_files_say_so(
    settings: dict[str, object], post_processor: dict[str, object] | None, expected: bool | None, tmp_path: Path
) -> None:
    assert exported(tmp_path, settings, post_processor).get("tokenizer.ggml.add_bos_token") is expected


def test_what_cannot_be_exported_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    checkpoint("qwen2", tmp_path / "model")
    raw = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(raw | {"pre_tokenizer": {"type": "Whitespace"}}))
    with pytest.raises(CheckpointError, match="no name for the pre-tokenizer"):
        export_gguf(tmp_path / "model", tmp_path / "model.gguf")
    save_pretrained(build(preset("tiny", vocab_size=ROWS)).init_weights(), tmp_path / "v3")
    with pytest.raises(ConfigError, match="is for qwen2, qwen3 and llama models"):
        export_gguf(tmp_path / "v3", tmp_path / "model.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "v3"]
