"""silu(gate) * up of one or many experts, forward and backward, on rows sorted by expert.

PyTorch runs an element-wise operation on half of a matrix's columns several times slower than on a matrix of its
own. So the products with the two halves of one weight, gate and up, are two matrices here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def swiglu(gate_up_NF: Tensor) -> Tensor:
    """silu(gate) * up, where gate is the first half of the last dimension."""
    gate, up = gate_up_NF.chunk(2, dim=-1)
    return F.silu(gate) * up


def feed_forward(x_ND: Tensor, gate_up_XD: Tensor, down_DF: Tensor) -> Tensor:
    """One feed-forward layer, down(silu(gate x) * up x), as suits the device."""
    if x_ND.is_cpu:
        y_ND: Tensor = _FeedForward.apply(x_ND, gate_up_XD, down_DF)
        return y_ND
    return F.linear(swiglu(F.linear(x_ND, gate_up_XD)), down_DF)


class _FeedForward(torch.autograd.Function):
    """The layer as the only expert."""

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
        grads = swiglu_backward(grad_ND, saved, gate_up_XD[None], down_DF[None], rows)
        return grads[0], grads[1][0], grads[2][0]


class Hidden(NamedTuple):
    """What the backward pass of `swiglu_forward` needs, besides weights: its inputs and the two products."""

    x: Tensor
    gate: Tensor
    up: Tensor


def swiglu_forward(x_SD: Tensor, gate_up_EXD: Tensor, down_EDF: Tensor, splits: Sequence[int]) -> tuple[Tensor, Hidden]:
    """Computes y = down_e(silu(gate_e x) * up_e x) for rows sorted by expert, `splits[e]` of them for expert e."""
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
    grad_x_SD = torch.empty_like(x_SD)
    for e, grad_gate, grad_up, out in per_expert(splits, grad_gate_SF, grad_up_SF, grad_x_SD):
        torch.mm(grad_gate, gate_up_EXD[e, :width], out=out).addmm_(grad_up, gate_up_EXD[e, width:])
    return grad_x_SD, grad_gate_up, grad_down, grad_scale_S


def per_expert(splits: Sequence[int], *tensors: Tensor) -> list[tuple[Any, ...]]:
    """(e, rows of each tensor) for every expert that has rows."""
    parts = zip(*(tensor.split(splits) for tensor in tensors), strict=True)
    return [(e, *rows) for e, rows in enumerate(parts) if splits[e]]
