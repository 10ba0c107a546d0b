"""Configurations of dense models: bounds, both spellings of rotary settings, what is refused."""

import math

import pytest
import torch

from aha.errors import CheckpointError, ConfigError
from aha.models.config.base import Llama3Scaling, RopeScaling
from aha.models.config.dense import DenseConfig
from aha.models.config.load import read_config
from aha.models.config.presets import llama_tiny, qwen2_tiny, qwen3_mini, qwen3_tiny
from aha.models.rope import inverse_frequencies

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def qwen3_8b(**changes: object) -> dict[str, object]:
    """The keys of a released Qwen3 file, as the model's page has it."""
    return {
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 12288, "max_position_embeddings": 40960,
        "max_window_layers": 36, "model_type": "qwen3", "num_attention_heads": 32, "num_hidden_layers": 36,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000,
        "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False, "vocab_size": 151936,
        **changes,
    }  # fmt: skip


def test_a_released_file_is_read() -> None:
    config = read_config(qwen3_8b())
    assert isinstance(config, DenseConfig)
    assert (config.head_dim, config.num_key_value_heads, config.rope_theta) == (128, 8, 1e6)
    assert (config.qk_norm, config.qkv_bias, config.rope_scaling) == (True, False, None)


@pytest.mark.parametrize("scaling", [{"type": "yarn", "factor": 4.0}, {"rope_type": "llama3", **LLAMA3}])
def test_new_rope_parameters_are_read_like_the_old_keys(scaling: dict[str, object]) -> None:
    old = DenseConfig.from_hf_dict(qwen3_8b(rope_scaling=scaling))
    raw = qwen3_8b(rope_parameters={**scaling, "rope_theta": 1000000})
    del raw["rope_scaling"], raw["rope_theta"]
    assert DenseConfig.from_hf_dict(raw) == old
    if "type" in scaling:  # without a length of its own, the model's: as transformers does
        assert old.rope_scaling == RopeScaling(factor=4.0, original_max_position_embeddings=40960)
    else:
        assert old.rope_scaling == Llama3Scaling(**LLAMA3)
    assert DenseConfig.from_hf_dict(old.to_hf_dict()) == old
    assert old.to_hf_dict()["rope_scaling"]["rope_type"] == scaling.get("rope_type", "yarn")


