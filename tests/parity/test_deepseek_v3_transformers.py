"""The same files give the same logits and gradients here and in transformers, in both directions.

Latent attention and experts (V3 Eqs. 1-16) against an implementation that is not ours.
"""

import filecmp
import json
from pathlib import Path

import pytest
import torch
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, DeepseekV3ForCausalLM
from transformers import DeepseekV3Config as TheirConfig

from aha.models.checkpoint.hf import load_config, load_pretrained, save_pretrained
from aha.models.checkpoint.names import pieces
from aha.models.config.deepseek_v3 import DeepseekV3Config, RopeScaling
from aha.models.config.presets import tiny
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.layouts import Ragged, Rectangle

torch.set_num_threads(1)

VARIANTS = {
    "groups-yarn": {},
    "no-q-latent": {"q_lora_rank": None},
    "odd-sizes": {
        "hidden_size": 52,
        "v_head_dim": 10,
        "qk_nope_head_dim": 7,
        "qk_rope_head_dim": 6,
        "kv_lora_rank": 15,
    },
    "wide-values": {"v_head_dim": 40, "n_shared_experts": 2, "num_experts_per_tok": 3, "norm_topk_prob": False},
    "all-dense": {"first_k_dense_replace": 9},
    "one-expert": {"num_experts_per_tok": 1},
    "mscale": {
        "rope_scaling": RopeScaling(factor=8, original_max_position_embeddings=64, mscale=0.707, mscale_all_dim=0.9),
        "max_position_embeddings": 512,
    },
    "no-yarn-all-moe": {"rope_scaling": None, "first_k_dense_replace": 0, "n_group": 1, "topk_group": 1},
}


def build(variant: str = "groups-yarn", **more: object) -> DeepseekV3:
    """A tiny random model with YaRN, expert groups and biases that make many scores negative."""
    changes: dict[str, object] = {
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "intermediate_size": 80,
        "moe_intermediate_size": 24,
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 2.5,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 2560,
        "rope_scaling": RopeScaling(factor=40, original_max_position_embeddings=64, mscale=1.0, mscale_all_dim=1.0),
        "initializer_range": 0.08,
    }
    torch.manual_seed(7)
    model = DeepseekV3(tiny(96, **(changes | VARIANTS[variant] | more))).init_weights().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
        for router in model.routers():
            assert router.e_score_correction_bias is not None
            router.e_score_correction_bias.normal_(-0.5, 0.3)
    return model


def theirs_from(folder: Path) -> DeepseekV3ForCausalLM:
    """Loads with transformers; no key may be missing or left over."""
    model, report = DeepseekV3ForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", experts_implementation="eager"
    )
    assert not any(report.values()), report
    return model.eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_our_checkpoint_gives_their_logits(variant: str, tmp_path: Path) -> None:
    ours = build(variant)
    save_pretrained(ours, tmp_path / "ours")
    theirs = theirs_from(tmp_path / "ours")
    ids = torch.randint(0, 96, (2, 83))
    with torch.no_grad():
        expected = theirs(ids, use_cache=False).logits
        logits = ours.logits(ours(ids.flatten(), Rectangle(2, 83)).hidden_ND).view_as(expected)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_ragged_sequences_give_their_logits_one_by_one(tmp_path: Path) -> None:
    ours = build()
    save_pretrained(ours, tmp_path / "ours")
    theirs = theirs_from(tmp_path / "ours")
    lengths = [5, 1, 31, 31, 12]
    ids = torch.randint(0, 96, (sum(lengths),))
    with torch.no_grad():
        logits = ours.logits(ours(ids, Ragged(lengths)).hidden_ND).split(lengths)
        for sequence, found in zip(ids.split(lengths), logits, strict=True):
            torch.testing.assert_close(found, theirs(sequence[None]).logits[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["groups-yarn", "no-q-latent", "odd-sizes", "wide-values"])
def test_gradients_are_theirs(variant: str, tmp_path: Path) -> None:
    ours = build(variant, aux_loss_alpha=0.0)
    save_pretrained(ours, tmp_path / "ours")
    theirs = theirs_from(tmp_path / "ours")
    ids = torch.randint(0, 96, (3, 40))
    targets = torch.randint(0, 96, (120,))
    torch.nn.functional.cross_entropy(theirs(ids).logits.flatten(0, 1), targets).backward()
    logits = ours.logits(ours(ids.flatten(), Rectangle(3, 40)).hidden_ND)
    torch.nn.functional.cross_entropy(logits, targets).backward()
    own = {name: parameter.grad for name, parameter in ours.named_parameters()}
    compared = 0
    for piece in pieces(ours.config):
        if piece.is_mtp or piece.hf_name.endswith("bias"):
            continue
        expected, found = their_gradient(theirs, piece.hf_name), piece.of(own[piece.own_name])
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4, msg=lambda m, p=piece: f"{p.hf_name}: {m}")
        compared += found.numel()
    assert compared == sum(parameter.numel() for parameter in theirs.parameters())


