"""Parameters and cache bytes of a configuration, by arithmetic. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from aha.models.config.base import ModelConfig
from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.config.dense import DenseConfig


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Sizes of a model of any family, in parameters and bytes."""

    total_parameters: int
    """Embedding, layers, head and routing biases, without prediction modules; a tied head is counted once."""
    active_parameters: int
    """Of those, what one token goes through, embedding and head included."""
    embedding_parameters: int
    """Of those, embedding and head."""
    mtp_parameters: int
    """Parameters of the multi-token prediction modules that the main model does not have."""
    cache_bytes_per_token: int
    """Latents and rotary keys, or keys and values, of all layers, without prediction modules."""
    mha_cache_bytes_per_token: int
    """Multi-head attention with as many heads (V3: of width v_head_dim, 128), the papers' comparison."""


def describe(config: ModelConfig, bytes_per_number: int = 2) -> ModelDescription:
    """Counts parameters, and cache bytes at `bytes_per_number` (2: bfloat16).

    V3: 671,026,419,200 in total, 37.55B active, 70,272 bytes per token. DeepSeek's table says 36.7B active: without the
    embedding, which is a lookup.
    """
    if isinstance(config, DeepseekV3Config):
        return _describe_deepseek(config, bytes_per_number)
    assert isinstance(config, DenseConfig)
    return _describe_dense(config, bytes_per_number)


def _describe_deepseek(config: DeepseekV3Config, bytes_per_number: int) -> ModelDescription:
    width, heads = config.hidden_size, config.num_attention_heads
    expert = 3 * width * config.moe_intermediate_size
    dense_layers = config.num_hidden_layers - config.num_moe_layers
    dense = 3 * width * config.intermediate_size
    biases = config.n_routed_experts if config.topk_method == "noaux_tc" else 0
    router = config.n_routed_experts * width + biases
    moe = router + (config.n_routed_experts + config.n_shared_experts) * expert
    moe_active = router + (config.num_experts_per_tok + config.n_shared_experts) * expert
    around = _latent_attention(config) + 2 * width
    embedding = 2 * config.vocab_size * width
    common = embedding + width + config.num_hidden_layers * around + dense_layers * dense
    mtp_layer_is_dense = config.num_hidden_layers < config.first_k_dense_replace
    mtp = 2 * width * width + 3 * width + around + (dense if mtp_layer_is_dense else moe)
    per_layer = config.num_hidden_layers * bytes_per_number
    return ModelDescription(
        total_parameters=common + config.num_moe_layers * moe,
        active_parameters=common + config.num_moe_layers * moe_active,
        embedding_parameters=embedding,
        mtp_parameters=config.num_nextn_predict_layers * mtp,
        cache_bytes_per_token=per_layer * (config.kv_lora_rank + config.qk_rope_head_dim),
        mha_cache_bytes_per_token=per_layer * heads * 2 * config.v_head_dim,
    )


def _latent_attention(config: DeepseekV3Config) -> int:
    """Parameters of one latent attention, its norms included."""
    width, heads, latent = config.hidden_size, config.num_attention_heads, config.kv_lora_rank
    queries = heads * config.qk_head_dim
    if config.q_lora_rank is None:
        q_side = width * queries
    else:
        q_side = config.q_lora_rank * (width + 1 + queries)
    kv_side = width * (latent + config.qk_rope_head_dim) + latent
    kv_up = latent * heads * (config.qk_nope_head_dim + config.v_head_dim)
    return q_side + kv_side + kv_up + heads * config.v_head_dim * width


def _describe_dense(config: DenseConfig, bytes_per_number: int) -> ModelDescription:
    width, dim = config.hidden_size, config.head_dim
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    qkv = (heads + 2 * kv_heads) * dim
    attention = width * qkv + heads * dim * width + (qkv if config.qkv_bias else 0) + (2 * dim if config.qk_norm else 0)
    layer = attention + 3 * width * config.intermediate_size + 2 * width
    embedding = config.vocab_size * width * (1 if config.tie_word_embeddings else 2)
    total = embedding + config.num_hidden_layers * layer + width
    per_head = config.num_hidden_layers * 2 * dim * bytes_per_number
    return ModelDescription(
        total_parameters=total,
        active_parameters=total,
        embedding_parameters=embedding,
        mtp_parameters=0,
        cache_bytes_per_token=per_head * kv_heads,
        mha_cache_bytes_per_token=per_head * heads,
    )
