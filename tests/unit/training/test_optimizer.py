"""The schedule of learning rates, and Muon."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from aha.models.config.dense import DenseConfig
from aha.models.config.presets import preset
from aha.models.model_from_config import build
from aha.models.reward_model import RewardModel
from aha.training.optimizer import Optimizer, OptimizerConfig, orthogonalize, schedule_factor


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize(("decay_from", "total"), [(0.0, 200), (0.5, 200), (0.5, 21), (0.999, 200)])
def test_the_last_step_has_the_final_rate(schedule: str, decay_from: float, total: int) -> None:
    config = OptimizerConfig(schedule=schedule, decay_from=decay_from, warmup_steps=5, final_lr=0.05)
    factors = [schedule_factor(config, step, total) for step in range(total)]
    assert factors[-1] == 0.05
    assert factors[4] == 1.0
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert factors.count(0.05) == 1


def test_a_rate_that_never_decays_stays_at_the_peak() -> None:
    never = OptimizerConfig(decay_from=1.0, warmup_steps=0)
    constant = OptimizerConfig(schedule="constant", warmup_steps=0)
    assert schedule_factor(never, 9, 10) == schedule_factor(constant, 9, 10) == 1.0


@pytest.mark.parametrize("shape", [(3, 5), (6, 4), (2, 3, 5), (2, 6, 4)])
def test_orthogonalizing_is_the_published_iteration(shape: tuple[int, ...]) -> None:
    """In float64 from the formula, each matrix of a stack alone; the singular values come near 1; the input stays."""
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    before = matrices.clone()
    found = orthogonalize(matrices)
    assert torch.equal(matrices, before)
    for one, matrix in zip(found.reshape(-1, *shape[-2:]), matrices.reshape(-1, *shape[-2:]).double(), strict=True):
        x = matrix / (matrix.norm() + 1e-7)
        for _ in range(5):
            outer = x @ x.T
            x = 3.4445 * x - 4.7750 * outer @ x + 2.0315 * outer @ outer @ x
        torch.testing.assert_close(one.double(), x, atol=1e-4, rtol=1e-4)
        values = torch.linalg.svdvals(x)
        assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def separate_muon(matrix: Tensor, gradient: Tensor, config: OptimizerConfig) -> Tensor:
    """Muon's first step on one matrix, or on a stack of them one by one."""
    if matrix.dim() == 3:
        return torch.stack([separate_muon(*pair, config) for pair in zip(matrix, gradient, strict=True)])
    momentum = (1 - config.momentum) * gradient
    update = orthogonalize(gradient.lerp(momentum, config.momentum))
    scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
    return matrix * (1 - config.muon_lr * config.weight_decay) - config.muon_lr * scale * update


MUON = OptimizerConfig(warmup_steps=0, schedule="constant", clip_norm=1e9)


def with_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Gives every parameter a gradient; a parameter's pieces get gradients of different sizes."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() >= 2:
            parameter.grad *= torch.linspace(0.1, 3.0, parameter.shape[-2])[:, None]
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "changes", "fused"),
    [
        (
            "tiny",
            {"q_lora_rank": 24},
            {
                "layers.1.self_attn.qkv_a_proj.weight": (24, "kv_lora_rank", "qk_rope_head_dim"),
                "layers.0.mlp.gate_up_proj.weight": ("intermediate_size", "intermediate_size"),
                "layers.1.mlp.experts.gate_up_proj": ("moe_intermediate_size", "moe_intermediate_size"),
                "mtp.0.layer.mlp.experts.gate_up_proj": ("moe_intermediate_size", "moe_intermediate_size"),
            },
        ),
        ("qwen3-tiny", {}, {"layers.0.self_attn.qkv_proj.weight": (), "layers.0.mlp.gate_up_proj.weight": ()}),
    ],
)
def test_muon_takes_each_of_fused_matrices_on_its_own(
    name: str, changes: dict[str, int], fused: dict[str, tuple[int | str, ...]]
) -> None:
    config = preset(name, vocab_size=300, **changes)
    model = build(config).init_weights(torch.Generator().manual_seed(1))
    before = with_gradients(model)
    gradients = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    Optimizer(model, MUON, 10).step()
    after = dict(model.named_parameters())
    for parameter, pieces in fused.items():
        rows = [piece if isinstance(piece, int) else getattr(config, piece) for piece in pieces]
        if isinstance(config, DenseConfig):
            heads = config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads
            rows = [h * config.head_dim for h in heads] if "qkv" in parameter else [config.intermediate_size] * 2
        assert sum(rows) == before[parameter].shape[-2]
        parts = zip(before[parameter].split(rows, -2), gradients[parameter].split(rows, -2), strict=True)
        expected = torch.cat([separate_muon(*part, MUON) for part in parts], dim=-2)
        torch.testing.assert_close(after[parameter].detach(), expected, rtol=1e-5, atol=1e-6)
        as_one = separate_muon(before[parameter], gradients[parameter], MUON)
        assert not torch.allclose(after[parameter].detach(), as_one, rtol=1e-3, atol=1e-4)


def test_every_fused_matrix_of_a_checkpoint_is_declared() -> None:
    """What a checkpoint has under several names is several matrices to Muon."""
    for name in ("tiny", "qwen3-tiny"):
        model = build(preset(name, vocab_size=300))
        declared = {
            f"{prefix}.{parameter}": rows
            for prefix, module in model.named_modules()
            for parameter, rows in getattr(module, "fused_rows", {}).items()
        }
        parameters = dict(model.named_parameters())
        assert all(sum(rows) == parameters[parameter].shape[-2] for parameter, rows in declared.items())
        fused = {name for name in parameters if any(part in name for part in ("gate_up", "qkv")) and "bias" not in name}
        assert declared.keys() == fused


def test_a_reward_models_score_is_left_to_adamw() -> None:
    model = RewardModel(build(preset("tiny", vocab_size=300)).init_weights(torch.Generator().manual_seed(1)))
    with_gradients(model)
    optimizer = Optimizer(model, MUON, 10)
    optimizer.step()
    state = optimizer.state()
    assert "exp_avg.score.weight" in state and "momentum.score.weight" not in state
    assert "momentum.backbone.layers.0.mlp.gate_up_proj.weight" in state