def their_gradient(model: DeepseekV3ForCausalLM, name: str) -> torch.Tensor:
    """Their gradient under a checkpoint name; transformers 5 fuses experts in memory."""
    prefix, _, rest = name.partition(".experts.")
    if not rest or "shared_experts" in name:
        return model.get_parameter(name).grad
    expert, matrix, _ = rest.split(".")
    fused = "down_proj" if matrix == "down_proj" else "gate_up_proj"
    gradient = model.get_parameter(f"{prefix}.experts.{fused}").grad[int(expert)]
    if matrix == "down_proj":
        return gradient
    gate, up = gradient.chunk(2)
    return gate if matrix == "gate_proj" else up


@pytest.mark.parametrize("rope", [None, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}])
def test_their_checkpoint_gives_our_logits(rope: dict[str, object] | None, tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = TheirConfig(
        vocab_size=70, hidden_size=48, intermediate_size=60, moe_intermediate_size=20, num_hidden_layers=3,
        num_attention_heads=3, num_key_value_heads=3, n_routed_experts=8, n_group=2, topk_group=1,
        num_experts_per_tok=3, kv_lora_rank=20, q_lora_rank=28, qk_rope_head_dim=8, qk_nope_head_dim=12, v_head_dim=16,
        first_k_dense_replace=1, max_position_embeddings=256, initializer_range=0.1, num_mtp_layers=0,
        rope_parameters=None if rope is None else rope | {"rope_theta": 5000.0},
    )  # fmt: skip
    theirs = DeepseekV3ForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_pretrained(tmp_path).eval()
    ids = torch.randint(0, 70, (2, 50))
    with torch.no_grad():
        expected = theirs(ids).logits
        logits = ours.logits(ours(ids.flatten(), Rectangle(2, 50)).hidden_ND).view_as(expected)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "gate", [{"topk_method": "greedy"}, {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2}]
)
def test_deepseek_v2_checkpoints_go_both_ways(gate: dict[str, object], tmp_path: Path) -> None:
    """Softmax scores, no biases, no normalised gates: the files of DeepSeek-V2 and V2-Lite."""
    torch.manual_seed(3)
    config = DeepseekV2Config(
        vocab_size=70, hidden_size=48, intermediate_size=60, moe_intermediate_size=20, num_hidden_layers=3,
        num_attention_heads=3, n_routed_experts=8, num_experts_per_tok=3, kv_lora_rank=20,
        q_lora_rank=None, qk_rope_head_dim=8, qk_nope_head_dim=12, v_head_dim=16, first_k_dense_replace=1,
        max_position_embeddings=256, initializer_range=0.1, routed_scaling_factor=4.0,
        rope_parameters={
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 10000.0,
            "mscale": 0.707, "mscale_all_dim": 0.707,
        },
        **gate,
    )  # fmt: skip
    theirs = DeepseekV2ForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_pretrained(tmp_path / "theirs").eval()
    save_pretrained(ours, tmp_path / "ours")
    again, report = DeepseekV2ForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    ids = torch.randint(0, 70, (2, 50))
    with torch.no_grad():
        expected = theirs(ids).logits
        logits = ours.logits(ours(ids.flatten(), Rectangle(2, 50)).hidden_ND).view_as(expected)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(again.eval()(ids).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shard_bytes", [10**9, 60_000])
def test_round_trip_is_byte_for_byte(variant: str, shard_bytes: int, tmp_path: Path) -> None:
    save_pretrained(build(variant), tmp_path / "a", max_shard_bytes=shard_bytes)
    save_pretrained(load_pretrained(tmp_path / "a"), tmp_path / "b", max_shard_bytes=shard_bytes)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir())
    same, different, failed = filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)
    assert (different, failed) == ([], [])
    assert ("model.safetensors.index.json" in same) == (shard_bytes < 10**6)


