"""Latent attention's inputs are left as they are, and adapters before it get the right gradients."""

import pytest
import torch

from aha.models.config.presets import tiny
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.layouts import Ragged
from aha.models.lora import add_adapters
from aha.models.lora_linear import LoRAConfig, LoRALinear

torch.set_num_threads(1)


def test_whoever_holds_the_queries_keeps_them() -> None:
    model = DeepseekV3(tiny(64, num_hidden_layers=1)).init_weights(torch.Generator().manual_seed(0))
    held = []

    def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        held.append((output, inputs[0]))

    attention = model.layers[0].self_attn
    attention.q_b_proj.register_forward_hook(hook)
    model(torch.arange(6), Ragged([6]))
    ((found, read),) = held
    assert torch.equal(found, torch.nn.functional.linear(read, attention.q_b_proj.weight))


def test_adapters_with_dropout_on_the_queries_have_their_gradient() -> None:
    """Against differences, with the same drops at both points."""
    torch.manual_seed(0)
    model = DeepseekV3(tiny(64, num_hidden_layers=1, initializer_range=0.2, aux_loss_alpha=0.0)).init_weights()
    add_adapters(model, LoRAConfig(r=4, dropout=0.3, target_modules=("q_b_proj",)), seed=0)
    model.double().train()
    (layer,) = (module for module in model.modules() if isinstance(module, LoRALinear))
    matrix = layer.lora_B["q_b_proj"]
    direction = torch.randn_like(matrix)
    with torch.no_grad():
        matrix.normal_(0.0, 0.2)

    def loss() -> torch.Tensor:
        torch.manual_seed(1)
        return model(torch.arange(9), Ragged([4, 5])).hidden_ND.sin().sum()

    (gradient,) = torch.autograd.grad(loss(), [matrix])
    ends = []
    for step in (1e-4, -2e-4):
        with torch.no_grad():
            matrix.add_(direction, alpha=step)
        ends.append(loss().item())
    slope = (ends[0] - ends[1]) / 2e-4
    assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-4)
