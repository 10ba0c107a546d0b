"""The small pieces: RMSNorm, and SwiGLU with gate and up in one matrix. Fused forward and backward on tokens [N, D]."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _RMSNorm(torch.autograd.Function):
    """Keeps one number per token (1 / rms) instead of a second copy of the tokens."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        rstd_N1 = torch.linalg.vecdot(x_ND, x_ND).div_(x_ND.shape[-1]).add_(eps).rsqrt_().unsqueeze(-1)
        ctx.save_for_backward(x_ND, weight_D, rstd_N1)
        return (x_ND * rstd_N1).mul_(weight_D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, Tensor, None]:
        x_ND, weight_D, rstd_N1 = ctx.saved_tensors
        normed_ND = x_ND * rstd_N1
        grad_weight_D = (grad_ND * normed_ND).sum(0)
        grad_x_ND = grad_ND * weight_D
        projection_N1 = torch.linalg.vecdot(grad_x_ND, normed_ND).div_(-x_ND.shape[-1]).unsqueeze(-1)
        grad_x_ND.addcmul_(normed_ND, projection_N1).mul_(rstd_N1)
        return grad_x_ND, grad_weight_D, None


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * weight, over the last dimension."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x_ND: Tensor) -> Tensor:
        """Normalises each token."""
        if x_ND.is_cpu:
            return _RMSNorm.apply(x_ND, self.weight, self.eps)
        return F.rms_norm(x_ND, (x_ND.shape[-1],), self.weight, self.eps)


class _SwiGLU(torch.autograd.Function):
    """silu(gate) * up from one matrix [N, 2F]; the backward pass writes both halves of one gradient matrix."""

    @staticmethod
    def forward(ctx: Any, gate_up_NF: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up_NF)
        gate, up = gate_up_NF.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NF: Tensor) -> Tensor:
        (gate_up_NF,) = ctx.saved_tensors
        return swiglu_backward(grad_NF, gate_up_NF)


def swiglu_backward(grad_NF: Tensor, gate_up_NF: Tensor, activated_NF: Tensor | None = None) -> Tensor:
    """Gradient of silu(gate) * up with respect to [gate, up]. `activated_NF` is silu(gate) where it is at hand."""
    gate, up = gate_up_NF.chunk(2, dim=-1)
    grad_gate_up = torch.empty_like(gate_up_NF)
    grad_gate, grad_up = grad_gate_up.chunk(2, dim=-1)
    torch.mul(grad_NF, F.silu(gate) if activated_NF is None else activated_NF, out=grad_up)
    torch.ops.aten.silu_backward.grad_input(grad_NF * up, gate, grad_input=grad_gate)
    return grad_gate_up


def swiglu(gate_up_NF: Tensor) -> Tensor:
    """silu(gate) * up, where gate is the first half of the last dimension."""
    return _SwiGLU.apply(gate_up_NF)


class SwiGLU(nn.Module):
    """The feed-forward layer w_down(silu(w_gate x) * w_up x), without biases.

    Gate rows come first in `gate_up_proj`.
    """

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(hidden_size, 2 * intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Applies the layer to each token."""
        return self.down_proj(swiglu(self.gate_up_proj(x_ND)))