def test_their_save_of_our_checkpoint_loads_again(tmp_path: Path) -> None:
    ours = build()
    save_pretrained(ours, tmp_path / "ours")
    theirs_from(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    again = load_pretrained(tmp_path / "theirs")
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(tensor, ours.state_dict()[name], atol=0, rtol=0)


def test_bfloat16_checkpoints_keep_biases_in_float32(tmp_path: Path) -> None:
    ours = build()
    save_pretrained(ours, tmp_path, dtype=torch.bfloat16)
    theirs = theirs_from(tmp_path)
    assert theirs.model.layers[1].mlp.gate.e_score_correction_bias.dtype == torch.float32
    again = load_pretrained(tmp_path, dtype=torch.bfloat16)
    assert again.embed_tokens.weight.dtype == torch.bfloat16
    for router, original in zip(again.routers(), ours.routers(), strict=True):
        torch.testing.assert_close(router.e_score_correction_bias, original.e_score_correction_bias, atol=0, rtol=0)


def test_prediction_modules_come_back_from_their_own_file(tmp_path: Path) -> None:
    ours = build(num_nextn_predict_layers=2)
    save_pretrained(ours, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["num_nextn_predict_layers"] == 0
    assert load_config(tmp_path) == ours.config
    again, layout, ids = load_pretrained(tmp_path), Rectangle(2, 9), torch.randint(0, 96, (18,))
    expected = ours.mtp_hidden(ours(ids, layout), ids, layout)
    found = again.mtp_hidden(again(ids, layout), ids, layout)
    assert len(expected) == 2
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a.hidden_ND, b.hidden_ND, atol=0, rtol=0)
    (tmp_path / "mtp.safetensors").unlink()
    assert load_pretrained(tmp_path).config.num_nextn_predict_layers == 0


def test_at_61_layers_prediction_modules_are_inside(tmp_path: Path) -> None:
    """There transformers ignores them, so the released layout works, with its copies of head and embedding."""
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "moe_intermediate_size": 8,
        "kv_lora_rank": 8,
        "q_lora_rank": 8,
    }
    ours = build(num_hidden_layers=61, first_k_dense_replace=59, n_routed_experts=8, **small)
    save_pretrained(ours, tmp_path)
    assert not (tmp_path / "mtp.safetensors").exists()
    assert json.loads((tmp_path / "config.json").read_text())["num_nextn_predict_layers"] == 1
    theirs_from(tmp_path)
    again = load_pretrained(tmp_path)
    assert again.config == ours.config
    torch.testing.assert_close(again.mtp[0].eh_proj.weight, ours.mtp[0].eh_proj.weight, atol=0, rtol=0)


def test_config_json_has_the_keys_that_vllm_wants(tmp_path: Path) -> None:
    save_pretrained(build(), tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["topk_method"] == "noaux_tc"
    assert raw["scoring_func"] == "sigmoid"
    assert raw["architectures"] == ["DeepseekV3ForCausalLM"]
    assert "attention_factor" not in raw["rope_scaling"]
    yarn = raw["rope_scaling"]
    assert raw["max_position_embeddings"] == yarn["factor"] * yarn["original_max_position_embeddings"]
    assert isinstance(load_config(tmp_path), DeepseekV3Config)
