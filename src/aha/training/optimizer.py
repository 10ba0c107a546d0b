"""Muon for matrices, AdamW for the rest, as one optimizer whose whole state is named tensors.

V3 4.2 trains with AdamW (beta 0.9/0.95, weight decay 0.1, clip 1.0). At laptop scale Muon on the matrices is clearly
ahead at equal steps, so it is the default for pretraining there; `muon_lr = 0` leaves everything to AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from aha.configuration import Config
from aha.models.language_model import LanguageModel


class OptimizerConfig(Config):
    """Learning rates and their schedule."""

    adam_lr: float = Field(3e-3, gt=0, description="peak learning rate of AdamW")
    muon_lr: float = Field(0.02, ge=0, description="peak learning rate of Muon on matrices; 0 trains them with AdamW")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW first-moment decay (V3 4.2: 0.9)")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW second-moment decay (V3 4.2: 0.95)")
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's momentum (Nesterov)")
    weight_decay: float = Field(0.1, ge=0, description="decoupled weight decay on matrices (V3 4.2: 0.1)")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the whole gradient (V3 4.2: 1.0)")
    warmup_steps: int = Field(20, ge=0, description="steps of linear warm-up from 0")
    schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="decay after `decay_from`")
    decay_from: float = Field(0.5, ge=0, le=1, description="share of the steps after which the decay begins")
    final_lr: float = Field(0.05, ge=0, le=1, description="learning rate at the last step, as a share of the peak")


def schedule_factor(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """The learning rate at a step (from 0), as a share of the peak."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    start = max(config.warmup_steps, int(config.decay_from * total_steps))
    if config.schedule == "constant" or step < start:
        return 1.0
    progress = min(1.0, (step - start) / max(1, total_steps - start))
    shape = 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.final_lr + (1.0 - config.final_lr) * shape


def orthogonalize(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Newton-Schulz iteration towards U V^T of each matrix in a batch [..., M, N], in fp32.

    Quintic coefficients of Muon (Jordan et al. 2024): singular values end near 1, not exactly at 1.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def trains_with_muon(name: str, parameter: Tensor) -> bool:
    """Matrices of the blocks; not embeddings, heads, routers, norms, adapters."""
    return parameter.dim() >= 2 and not any(part in name for part in ("embed", "lm_head", "mlp.gate.", "norm", "lora_"))


def _matrices(model: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What weight decay shrinks: matrices, without the rows of embedding and head that pad the vocabulary."""
    rows = {
        id(weight): part.num_tokens
        for part in model.modules()
        if isinstance(part, LanguageModel)
        for weight in (part.embed_tokens.weight, part.lm_head.weight)
    }
    return {n: p.detach()[: rows.get(id(p), p.shape[0])] for n, p in parameters.items() if p.dim() >= 2}


class Optimizer:
    """Updates a model's parameters in place from their gradients.

    Args:
        model: its parameters that require gradients are trained.
        config: rates and schedule.
        total_steps: for the schedule.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig, total_steps: int) -> None:
        self.config = config
        self.total_steps = total_steps
        self.steps = 0
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._muon = {n: p for n, p in named.items() if config.muon_lr and trains_with_muon(n, p)}
        self._adam = {n: p for n, p in named.items() if n not in self._muon}
        self._momentum = {n: torch.zeros_like(p) for n, p in self._muon.items()}
        self._decayed = _matrices(model, self._adam)
        self._first = {n: torch.zeros_like(p) for n, p in self._adam.items()}
        self._second = {n: torch.zeros_like(p) for n, p in self._adam.items()}

    @property
    def parameters(self) -> list[Tensor]:
        """All trained parameters, in a fixed order."""
        return [*self._muon.values(), *self._adam.values()]

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """All gradients, in the order of `parameters`; zeros where this process's batch did not reach a parameter."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    @torch.no_grad()
    def step(self) -> tuple[float, float, bool]:
        """Clips, then updates every parameter; a gradient that is not finite changes nothing but the step count.

        Returns:
            The gradient's norm before clipping, the learning-rate factor, and whether the update took place.
        """
        factor = schedule_factor(self.config, self.steps, self.total_steps)
        self.steps += 1
        grads = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if not grads:
            return 0.0, factor, False
        norm = float(torch.stack(torch._foreach_norm(grads)).norm())
        if not math.isfinite(norm):
            return norm, factor, False
        if norm > self.config.clip_norm:
            torch._foreach_mul_(grads, self.config.clip_norm / norm)
        self._muon_step(self.config.muon_lr * factor)
        self._adam_step(self.config.adam_lr * factor)
        return norm, factor, True

    def _muon_step(self, lr: float) -> None:
        for name, parameter in self._muon.items():
            if parameter.grad is None:
                continue
            momentum = self._momentum[name].lerp_(parameter.grad, 1.0 - self.config.momentum)
            update = orthogonalize(parameter.grad.lerp(momentum, self.config.momentum))
            scale = max(1.0, parameter.size(-2) / parameter.size(-1)) ** 0.5
            parameter.mul_(1.0 - lr * self.config.weight_decay).add_(update, alpha=-lr * scale)

    def _adam_step(self, lr: float) -> None:
        live = {name: parameter for name, parameter in self._adam.items() if parameter.grad is not None}
        if not live:
            return
        grads = [parameter.grad for parameter in live.values() if parameter.grad is not None]
        first, second = [self._first[name] for name in live], [self._second[name] for name in live]
        torch._foreach_lerp_(first, grads, 1.0 - self.config.beta1)
        torch._foreach_mul_(second, self.config.beta2)
        torch._foreach_addcmul_(second, grads, grads, 1.0 - self.config.beta2)
        debias1 = 1.0 - self.config.beta1**self.steps
        debias2 = 1.0 - self.config.beta2**self.steps
        denominators = torch._foreach_sqrt(second)
        torch._foreach_div_(denominators, math.sqrt(debias2))
        torch._foreach_add_(denominators, 1e-8)
        decayed = [matrix for name, matrix in self._decayed.items() if name in live]
        if self.config.weight_decay and decayed:
            torch._foreach_mul_(decayed, 1.0 - lr * self.config.weight_decay)
        torch._foreach_addcdiv_(list(live.values()), first, denominators, -lr / debias1)

    def state(self) -> dict[str, Tensor]:
        """All moments by name, for a checkpoint; `steps` is the caller's to save."""
        groups = {"momentum": self._momentum, "first": self._first, "second": self._second}
        return {f"{group}.{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Restores what `state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(tensors[name])
        self.steps = steps
