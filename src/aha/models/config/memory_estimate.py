"""An estimate of the memory that each stage takes, by arithmetic, before anything is loaded. No torch here.

Weights, gradients and the optimizer's moments are exact; activations are those of our own layers, within a quarter;
what the process itself, its libraries and the allocator's gaps take comes on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aha.models.config.base import ModelConfig
from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.config.dense import DenseConfig
from aha.models.config.parameter_count import describe

MICRO_TOKENS = 16_384
"""Tokens per forward pass of the trainers, their default."""
ROLLOUTS, ROLLOUT_TOKENS = 256, 1_024
"""Samples that GRPO's engine holds at once, and the longest of them, prompt included."""
REQUESTS, REQUEST_TOKENS = 16, 4_096
"""Requests that a server holds at once, and the longest of them."""
ADAPTER_RANK = 16


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Bytes of one stage."""

    stage: str
    model: int
    """Weights, with gradients, moments and master weights of what is trained."""
    activations: int
    """Of one forward pass of `MICRO_TOKENS`, kept for the backward pass."""
    cache: int
    """Of what is generated."""

    @property
    def total(self) -> int:
        """All of it at once."""
        return self.model + self.activations + self.cache


def stage_memory(config: ModelConfig, narrow: bool, checkpointing: bool) -> list[StageMemory]:
    """What fine-tuning, GRPO (all weights, or adapters of rank 16) and serving take.

    Args:
        config: of the model.
        narrow: computes in bfloat16, with float32 masters and gradients of what is trained; else all in float32.
        checkpointing: keeps one layer's activations and the inputs of the others.
    """
    sizes = describe(config)
    frozen = sizes.mtp_parameters
    number = 2 if narrow else 4
    trained = 16 + (2 if narrow else 0)  # float32 weight, gradient and two moments; the narrow weight beside
    weights = (sizes.total_parameters + frozen) * number
    full = sizes.total_parameters * trained + frozen * number
    lora = weights + adapter_parameters(config, ADAPTER_RANK) * trained
    per_layer = [count * number for count in layer_activations(config)]
    inputs = config.num_hidden_layers * config.hidden_size * number
    kept = max(per_layer) + inputs if checkpointing else sum(per_layer)
    activations = MICRO_TOKENS * kept
    per_token = sizes.cache_bytes_per_token * number // 2
    rollouts, requests = ROLLOUTS * ROLLOUT_TOKENS * per_token, REQUESTS * REQUEST_TOKENS * per_token
    return [
        StageMemory("fine-tuning, all weights", full, activations, 0),
        StageMemory("fine-tuning, LoRA", lora, activations, 0),
        StageMemory("GRPO, all weights", full, activations, rollouts),
        StageMemory("GRPO, LoRA", lora, activations, rollouts),
        StageMemory("serving", weights, 0, requests),
    ]


def _dense(config: ModelConfig) -> DenseConfig:
    assert isinstance(config, DenseConfig)
    return config


def adapter_parameters(config: ModelConfig, rank: int) -> int:
    """Parameters of LoRA adapters on all linear layers of attention and feed-forward."""
    return rank * sum(inputs + outputs for inputs, outputs in _linear_shapes(config))


def _linear_shapes(config: ModelConfig) -> Iterator[tuple[int, int]]:
    """(in, out) of every layer that can have adapters; routed experts and routers cannot."""
    for index in range(config.num_hidden_layers):
        if isinstance(config, DeepseekV3Config):
            yield from _latent_shapes(config)
            dense = index < config.first_k_dense_replace
            shared = config.moe_intermediate_size * config.n_shared_experts
            width = config.intermediate_size if dense else shared
        else:
            yield from _grouped_shapes(_dense(config))
            width = config.intermediate_size
        if width:
            yield from [(config.hidden_size, width)] * 2
            yield width, config.hidden_size


def _grouped_shapes(config: DenseConfig) -> Iterator[tuple[int, int]]:
    width, dim = config.hidden_size, config.head_dim
    yield width, config.num_attention_heads * dim
    yield from [(width, config.num_key_value_heads * dim)] * 2
    yield config.num_attention_heads * dim, width


def _latent_shapes(config: DeepseekV3Config) -> Iterator[tuple[int, int]]:
    width, heads, latent = config.hidden_size, config.num_attention_heads, config.kv_lora_rank
    if config.q_lora_rank is None:
        yield width, heads * config.qk_head_dim
    else:
        yield width, config.q_lora_rank
        yield config.q_lora_rank, heads * config.qk_head_dim
    yield width, latent + config.qk_rope_head_dim
    yield latent, heads * (config.qk_nope_head_dim + config.v_head_dim)
    yield heads * config.v_head_dim, width


def layer_activations(config: ModelConfig) -> list[int]:
    """Numbers that each layer keeps per token for its backward pass."""
    width = config.hidden_size
    if isinstance(config, DenseConfig):
        heads, kv_heads, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        normed = (heads + kv_heads) * dim if config.qk_norm else 0
        attention = 2 * width + (2 * heads + 2 * kv_heads) * dim + normed
        return [attention + 2 * width + 2 * config.intermediate_size] * config.num_hidden_layers
    assert isinstance(config, DeepseekV3Config)
    head = max(config.qk_head_dim, config.v_head_dim)
    queries = 2 * (config.q_lora_rank or 0)
    attention = 2 * width + queries + 2 * config.kv_lora_rank + 4 * config.num_attention_heads * head
    dense = 2 * width + 2 * config.intermediate_size
    expert = width + 2 * config.moe_intermediate_size
    shared = width + 2 * config.moe_intermediate_size * config.n_shared_experts
    moe = 2 * width + 4 * config.n_routed_experts + config.num_experts_per_tok * expert + shared
    first = min(config.first_k_dense_replace, config.num_hidden_layers)
    return [attention + dense] * first + [attention + moe] * (config.num_hidden_layers - first)
