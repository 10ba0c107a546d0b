"""Named model sizes: DeepSeek-V3 at `tiny` for a laptop, `v2-lite` (16B), `v3` (671B), and small dense models.

No torch here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aha.errors import UnknownNameError
from aha.models.config.base import ModelConfig, RopeScaling
from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.config.dense import DenseConfig


def tiny(vocab_size: int = 512, **changes: Any) -> DeepseekV3Config:
    """V3 at a size that two CPU cores train: 2.4M parameters, 0.85M active, 0.7M for prediction.

    One group of experts, and no YaRN: its rows are short.

    q and k heads are as wide as v heads (16 + 16 = 32), so that CPU flash attention runs without padding.
    """
    sizes: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": 128,
        "intermediate_size": 384,
        "moe_intermediate_size": 96,
        "num_hidden_layers": 4,
        "first_k_dense_replace": 1,
        "num_attention_heads": 4,
        "q_lora_rank": 96,
        "kv_lora_rank": 48,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
        "n_routed_experts": 16,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "routed_scaling_factor": 1.0,
        "num_nextn_predict_layers": 1,
        "max_position_embeddings": 1024,
        "rope_scaling": None,
        "initializer_range": 0.02,
    }
    return DeepseekV3Config.checked(sizes | changes)


def v2_lite(**changes: Any) -> DeepseekV3Config:
    """DeepSeek-V2-Lite as released: 16B parameters, 2.4B active, V2's gate (softmax, no biases, not normalised).

    V3's small ablations (V3 Table 5) are of this size with V3's gate: `V3_GATE` as changes.
    """
    sizes: dict[str, Any] = {
        "vocab_size": 102400,
        "hidden_size": 2048,
        "intermediate_size": 10944,
        "moe_intermediate_size": 1408,
        "num_hidden_layers": 27,
        "first_k_dense_replace": 1,
        "num_attention_heads": 16,
        "q_lora_rank": None,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "n_group": 1,
        "topk_group": 1,
        "scoring_func": "softmax",
        "topk_method": "greedy",
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
        "num_nextn_predict_layers": 0,
        "initializer_range": 0.02,
        "bos_token_id": 100000,
        "eos_token_id": 100001,
        "aux_loss_alpha": 1e-3,
        "rope_scaling": RopeScaling(
            factor=40, original_max_position_embeddings=4096, mscale=0.707, mscale_all_dim=0.707
        ),
    }
    return DeepseekV3Config.checked(sizes | changes)


V3_GATE: dict[str, Any] = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": True}
"""Sigmoid scores, biases for the selection alone, gates that sum to 1."""


def v3(**changes: Any) -> DeepseekV3Config:
    """DeepSeek-V3 and R1 as released: 671B parameters, 37B active."""
    return DeepseekV3Config.checked(changes)


def _dense_tiny(model_type: str, vocab_size: int, changes: dict[str, Any]) -> DenseConfig:
    """The sizes that the small dense presets share; q, k and v heads of one width suit CPU flash attention."""
    sizes: dict[str, Any] = {
        "model_type": model_type,
        "vocab_size": vocab_size,
        "hidden_size": 96,
        "intermediate_size": 304,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "max_position_embeddings": 1024,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    return DenseConfig.checked(sizes | changes)


def qwen3_tiny(vocab_size: int = 512, **changes: Any) -> DenseConfig:
    """Qwen3 with 0.35M parameters besides embedding and head."""
    return _dense_tiny("qwen3", vocab_size, changes)


def qwen3_mini(vocab_size: int = 512, **changes: Any) -> DenseConfig:
    """Qwen3 with 0.79M parameters besides embedding and head."""
    sizes = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "head_dim": 32}
    return _dense_tiny("qwen3", vocab_size, sizes | changes)


def qwen2_tiny(vocab_size: int = 512, **changes: Any) -> DenseConfig:
    """Qwen2 (and Qwen2.5) at the size of `qwen3_tiny`."""
    return _dense_tiny("qwen2", vocab_size, changes)


def llama_tiny(vocab_size: int = 512, **changes: Any) -> DenseConfig:
    """Llama at the size of `qwen3_tiny`."""
    return _dense_tiny("llama", vocab_size, changes)


PRESETS: dict[str, Callable[..., ModelConfig]] = {
    "tiny": tiny,
    "v2-lite": v2_lite,
    "v3": v3,
    "qwen3-tiny": qwen3_tiny,
    "qwen3-mini": qwen3_mini,
    "qwen2-tiny": qwen2_tiny,
    "llama-tiny": llama_tiny,
}


def preset(name: str, **changes: Any) -> ModelConfig:
    """Returns a preset by name, with fields changed.

    Raises:
        UnknownNameError: with the nearest spelling.
    """
    if name not in PRESETS:
        raise UnknownNameError("model preset", name, PRESETS)
    return PRESETS[name](**changes)
