"""The estimate of a stage's memory against what a forward pass keeps and an optimizer holds."""

import subprocess
import sys

import pytest
import torch

from aha.models.config.base import ModelConfig
from aha.models.config.memory_estimate import MICRO_TOKENS, adapter_parameters, layer_activations, stage_memory
from aha.models.config.presets import preset, qwen3_mini, tiny
from aha.models.language_model import LanguageModel
from aha.models.layouts import Ragged
from aha.models.lora import add_adapters
from aha.models.lora_linear import LoRAConfig
from aha.models.model_from_config import build
from aha.training.optimizer import Optimizer, OptimizerConfig

torch.set_num_threads(1)

MODELS = {
    "qwen3": qwen3_mini(),
    "qwen3-wide": qwen3_mini(intermediate_size=1000, num_hidden_layers=6),
    "qwen2": preset("qwen2-tiny"),
    "llama": preset("llama-tiny", num_key_value_heads=1),
    "deepseek": tiny(num_nextn_predict_layers=0),
    "deepseek-wide": tiny(num_nextn_predict_layers=0, hidden_size=256, q_lora_rank=None, num_experts_per_tok=4),
}
EVERY_MODEL = pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())


def kept(model: LanguageModel, tokens: int) -> int:
    """Bytes that a forward pass keeps for the backward pass, weights apart."""
    storages: dict[int, torch.Tensor] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.randint(0, 500, (tokens,)), Ragged([tokens // 4] * 4))
    return sum(tensor.untyped_storage().nbytes() for address, tensor in storages.items() if address not in weights)


@EVERY_MODEL
def test_activations_are_within_a_quarter_of_what_is_kept(config: ModelConfig) -> None:
    measured = kept(build(config).init_weights(), 512) / (4 * 512)
    assert sum(layer_activations(config)) == pytest.approx(measured, rel=0.25)


@EVERY_MODEL
def test_weights_and_optimizer_are_exact(config: ModelConfig) -> None:
    model = build(config).init_weights()
    optimizer = Optimizer(model, OptimizerConfig(muon_lr=0.0), 1)
    held = sum(tensor.nbytes for name, tensor in optimizer.state().items() if not name.startswith("step."))
    held += 2 * sum(parameter.nbytes for parameter in model.parameters())
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    assert 0 <= stage_memory(config, False, False)[0].model - held <= 4 * buffers
    add_adapters(model, LoRAConfig(r=5), seed=0)
    assert adapter_parameters(config, 5) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_what_saves_memory_saves_it() -> None:
    plain, again = (stage_memory(preset("qwen3-mini"), False, checkpointing) for checkpointing in (False, True))
    assert all(b.activations < 0.5 * a.activations for a, b in zip(plain[:4], again[:4], strict=True))
    full, lora, _, _, serving = stage_memory(preset("v3"), True, True)
    assert lora.model < 0.15 * full.model
    assert serving.total < lora.total
    assert full.activations > 61 * 7168 * 2 * MICRO_TOKENS


def test_it_needs_no_torch() -> None:
    code = "import sys, aha.recipes.describe as d; d.describe_model('v3'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
