"""RMSNorm, and the SwiGLU feed-forward layer for one or many experts, with hand-written backward passes on the CPU.

PyTorch runs an element-wise operation on half of a matrix's columns several times slower than on a matrix of its own. So
gate and up, one weight each of which is the top and bottom half, are made into two matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _RMSNorm(torch.autograd.Function):
    """Keeps one number per token (1 / rms) instead of a second copy of the tokens.

    With g the gradient and r = 1 / rms: dx = r g w - x r^3 / D sum(g w x), and dw = sum over tokens of r g x. Both sums are
    products of g x with a vector.
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


class Hidden(NamedTuple):
    """What the backward pass of `swiglu_forward` needs, besides weights: its inputs and the two products."""

    x: Tensor
    gate: Tensor
    up: Tensor


def swiglu_forward(x_SD: Tensor, gate_up_EXD: Tensor, down_EDF: Tensor, splits: Sequence[int]) -> tuple[Tensor, Hidden]:
    """y = down_e(silu(gate_e x) * up_e x) for rows sorted by expert, `splits[e]` of them for expert e."""
    width = down_EDF.shape[2]
    gate_SF, up_SF = x_SD.new_empty(x_SD.shape[0], width), x_SD.new_empty(x_SD.shape[0], width)
    for e, x, gate, up in per_expert(splits, x_SD, gate_SF, up_SF):
        torch.mm(x, gate_up_EXD[e, :width].t(), out=gate)
        torch.mm(x, gate_up_EXD[e, width:].t(), out=up)
    hidden_SF = F.silu(gate_SF).mul_(up_SF)
    y_SD = x_SD.new_empty(x_SD.shape[0], down_EDF.shape[1])
    for e, hidden, y in per_expert(splits, hidden_SF, y_SD):
        torch.mm(hidden, down_EDF[e].t(), out=y)
    return y_SD, Hidden(x_SD, gate_SF, up_SF)


def swiglu_backward(
    grad_SD: Tensor,
    saved: Hidden,
    gate_up_EXD: Tensor,
    down_EDF: Tensor,
    splits: Sequence[int],
    scale_S1: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of x, gate_up and down, and of `scale_S1` where the outputs were multiplied by it after the experts.

    The gradient of the scale needs no output: with h the hidden activations, <dy, down h> = <down^T dy, h>.
    `grad_SD` is overwritten.
    """
    x_SD, gate_SF, up_SF = saved
    width = down_EDF.shape[2]
    grad_hidden_SF = torch.empty_like(gate_SF)
    for e, grad, out in per_expert(splits, grad_SD, grad_hidden_SF):
        torch.mm(grad, down_EDF[e], out=out)
    sigmoid_SF = gate_SF.sigmoid()
    silu_SF = sigmoid_SF * gate_SF
    hidden_SF = silu_SF * up_SF
    grad_scale_S = None
    if scale_S1 is not None:
        grad_scale_S = torch.linalg.vecdot(grad_hidden_SF, hidden_SF)
        grad_hidden_SF.mul_(scale_S1)
        hidden_SF.mul_(scale_S1)
    grad_down = torch.empty_like(down_EDF)
    for e, (grad, hidden) in enumerate(zip(grad_SD.split(splits), hidden_SF.split(splits), strict=True)):
        torch.mm(grad.t(), hidden, out=grad_down[e])
    # silu' = sigmoid + silu (1 - sigmoid)
    slope_SF = torch.add(silu_SF, sigmoid_SF, out=hidden_SF).addcmul_(silu_SF, sigmoid_SF, value=-1)
    grad_gate_SF = slope_SF.mul_(up_SF).mul_(grad_hidden_SF)
    grad_up_SF = grad_hidden_SF.mul_(silu_SF)
    grad_gate_up = torch.empty_like(gate_up_EXD)
    parts = zip(grad_gate_SF.split(splits), grad_up_SF.split(splits), x_SD.split(splits), strict=True)
    for e, (grad_gate, grad_up, x) in enumerate(parts):
        torch.mm(grad_gate.t(), x, out=grad_gate_up[e, :width])
        torch.mm(grad_up.t(), x, out=grad_gate_up[e, width:])
    for e, grad_gate, grad_up, out in per_expert(splits, grad_gate_SF, grad_up_SF, grad_SD):
        torch.mm(grad_gate, gate_up_EXD[e, :width], out=out).addmm_(grad_up, gate_up_EXD[e, width:])
    return grad_SD, grad_gate_up, grad_down, grad_scale_S


def per_expert(splits: Sequence[int], *tensors: Tensor) -> list[tuple[Any, ...]]:
    """(e, rows of each tensor) for every expert that has rows."""
    parts = zip(*(tensor.split(splits) for tensor in tensors), strict=True)
    return [(e, *rows) for e, rows in enumerate(parts) if splits[e]]


class _SwiGLU(torch.autograd.Function):
    """One feed-forward layer, as the only expert."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, gate_up_XD: Tensor, down_DF: Tensor) -> Tensor:
        y_ND, saved = swiglu_forward(x_ND, gate_up_XD[None], down_DF[None], [x_ND.shape[0]])
        ctx.save_for_backward(*saved, gate_up_XD, down_DF)
        return y_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, gate, up, gate_up_XD, down_DF = ctx.saved_tensors
        saved, rows = Hidden(x, gate, up), [x.shape[0]]
        grads = swiglu_backward(grad_ND.clone(), saved, gate_up_XD[None], down_DF[None], rows)
        return grads[0], grads[1][0], grads[2][0]


def swiglu(gate_up_NF: Tensor) -> Tensor:
    """silu(gate) * up, where gate is the first half of the last dimension."""
    gate, up = gate_up_NF.chunk(2, dim=-1)
    return F.silu(gate) * up


class SwiGLU(nn.Module):
    """The feed-forward layer w_down(silu(w_gate x) * w_up x), without biases; gate rows come first in `gate_up_proj`."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(hidden_size, 2 * intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Applies the layer to each token."""
        if x_ND.is_cpu:
            return _SwiGLU.apply(x_ND, self.gate_up_proj.weight, self.down_proj.weight)
        return self.down_proj(swiglu(self.gate_up_proj(x_ND)))
