"""Dense models as modules: tied heads stay tied, decoders notice new weights, nothing is reported of routers."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aha.errors import CheckpointError
from aha.inference.runner import Runner
from aha.models.checkpoint.fp8 import dequantize
from aha.models.checkpoint.hf import HfTensors, load_config, load_pretrained, save_pretrained
from aha.models.config.presets import llama_tiny, qwen2_tiny, qwen3_tiny, tiny
from aha.models.dense import Dense
from aha.models.language_model import LanguageModel
from aha.models.layouts import Ragged, Rectangle
from aha.models.model_from_config import build
from aha.training.optimizer import Optimizer, OptimizerConfig

from ...foreign import quantize

torch.set_num_threads(1)

SMALL = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "head_dim": 8, "initializer_range": 0.1}


def small(tied: bool = True) -> Dense:
    torch.manual_seed(2)
    return Dense(qwen3_tiny(48, **SMALL, tie_word_embeddings=tied)).init_weights()


def is_tied(model: LanguageModel) -> bool:
    return model.lm_head.weight is model.embed_tokens.weight


def test_weights_are_drawn_as_configured() -> None:
    model = Dense(qwen2_tiny(48, **SMALL)).init_weights()
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            assert bool((parameter == 1).all())
        elif name.endswith("bias"):
            assert bool((parameter == 0).all())
        else:
            assert float(parameter.detach().std()) == pytest.approx(0.1, rel=0.15)


def test_a_tied_head_stays_tied(tmp_path: Path) -> None:
    model = small()
    assert is_tied(model)
    assert is_tied(copy.deepcopy(model))
    assert is_tied(model.to(torch.bfloat16).to(torch.float32))
    other = small()
    other.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, assign=True)
    assert is_tied(other)
    save_pretrained(model, tmp_path)
    assert is_tied(load_pretrained(tmp_path))
    assert "lm_head.weight" not in HfTensors(model)
    assert not is_tied(small(tied=False))


def test_a_tied_head_that_is_in_the_file_must_be_the_embedding(tmp_path: Path) -> None:
    save_pretrained(small(), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, file)
    assert is_tied(load_pretrained(tmp_path))
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] + 1}, file)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs.*set it to false"):
        load_pretrained(tmp_path)


def test_a_missing_bias_and_another_family_are_noticed(tmp_path: Path) -> None:
    save_pretrained(Dense(qwen2_tiny(48, **SMALL)).init_weights(), tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"model_type": "llama"}))
    with pytest.raises(CheckpointError, match=r"unexpected 6 tensors, such as .*k_proj\.bias"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(raw | {"model_type": "mamba"}))
    with pytest.raises(CheckpointError, match=r"must be one of deepseek_v3, .*qwen3, qwen2, llama; got 'mamba'"):
        load_config(tmp_path)


def test_fp8_weights_are_multiplied_out(tmp_path: Path) -> None:
    save_pretrained(small(), tmp_path)
    file, name = tmp_path / "model.safetensors", "model.layers.0.self_attn.k_proj.weight"
    tensors = load_file(file)
    quantized, scale = quantize(tensors[name])
    save_file(tensors | {name: quantized, name + "_scale_inv": scale}, file)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"quantization_config": {"quant_method": "fp8"}}))
    loaded = HfTensors(load_pretrained(tmp_path))[name]
    torch.testing.assert_close(loaded, dequantize(quantized, scale), atol=0, rtol=0)


@pytest.mark.parametrize("tied", [False, True])
def test_decoding_notices_new_weights(tied: bool) -> None:
    model = small(tied)
    runner = Runner(model)
    optimizer = Optimizer(model, OptimizerConfig(), 10)
    for change in ("none", "step", "load", "assign", "cast"):
        if change == "step":
            layout = Rectangle(1, 6)
            model.logits(model(torch.arange(6), layout).hidden_ND).logsumexp(-1).sum().backward()
            optimizer.step()
        elif change == "load":
            model.load_state_dict({name: tensor * 0.9 for name, tensor in model.state_dict().items()})
        elif change == "assign":
            model.load_state_dict({name: t * 1.1 for name, t in model.state_dict().items()}, assign=True)
        elif change == "cast":
            model.to(torch.bfloat16).to(torch.float32)
        cache = runner.new_cache(1, 8)
        runner.prefill([[1, 2]], cache, [0])
        found = runner.decode(torch.tensor([3]), cache)
        with torch.no_grad():
            expected = model.logits(model(torch.tensor([1, 2, 3]), Ragged([3])).hidden_ND)[-1:]
        torch.testing.assert_close(found.log_softmax(-1), expected.log_softmax(-1), atol=1e-5, rtol=0, msg=change)


@torch.inference_mode()
def test_bfloat16_models_decode_without_packing() -> None:
    model = Dense(llama_tiny(48, **SMALL)).init_weights().to(torch.bfloat16)
    runner = Runner(model)
    cache = runner.new_cache(2, 16)
    assert cache.entries.dtype == torch.bfloat16
    runner.prefill([[1, 2, 3], [4]], cache, [0, 1])
    logits = runner.decode(torch.tensor([5, 6]), cache)
    assert logits.dtype == torch.bfloat16
    assert bool(logits.isfinite().all())


def test_there_are_no_routers_and_no_prediction_modules() -> None:
    model, layout, ids = small(), Rectangle(2, 5), torch.arange(10)
    hidden = model.train()(ids, layout)
    assert hidden.router_counts.shape == (0, model.config.num_experts)
    assert hidden.balance_loss is None
    assert list(model.routers()) == []
    assert len(model.mtp) == 0
    assert model.mtp_hidden(hidden, ids, layout) == []


def test_a_configuration_gives_the_model_of_its_family() -> None:
    assert isinstance(build(qwen2_tiny(48, **SMALL)), Dense)
    assert type(build(tiny(48))).__name__ == "DeepseekV3"
