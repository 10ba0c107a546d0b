"""Which rows of our fused weights are which tensor of a Hugging Face checkpoint.

The one place that knows both spellings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from aha.models.config.base import ModelConfig
from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.config.dense import DenseConfig

V3_LAYERS = 61
"""transformers ignores prediction modules by the literal pattern `model.layers.61.*`.

Only at V3's depth may they be inside.
"""


class Piece(NamedTuple):
    """One tensor of a checkpoint as part of one of ours: `ours[expert][start:stop]`."""

    hf_name: str
    own_name: str
    expert: int | None = None
    start: int | None = None
    stop: int | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """The view of our tensor that is this piece; contiguous, since rows are outermost."""
        if self.expert is not None:
            tensor = tensor[self.expert]
        return tensor if self.start is None else tensor[self.start : self.stop]

    @property
    def is_mtp(self) -> bool:
        """Whether it belongs to a prediction module."""
        return self.own_name.startswith("mtp.")


def pieces(config: ModelConfig) -> Iterator[Piece]:
    """Every tensor of the checkpoint, prediction modules last."""
    if isinstance(config, DenseConfig):
        return _dense_pieces(config)
    assert isinstance(config, DeepseekV3Config)
    return _v3_pieces(config)


def _dense_pieces(config: DenseConfig) -> Iterator[Piece]:
    yield Piece("model.embed_tokens.weight", "embed_tokens.weight")
    for index in range(config.num_hidden_layers):
        hf, own = f"model.layers.{index}", f"layers.{index}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield Piece(f"{hf}.{name}.weight", f"{own}.{name}.weight")
        yield from _grouped_attention(config, f"{hf}.self_attn", f"{own}.self_attn")
        yield from _swiglu(f"{hf}.mlp", f"{own}.mlp", config.intermediate_size)
    yield Piece("model.norm.weight", "norm.weight")
    if not config.tie_word_embeddings:
        yield Piece("lm_head.weight", "lm_head.weight")


def _grouped_attention(config: DenseConfig, hf: str, own: str) -> Iterator[Piece]:
    start = 0
    for name, heads in zip("qkv", (config.num_attention_heads, *[config.num_key_value_heads] * 2), strict=True):
        stop = start + heads * config.head_dim
        for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
            yield Piece(f"{hf}.{name}_proj.{kind}", f"{own}.qkv_proj.{kind}", None, start, stop)
        start = stop
    for name in ("q_norm", "k_norm", "o_proj") if config.qk_norm else ("o_proj",):
        yield Piece(f"{hf}.{name}.weight", f"{own}.{name}.weight")


def _v3_pieces(config: DeepseekV3Config) -> Iterator[Piece]:
    yield Piece("model.embed_tokens.weight", "embed_tokens.weight")
    for index in range(config.num_hidden_layers):
        yield from _layer(config, f"model.layers.{index}", f"layers.{index}", index)
    yield Piece("model.norm.weight", "norm.weight")
    yield Piece("lm_head.weight", "lm_head.weight")
    for depth in range(config.num_nextn_predict_layers):
        hf, own = f"model.layers.{config.num_hidden_layers + depth}", f"mtp.{depth}"
        for name in ("enorm", "hnorm", "eh_proj"):
            yield Piece(f"{hf}.{name}.weight", f"{own}.{name}.weight")
        yield from _layer(config, hf, f"{own}.layer", config.num_hidden_layers)
        yield Piece(f"{hf}.shared_head.norm.weight", f"{own}.norm.weight")


def shared_copies(config: ModelConfig) -> dict[str, str]:
    """The copies of embedding and head that released checkpoints may keep, and the tensor each is a copy of.

    DeepSeek's keep both with each prediction module, and some dense ones a head that is the embedding.
    """
    if isinstance(config, DenseConfig):
        return {"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {}
    assert isinstance(config, DeepseekV3Config)
    copies = {}
    for depth in range(config.num_nextn_predict_layers):
        hf = f"model.layers.{config.num_hidden_layers + depth}"
        copies[f"{hf}.embed_tokens.weight"] = "model.embed_tokens.weight"
        copies[f"{hf}.shared_head.head.weight"] = "lm_head.weight"
    return copies


def is_ignorable(hf_name: str) -> bool:
    """Whether a tensor that we have no place for carries no information."""
    return re.search(r"\.rotary_emb\.inv_freq$", hf_name) is not None


def _layer(config: DeepseekV3Config, hf: str, own: str, index: int) -> Iterator[Piece]:
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield Piece(f"{hf}.{name}.weight", f"{own}.{name}.weight")
    yield from _attention(config, f"{hf}.self_attn", f"{own}.self_attn")
    if index < config.first_k_dense_replace:
        yield from _swiglu(f"{hf}.mlp", f"{own}.mlp", config.intermediate_size)
        return
    yield Piece(f"{hf}.mlp.gate.weight", f"{own}.mlp.gate.weight")
    if config.topk_method == "noaux_tc":
        bias = "mlp.gate.e_score_correction_bias"
        yield Piece(f"{hf}.{bias}", f"{own}.{bias}")
    width = config.moe_intermediate_size
    for expert in range(config.n_routed_experts):
        one, fused = f"{hf}.mlp.experts.{expert}", f"{own}.mlp.experts.gate_up_proj"
        yield Piece(f"{one}.gate_proj.weight", fused, expert, 0, width)
        yield Piece(f"{one}.up_proj.weight", fused, expert, width, 2 * width)
        yield Piece(f"{one}.down_proj.weight", f"{own}.mlp.experts.down_proj", expert)
    if config.n_shared_experts:
        shared = "mlp.shared_experts"
        yield from _swiglu(f"{hf}.{shared}", f"{own}.{shared}", width * config.n_shared_experts)


def _attention(config: DeepseekV3Config, hf: str, own: str) -> Iterator[Piece]:
    queries = config.q_lora_rank or config.num_attention_heads * config.qk_head_dim
    end = queries + config.kv_lora_rank + config.qk_rope_head_dim
    fused = f"{own}.qkv_a_proj.weight"
    if config.q_lora_rank is None:
        yield Piece(f"{hf}.q_proj.weight", fused, None, 0, queries)
    else:
        yield Piece(f"{hf}.q_a_proj.weight", fused, None, 0, queries)
        for name in ("q_a_layernorm", "q_b_proj"):
            yield Piece(f"{hf}.{name}.weight", f"{own}.{name}.weight")
    yield Piece(f"{hf}.kv_a_proj_with_mqa.weight", fused, None, queries, end)
    for name in ("kv_a_layernorm", "kv_b_proj", "o_proj"):
        yield Piece(f"{hf}.{name}.weight", f"{own}.{name}.weight")


def _swiglu(hf: str, own: str, width: int) -> Iterator[Piece]:
    yield Piece(f"{hf}.gate_proj.weight", f"{own}.gate_up_proj.weight", None, 0, width)
    yield Piece(f"{hf}.up_proj.weight", f"{own}.gate_up_proj.weight", None, width, 2 * width)
    yield Piece(f"{hf}.down_proj.weight", f"{own}.down_proj.weight")
