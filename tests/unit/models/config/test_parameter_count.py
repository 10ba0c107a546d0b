"""Parameter counts: the papers' numbers, and the numbers of tensors that really exist (on the meta device)."""

import subprocess
import sys

import pytest
import torch

from aha.inference.decoding.cache import KeyValueCache
from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.config.dense import DenseConfig
from aha.models.config.parameter_count import describe
from aha.models.config.presets import V3_GATE, llama_tiny, preset, qwen2_tiny, qwen3_mini, qwen3_tiny, tiny, v2_lite, v3
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.dense import Dense

CONFIGS = {
    "tiny": tiny(),
    "two-modules": tiny(num_nextn_predict_layers=2, q_lora_rank=None, n_shared_experts=0, first_k_dense_replace=0),
    "all-dense": tiny(first_k_dense_replace=8),
    "v2-lite": v2_lite(),
    "v2-lite with v3's gate": v2_lite(**V3_GATE),
    "v3": v3(),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_counts_are_those_of_the_tensors(config: DeepseekV3Config) -> None:
    with torch.device("meta"):
        state = DeepseekV3(config).state_dict()
    counted = describe(config)
    of_modules = sum(tensor.numel() for name, tensor in state.items() if name.startswith("mtp."))
    assert counted.mtp_parameters == of_modules
    assert counted.total_parameters == sum(tensor.numel() for tensor in state.values()) - of_modules


def test_v3_numbers() -> None:
    counted = describe(v3())
    assert counted.total_parameters == 671_026_419_200
    assert round(counted.active_parameters / 1e9, 2) == 37.55
    assert round(counted.mtp_parameters / 1e9, 2) == 11.61
    assert counted.cache_bytes_per_token == 70_272
    assert round(counted.mha_cache_bytes_per_token / counted.cache_bytes_per_token, 1) == 56.9


def test_v2_lite_is_16b() -> None:
    counted = describe(preset("v2-lite"))
    assert counted.total_parameters == 15_706_484_224, "as the released weights"
    written = preset("v2-lite").to_hf_dict()
    released = {
        "model_type": "deepseek_v2", "topk_method": "greedy", "scoring_func": "softmax", "norm_topk_prob": False,
        "routed_scaling_factor": 1.0, "n_group": 1, "bos_token_id": 100000, "eos_token_id": 100001,
        "initializer_range": 0.02, "aux_loss_alpha": 0.001, "max_position_embeddings": 163840, "vocab_size": 102400,
    }  # fmt: skip
    assert {name: written[name] for name in released} == released


DENSE = {
    "qwen3": qwen3_tiny(),
    "tied": qwen3_mini(tie_word_embeddings=True, num_key_value_heads=1),
    "qwen2": qwen2_tiny(700),
    "llama": llama_tiny(head_dim=32),
}


@pytest.mark.parametrize("config", DENSE.values(), ids=DENSE.keys())
def test_dense_counts_are_those_of_the_tensors(config: DenseConfig) -> None:
    with torch.device("meta"):
        parameters = dict(Dense(config).named_parameters())
    counted = describe(config)
    assert counted.total_parameters == sum(parameter.numel() for parameter in parameters.values())
    outside = [parameter.numel() for name, parameter in parameters.items() if name.startswith(("embed", "lm_head"))]
    assert counted.embedding_parameters == sum(outside)
    assert (counted.active_parameters, counted.mtp_parameters) == (counted.total_parameters, 0)
    cache = KeyValueCache(config, 1, 1, device="meta", dtype=torch.bfloat16)
    assert counted.cache_bytes_per_token == cache.bytes_per_token


def test_the_small_dense_presets_have_their_sizes() -> None:
    inside = {
        name: counted.total_parameters - counted.embedding_parameters
        for name in ("qwen3-tiny", "qwen2-tiny", "llama-tiny", "qwen3-mini")
        for counted in [describe(preset(name))]
    }
    for name in ("qwen3-tiny", "qwen2-tiny", "llama-tiny"):
        assert inside[name] == pytest.approx(0.35e6, rel=0.02)
    assert 2 < inside["qwen3-mini"] / inside["qwen3-tiny"] < 3


def test_counting_needs_no_torch() -> None:
    modules = ", ".join(f"aha.models.config.{name}" for name in ("parameter_count", "load", "presets"))
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
