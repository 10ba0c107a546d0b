"""Adapters written here give the same numbers in peft, those written by peft the same here, merged or beside."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from aha.errors import CheckpointError, UnknownNameError
from aha.inference.decoding.dense import DenseDecoder
from aha.inference.decoding.latent import AbsorbedDecoder
from aha.inference.engine import Engine
from aha.inference.runner import Runner
from aha.models.checkpoint.adapter import load_adapter, save_adapter
from aha.models.checkpoint.hf import load_pretrained, save_pretrained
from aha.models.config.presets import preset
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.language_model import LanguageModel
from aha.models.layouts import Ragged, Rectangle
from aha.models.lora import adapters_off, add_adapters
from aha.models.lora_linear import LoRAConfig, LoRALinear
from aha.models.model_from_config import build
from aha.types import Request, SamplingParams

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peft = pytest.importorskip("peft", reason="peft is not installed: install the extra bench")

torch.set_num_threads(1)

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's, of transformers

V3 = {"hidden_size": 36, "intermediate_size": 44, "moe_intermediate_size": 20, "num_hidden_layers": 3}
V3 |= {"n_routed_experts": 4, "num_nextn_predict_layers": 0, "aux_loss_alpha": 0.0}
SIZES: dict[str, dict[str, object]] = {
    "qwen3-tiny": {"hidden_size": 33, "num_attention_heads": 5, "num_key_value_heads": 1, "tie_word_embeddings": True},
    "qwen2-tiny": {"hidden_size": 60, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 10},
    "llama-tiny": {"hidden_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 18},
    "tiny": V3,
}
SOME = {
    "qwen3-tiny": (),
    "qwen2-tiny": ("q_proj", "v_proj", "up_proj"),
    "llama-tiny": ("k_proj", "o_proj", "down_proj"),
    "tiny": ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"),
}
EVERY_FAMILY = pytest.mark.parametrize("family", SIZES)
IDS = torch.arange(2 * 21).view(2, 21) * 7 % 96


def base(family: str, folder: Path) -> LanguageModel:
    torch.manual_seed(5)
    save_pretrained(build(preset(family, vocab_size=96, initializer_range=0.1, **SIZES[family])).init_weights(), folder)
    return load_pretrained(folder).eval()


def adapted(family: str, folder: Path, **settings: object) -> LanguageModel:
    """A base with adapters whose matrices all matter."""
    config = LoRAConfig(r=3, alpha=7.5, target_modules=SOME[family], **settings)
    model = add_adapters(base(family, folder), config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1, generator=generator)
    return model


@torch.no_grad()
def logits(model: LanguageModel) -> torch.Tensor:
    return model.logits(model(IDS.flatten(), Rectangle(*IDS.shape)).hidden_ND).view(*IDS.shape, -1)


@torch.no_grad()
def their_logits(folder: Path, adapter: Path) -> torch.Tensor:
    theirs = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    return peft.PeftModel.from_pretrained(theirs, adapter).eval()(IDS, use_cache=False).logits


@EVERY_FAMILY
@pytest.mark.parametrize("rslora", [False, True])
def test_peft_reads_what_is_written_here(family: str, rslora: bool, tmp_path: Path) -> None:
    model = adapted(family, tmp_path / "base", rslora=rslora)
    save_adapter(model, tmp_path / "adapter")
    found = logits(model)
    torch.testing.assert_close(found, their_logits(tmp_path / "base", tmp_path / "adapter"), atol=1e-5, rtol=1e-5)
    again = load_adapter(load_pretrained(tmp_path / "base").eval(), tmp_path / "adapter")
    torch.testing.assert_close(logits(again), found, atol=0, rtol=0)
    with adapters_off(model) as bare:
        assert float((logits(bare) - found).abs().max()) > 0.01
        torch.testing.assert_close(logits(bare), logits(load_pretrained(tmp_path / "base").eval()), atol=1e-5, rtol=0)
    torch.testing.assert_close(logits(model), found, atol=0, rtol=0)


@EVERY_FAMILY
def test_what_peft_writes_is_read_here(family: str, tmp_path: Path) -> None:
    base(family, tmp_path / "base")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "base", attn_implementation="eager", dtype=torch.float32)
    modules = list(SOME[family]) or ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=modules, task_type="CAUSAL_LM", init_lora_weights=False)
    torch.manual_seed(9)
    wrapped = peft.get_peft_model(theirs, config).eval()
    with torch.no_grad():
        expected = wrapped(IDS, use_cache=False).logits
    wrapped.save_pretrained(tmp_path / "adapter")
    ours = load_adapter(load_pretrained(tmp_path / "base").eval(), tmp_path / "adapter")
    torch.testing.assert_close(logits(ours), expected, atol=1e-5, rtol=1e-5)


@EVERY_FAMILY
def test_an_export_is_the_merged_model(family: str, tmp_path: Path) -> None:
    model = adapted(family, tmp_path / "base")
    save_pretrained(model, tmp_path / "merged")
    merged = load_pretrained(tmp_path / "merged").eval()
    assert not any(isinstance(module, LoRALinear) for module in merged.modules())
    torch.testing.assert_close(logits(merged), logits(model), atol=1e-5, rtol=1e-5)


@EVERY_FAMILY
def test_only_adapters_get_gradients_and_they_are_pefts(family: str, tmp_path: Path) -> None:
    model = adapted(family, tmp_path / "base")
    save_adapter(model, tmp_path / "adapter")
    targets = IDS.flatten().roll(-1)
    out = model.logits(model(IDS.flatten(), Rectangle(*IDS.shape)).hidden_ND)
    torch.nn.functional.cross_entropy(out, targets).backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {
        n for n, _ in model.named_parameters() if "lora_" in n
    }
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "base", attn_implementation="eager", dtype=torch.float32)
    wrapped = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter", is_trainable=True)
    torch.nn.functional.cross_entropy(wrapped(IDS).logits.flatten(0, 1), targets).backward()
    compared = 0
    for layer in model.modules():
        for block in layer.blocks if isinstance(layer, LoRALinear) else ():
            for kind, own in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B)):
                if block.leaf in own:
                    expected = wrapped.get_parameter(f"base_model.model.{block.hf_name}.{kind}.default.weight").grad
                    torch.testing.assert_close(own[block.leaf].grad, expected, atol=1e-6, rtol=1e-4)
                    compared += 1
    assert compared == sum(parameter.requires_grad for parameter in wrapped.parameters())


@EVERY_FAMILY
@pytest.mark.parametrize("packed", [True, False])
def test_the_engine_samples_from_the_adapted_model(family: str, packed: bool, tmp_path: Path) -> None:
    """And from the new adapters once they have changed."""
    model = adapted(family, tmp_path / "base")
    engine = Engine(model, max_rows=4, max_context=32)
    if not packed:
        decoder = AbsorbedDecoder(model) if isinstance(model, DeepseekV3) else DenseDecoder(model)
        engine.runner = Runner(model, lambda: decoder)
    for version in range(2):
        request = Request((3, 5, 8), SamplingParams(n=4, seed=version, max_completion_tokens=10), f"r{version}")
        (samples,) = engine.generate([request])
        for sample in samples:
            ids = torch.tensor([*request.prompt_token_ids, *sample.token_ids])
            with torch.no_grad():
                scores = model.logits(model(ids, Ragged([len(ids)])).hidden_ND)[2:-1].log_softmax(-1)
            assert scores.gather(1, ids[3:, None])[:, 0].tolist() == pytest.approx(sample.logprobs, abs=1e-5)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(-2.0)
        engine.load_weights(model.state_dict(), version + 1)


def test_unknown_layers_and_odd_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'q_proj'"):
        add_adapters(base("llama-tiny", tmp_path / "base"), LoRAConfig(target_modules=("q_prj",)), seed=0)
    save_adapter(adapted("llama-tiny", tmp_path / "base"), tmp_path / "a")

    def refusal() -> str:
        with pytest.raises(CheckpointError) as caught:
            load_adapter(load_pretrained(tmp_path / "base"), tmp_path / "a")
        return str(caught.value)

    settings = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    for key, value in {"use_dora": True, "bias": "all", "peft_type": "IA3", "rank_pattern": {"q_proj": 2}}.items():
        (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(settings | {key: value}))
        assert key in refusal()
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(settings | {"r": 5}))
    assert "another r" in refusal()
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(settings))
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    save_file(dict(list(tensors.items())[1:]), tmp_path / "a" / "adapter_model.safetensors")
    assert "lacks 1 tensors" in refusal()
    (tmp_path / "a" / "adapter_model.safetensors").rename(tmp_path / "a" / "adapter_model.bin")
    assert "missing or damaged" in refusal()
