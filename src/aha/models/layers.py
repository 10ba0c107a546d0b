"""RMSNorm and the SwiGLU feed-forward layer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from aha.models.lora_linear import LoRALinear
from aha.models.swiglu import feed_forward, swiglu


class _RMSNorm(torch.autograd.Function):
    """Keeps one number per token (1 / rms) instead of a second copy of the tokens.

    With g the gradient and r = 1 / rms: dx = r g w - x r^3 / D sum(g w x), and dw = sum over tokens of r g x. Both
    sums are products of g x with a vector.
    """

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        norm_N1 = torch.linalg.vector_norm(x_ND, 2, -1, True)
        rstd_N1 = norm_N1.square_().div_(x_ND.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x_ND, weight_D, rstd_N1)
        return (x_ND * rstd_N1).mul_(weight_D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, Tensor, None]:
        x_ND, weight_D, rstd_N1 = ctx.saved_tensors
        product_ND = grad_ND * x_ND
        grad_weight_D = torch.mv(product_ND.t(), rstd_N1.squeeze(-1))
        sum_N1 = torch.mv(product_ND, weight_D).unsqueeze(-1)
        grad_x_ND = torch.mul(grad_ND, weight_D, out=product_ND).mul_(rstd_N1)
        grad_x_ND.addcmul_(x_ND, rstd_N1.pow(3).mul_(sum_N1), value=-1 / x_ND.shape[-1])
        return grad_x_ND, grad_weight_D, None


def rms_norm(x_ND: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """X / sqrt(mean(x^2) + eps) * weight over the last dimension, as suits the device."""
    if x_ND.is_cpu and x_ND.dtype != torch.bfloat16:
        normed_ND: Tensor = _RMSNorm.apply(x_ND, weight_D, eps)
        return normed_ND
    return F.rms_norm(x_ND, (x_ND.shape[-1],), weight_D, eps)


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * weight, over the last dimension."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x_ND: Tensor) -> Tensor:
        """Normalises each token."""
        return rms_norm(x_ND, self.weight, self.eps)


class SwiGLU(nn.Module):
    """The feed-forward layer w_down(silu(w_gate x) * w_up x), without biases.

    `gate_up_proj` has the gate's rows first.
    """

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(hidden_size, 2 * intermediate_size, bias=False)
        self.fused_rows = {"gate_up_proj.weight": (intermediate_size, intermediate_size)}
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Applies the layer to each token."""
        if any(isinstance(part, LoRALinear) for part in (self.gate_up_proj, self.down_proj)):
            return self.down_proj(swiglu(self.gate_up_proj(x_ND)))
        return feed_forward(x_ND, self.gate_up_proj.weight, self.down_proj.weight)
