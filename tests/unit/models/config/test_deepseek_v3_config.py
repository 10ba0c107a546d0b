"""Model configurations: bounds, spelling, Hugging Face files old and new."""

import pytest

from aha.errors import ConfigError, UnknownNameError
from aha.models.config.deepseek_v3 import DeepseekV3Config, RopeScaling
from aha.models.config.load import read_config
from aha.models.config.presets import PRESETS, preset, tiny


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_the_hugging_face_spelling(name: str) -> None:
    config = preset(name)
    assert read_config(config.to_hf_dict()) == config


def test_v3_preset_is_the_released_model() -> None:
    raw = preset("v3").to_hf_dict()
    released = {
        "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
        "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 1536,
        "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8, "topk_group":
        4, "routed_scaling_factor": 2.5, "norm_topk_prob": True, "scoring_func": "sigmoid", "topk_method":
        "noaux_tc", "first_k_dense_replace": 3, "moe_layer_freq": 1, "num_nextn_predict_layers": 1,
        "max_position_embeddings": 163840, "rope_theta": 10000, "rms_norm_eps": 1e-6, "tie_word_embeddings":
        False, "attention_bias": False,
    }  # fmt: skip
    assert {key: raw[key] for key in released} == released
    assert raw["rope_scaling"] == {
        "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
    }  # fmt: skip


def test_new_rope_parameters_are_read_like_the_old_keys() -> None:
    raw = tiny(
        max_position_embeddings=2048,
        rope_scaling=RopeScaling(factor=4, original_max_position_embeddings=512, mscale=1.0, mscale_all_dim=0.5),
    ).to_hf_dict()
    old = DeepseekV3Config.from_hf_dict(raw)
    scaling = raw.pop("rope_scaling")
    theta = raw.pop("rope_theta")
    new = DeepseekV3Config.from_hf_dict(raw | {"rope_parameters": scaling | {"rope_type": "yarn", "rope_theta": theta}})
    assert new == old
    plain = DeepseekV3Config.from_hf_dict(raw | {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}})
    assert plain.rope_scaling is None
    assert plain.rope_theta == 5000.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": -3}, ["hidden_size", "greater than 0", "-3"]),
        ({"qk_rope_head_dim": 7}, ["qk_rope_head_dim", "multiple of 2", "7"]),
        ({"hiden_size": 3}, ["hiden_size", "hidden_size"]),
        ({"n_group": 3}, ["n_group", "16", "3"]),
        ({"n_group": 16}, ["n_group", "2 experts", "16"]),
        ({"n_group": 4, "topk_group": 5}, ["topk_group", "4", "5"]),
        ({"n_group": 8, "topk_group": 1, "num_experts_per_tok": 3}, ["num_experts_per_tok", "2", "3"]),
        ({"eos_token_id": 512}, ["eos_token_id", "512"]),
        (
            {"rope_scaling": {"factor": 2, "original_max_position_embeddings": 100}, "max_position_embeddings": 201},
            ["max_position_embeddings", "200", "201"],
        ),
    ],
)
def test_a_bad_field_is_named_with_bound_and_value(changes: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny(**changes)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model_type": "llama"}, "model_type"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_interleave": False}, "rope_interleave"),
        ({"num_key_value_heads": 1}, "num_key_value_heads"),
        (
            {
                "rope_scaling": {
                    "type": "yarn",
                    "factor": 9,
                    "original_max_position_embeddings": 4096,
                    "attention_factor": 1.0,
                }
            },
            "attention_factor must be absent in a DeepSeek model",
        ),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling"),
    ],
)
def test_files_that_ask_for_another_computation_are_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        DeepseekV3Config.from_hf_dict(tiny().to_hf_dict() | changes)


def test_unknown_keys_of_a_file_are_mentioned() -> None:
    with pytest.warns(UserWarning, match="'kv_lora_rnk' is not known.*kv_lora_rank"):
        DeepseekV3Config.from_hf_dict(tiny().to_hf_dict() | {"kv_lora_rnk": 3})


def test_deepseek_v2_files_get_the_v2_gate() -> None:
    raw = preset("v2-lite").to_hf_dict() | {"model_type": "deepseek_v2"}
    for key in ("scoring_func", "topk_method", "num_nextn_predict_layers"):
        del raw[key]
    config = DeepseekV3Config.from_hf_dict(raw)
    assert (config.scoring_func, config.topk_method, config.num_nextn_predict_layers) == ("softmax", "greedy", 0)


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'v2-lite'"):
        preset("v2lite")
