"""A dense checkpoint as one GGUF file for llama.cpp, tensor by tensor: nothing but one tensor is ever in memory.

Llama's queries and keys are permuted: llama.cpp rotates neighbouring pairs for that architecture, the checkpoint a
head's halves. Needs the extra `gguf`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from aha.environment import install_command
from aha.errors import CheckpointError, ConfigError
from aha.model_folder import TOKENIZER, read_model_json
from aha.models.checkpoint.files import TensorReader
from aha.models.checkpoint.names import pieces
from aha.models.config.base import Llama3Scaling, RopeScaling
from aha.models.config.dense import DenseConfig
from aha.models.config.load import load_config
from aha.models.rope import inverse_frequencies, yarn_mscale
from aha.text.chat_template import ChatTemplate
from aha.text.gguf_vocabulary import gguf_vocabulary

Precision = Literal["f32", "f16", "bf16"]
ROPE_FACTORS = "rope_freqs.weight"


def export_gguf(folder: Path, target: Path, precision: Precision = "bf16") -> None:
    """Writes the GGUF file of a checkpoint folder, completely or not at all.

    Args:
        folder: a Qwen2, Qwen3 or Llama model with its tokenizer, in Hugging Face layout.
        target: the file; replaced if it exists.
        precision: of matrices; norms and biases are float32 always.

    Raises:
        ConfigError: the package gguf is not installed, or the model is not of a dense family.
        CheckpointError: files are damaged or missing, or the tokenizer has no counterpart in llama.cpp.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError(f"GGUF export needs the package gguf: {install_command('gguf')}")
    import gguf

    config = load_config(folder)
    if not isinstance(config, DenseConfig):
        raise ConfigError(f"GGUF export is for qwen2, qwen3 and llama models; {folder} is another")
    part = target.with_name(f".{target.name}.part")
    writer = gguf.GGUFWriter(part, config.model_type)
    try:
        _add_sizes(writer, config, precision)
        _add_tokenizer(writer, config, folder)
        with TensorReader(folder) as reader:
            _write_tensors(writer, config, reader, precision)
        writer.close()
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _add_sizes(writer: Any, config: DenseConfig, precision: Precision) -> None:
    import gguf

    kinds = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16"}
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_file_type(gguf.LlamaFileType[kinds[precision]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    scaling = config.rope_scaling
    if isinstance(scaling, RopeScaling):
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling.factor)
        writer.add_rope_scaling_orig_ctx_len(scaling.original_max_position_embeddings)
        writer.add_rope_scaling_yarn_beta_fast(scaling.beta_fast)
        writer.add_rope_scaling_yarn_beta_slow(scaling.beta_slow)
        if scaling.attention_factor is not None:  # llama.cpp multiplies by YaRN's own factor
            writer.add_rope_scaling_attn_factors(scaling.attention_factor / yarn_mscale(scaling.factor, 1.0))


def _add_tokenizer(writer: Any, config: DenseConfig, folder: Path) -> None:
    settings = folder / "tokenizer_config.json"
    about = read_model_json(settings) if settings.is_file() else {}
    vocabulary = gguf_vocabulary(read_model_json(folder / TOKENIZER), about, config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    for kind, index in vocabulary.special.items():
        getattr(writer, f"add_{kind}_token_id")(index)
    if vocabulary.add_bos is not None:
        writer.add_add_bos_token(vocabulary.add_bos)
    template = ChatTemplate.load(folder)
    if template is not None:
        writer.add_chat_template(template.source)


def _write_tensors(writer: Any, config: DenseConfig, reader: TensorReader, precision: Precision) -> None:
    """Names and shapes of all first, as the format wants it, then the contents one by one."""
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[config.model_type.upper()], config.num_hidden_layers)
    wanted = {}
    for piece in pieces(config):
        if piece.hf_name not in reader.names():
            raise CheckpointError(f"{reader.folder} lacks {piece.hf_name}: its config.json describes another model")
        stem, _, kind = piece.hf_name.rpartition(".")
        wanted[piece.hf_name] = f"{names.get_name(stem)}.{kind}"
    factors = _rope_factors(config)
    if factors is not None:
        writer.add_tensor_info(ROPE_FACTORS, factors.shape, np.dtype(np.float32), factors.nbytes)
    for hf_name, name in wanted.items():
        shape = reader.shape(hf_name)
        kind = "f32" if len(shape) == 1 else precision
        size = int(np.prod(shape)) * (4 if kind == "f32" else 2)
        writer.add_tensor_info(
            name, shape, np.dtype(np.float32), size, raw_dtype=gguf.GGMLQuantizationType[kind.upper()]
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for array in _contents(config, reader, list(wanted), precision):
        writer.write_tensor_data(array)


def _contents(
    config: DenseConfig, reader: TensorReader, names: list[str], precision: Precision
) -> Iterator[np.ndarray[Any, Any]]:
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[precision]
    for name in names:
        tensor = reader.read(name)
        if config.model_type == "llama" and ("q_proj" in name or "k_proj" in name):
            tensor = neighbouring_pairs(tensor, config.head_dim)
        narrow = tensor.to(torch.float32 if tensor.dim() == 1 else dtype).contiguous()
        yield narrow.view(torch.uint8).numpy() if narrow.dtype == torch.bfloat16 else narrow.numpy()


def neighbouring_pairs(weight_XD: Tensor, head_dim: int) -> Tensor:
    """Rows of each head reordered so that the pairs of rotary positions, i and K/2 + i, become 2i and 2i + 1."""
    return weight_XD.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


def _rope_factors(config: DenseConfig) -> np.ndarray[Any, Any] | None:
    """Llama 3's scaling as llama.cpp wants it: what each pair's frequency is divided by."""
    if not isinstance(config.rope_scaling, Llama3Scaling):
        return None
    plain = inverse_frequencies(config.changed(rope_scaling=None))
    factors: np.ndarray[Any, Any] = (plain / inverse_frequencies(config)).float().numpy()
    return factors