def test_yarns_factor_on_cos_and_sin_is_kept() -> None:
    """With the key that DeepSeek-R1-0528-Qwen3-8B has, and transformers ignores, beside it."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "attn_factor": 0.878}
    with pytest.warns(UserWarning, match="'attn_factor' has no effect, here as in transformers"):
        config = DenseConfig.from_hf_dict(qwen3_8b(rope_scaling=yarn | {"attention_factor": 1.0}))
    assert config.rope_scaling == RopeScaling(factor=4.0, original_max_position_embeddings=32768, attention_factor=1.0)
    assert config.to_hf_dict()["rope_scaling"]["attention_factor"] == 1.0
    assert DenseConfig.from_hf_dict(config.to_hf_dict()) == config


def test_heads_that_a_file_leaves_out_are_those_of_transformers() -> None:
    raw = qwen3_8b()
    for key in ("head_dim", "num_key_value_heads"):
        del raw[key]
    assert DenseConfig.from_hf_dict(raw).head_dim == 128
    llama = DenseConfig.from_hf_dict(raw | {"model_type": "llama", "hidden_size": 2048, "head_dim": None})
    assert (llama.head_dim, llama.num_key_value_heads) == (64, 32)


def test_every_end_of_sequence_token_is_kept() -> None:
    config = DenseConfig.from_hf_dict(qwen3_8b(eos_token_id=[5, 6, 7], bos_token_id=None))
    assert (config.eos_token_id, config.bos_token_id) == ((5, 6, 7), None)
    assert config.to_hf_dict()["eos_token_id"] == [5, 6, 7]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_sliding_window": True, "sliding_window": 4096}, ["use_sliding_window = true", "full attention"]),
        ({"layer_types": ["full_attention", "sliding_attention"]}, ["'sliding_attention'", "full attention"]),
        ({"attention_bias": True}, ["attention_bias", "False", "True"]),
        ({"mlp_bias": True}, ["mlp_bias"]),
        ({"hidden_act": "gelu"}, ["hidden_act", "silu", "gelu"]),
        ({"quantization_config": {"quant_method": "awq"}}, ["quantization_config"]),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2}}, ["rope_scaling", "linear", "yarn", "llama3"]),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "attention_factor": -1.0}}, ["attention_factor", "-1.0"]),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "atention_factor": 1.0}}, ["atention_factor"]),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "truncate": False}}, ["truncate must be true"]),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "mscale": 1.0}}, ["mscale", "DeepSeek"]),
        ({"rope_scaling": {"type": "llama3", **LLAMA3, "low_freq_factor": 5}}, ["low_freq_factor", "4.0", "5"]),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, ["partial_rotary_factor", "0.5"]),
        ({"vocab_size": None}, ["vocab_size is missing"]),
        ({"head_dim": 7}, ["head_dim", "multiple of 2", "7"]),
        ({"num_key_value_heads": 5}, ["num_key_value_heads", "32", "5"]),
        ({"eos_token_id": [3, 151936]}, ["eos_token_id", "151936"]),
        ({"model_type": "qwen2", "head_dim": 64}, ["head_dim", "128", "64"]),
        ({"model_type": "llama", "hidden_size": 4097}, ["hidden_size", "32", "4097"]),
    ],
)
def test_what_we_do_not_compute_is_refused_in_one_line(changes: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        DenseConfig.from_hf_dict(qwen3_8b(**changes))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_windows_that_are_off_do_no_harm() -> None:
    raw = qwen3_8b(model_type="qwen2", sliding_window=131072, max_window_layers=28, attention_bias=True)
    assert DenseConfig.from_hf_dict(raw | {"layer_types": ["full_attention"] * 36}).qkv_bias


def test_unknown_keys_and_fields_name_the_nearest() -> None:
    with pytest.warns(UserWarning, match="'hiden_size' is not known.*hidden_size"):
        DenseConfig.from_hf_dict(qwen3_8b(hiden_size=3))
    with pytest.raises(ConfigError, match=r"unknown field 'hed_dim'.*head_dim"):
        qwen3_tiny(hed_dim=3)


def test_another_family_is_refused_with_the_supported_ones() -> None:
    with pytest.raises(CheckpointError, match="deepseek_v3, deepseek_v2, qwen3, qwen2, llama; got 'gpt2'"):
        read_config({"model_type": "gpt2"})
    with pytest.raises(CheckpointError, match="got None"):
        read_config({})


def test_llama3_scaling_keeps_fast_frequencies_and_divides_slow_ones() -> None:
    scaled = inverse_frequencies(llama_tiny(head_dim=128, rope_theta=5e5, rope_scaling={"type": "llama3", **LLAMA3}))
    plain = inverse_frequencies(llama_tiny(head_dim=128, rope_theta=5e5))
    rotations = plain * 8192 / (2 * math.pi)
    torch.testing.assert_close(scaled[rotations > 4], plain[rotations > 4])
    torch.testing.assert_close(scaled[rotations < 1], plain[rotations < 1] / 8)
    between = (rotations > 1) & (rotations < 4)
    assert between.any()
    assert bool((scaled[between] < plain[between]).all() and (scaled[between] > plain[between] / 8).all())


@pytest.mark.parametrize("make", [qwen3_tiny, qwen3_mini, qwen2_tiny, llama_tiny])
def test_presets_take_a_vocabulary_and_changes(make: object) -> None:
    config = make(640, num_hidden_layers=1)  # type: ignore[operator]
    assert (config.vocab_size, config.num_hidden_layers, config.max_position_embeddings) == (640, 1, 1024)
    assert not config.tie_word_embeddings
