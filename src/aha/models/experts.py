"""The routed experts: slots sorted by expert once, then one matrix product per expert on contiguous rows.

Products are exact for every token: none is dropped, in training or inference (V3 section 2.1.2). Sums over a
token's experts run in a fixed order, without atomics, so results repeat bit for bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from aha.models.config import DeepseekV3Config
from aha.models.layers import swiglu


class Slots(NamedTuple):
    """The N * A (token, expert) pairs in the order of experts."""

    token: Tensor
    """Token of each sorted slot, [S]."""
    place: Tensor
    """Where in the sorted order each token's slots are, [N, A]."""
    order: Tensor
    """Flat index n * A + a of each sorted slot, [S]."""
    counts: Tensor
    """Slots of each expert, int64 [E]."""


def sort_slots(indices_NA: Tensor, num_experts: int) -> Slots:
    """Sorts the slots by expert, tokens of one expert in their own order."""
    flat_S = indices_NA.flatten()
    order_S = torch.argsort(flat_S, stable=True)
    place_S = torch.empty_like(order_S)
    place_S[order_S] = torch.arange(order_S.numel(), device=order_S.device)
    token_S = torch.div(order_S, indices_NA.shape[1], rounding_mode="floor")
    return Slots(token_S, place_S.view_as(indices_NA), order_S, torch.bincount(flat_S, minlength=num_experts))


class _ExpertsOnCpu(torch.autograd.Function):
    """sum_a gate[n, a] * down[e](silu(gate_e x) * up_e x), with hand-written gradients into slices.

    Saves the sorted products with [gate, up] only. The gradient of the gates needs no expert output: with h the hidden
    activations, <dy, down h> = <down^T dy, h>, and the right side is computed anyway.
    """

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, gates_NA: Tensor, gate_up_EXD: Tensor, down_EDF: Tensor, slots: Slots
    ) -> Tensor:
        splits = slots.counts.tolist()
        x_SD = x_ND.index_select(0, slots.token)
        gate_up_SX = x_SD.new_empty(x_SD.shape[0], gate_up_EXD.shape[1])
        for e, x, out in _per_expert(splits, x_SD, gate_up_SX):
            torch.mm(x, gate_up_EXD[e].t(), out=out)
        gate, up = gate_up_SX.chunk(2, dim=-1)
        hidden_SF = F.silu(gate).mul_(up)
        y_SD = torch.empty_like(x_SD)
        for e, hidden, out in _per_expert(splits, hidden_SF, y_SD):
            torch.mm(hidden, down_EDF[e].t(), out=out)
        ctx.save_for_backward(x_SD, gates_NA, gate_up_EXD, down_EDF, gate_up_SX, *slots[:3])
        ctx.splits = splits
        return F.embedding_bag(slots.place, y_SD, mode="sum", per_sample_weights=gates_NA)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        x_SD, gates_NA, gate_up_EXD, down_EDF, gate_up_SX, token_S, place_NA, order_S = ctx.saved_tensors
        gates_S1 = gates_NA.flatten().index_select(0, order_S).unsqueeze(-1)
        grad_SD = grad_ND.index_select(0, token_S)
        grad_hidden_SF = x_SD.new_empty(x_SD.shape[0], down_EDF.shape[2])
        for e, grad, out in _per_expert(ctx.splits, grad_SD, grad_hidden_SF):
            torch.mm(grad, down_EDF[e], out=out)
        gate, up = gate_up_SX.chunk(2, dim=-1)
        silu_SF = F.silu(gate)
        hidden_SF = silu_SF * up
        grad_gates_S = torch.linalg.vecdot(grad_hidden_SF, hidden_SF)
        grad_hidden_SF.mul_(gates_S1)
        grad_gate_up_SX = torch.empty_like(gate_up_SX)
        grad_gate, grad_up = grad_gate_up_SX.chunk(2, dim=-1)
        torch.mul(grad_hidden_SF, silu_SF, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad_hidden_SF.mul_(up), gate, grad_input=grad_gate)
        grad_down = _weight_gradients(ctx.splits, grad_SD, hidden_SF.mul_(gates_S1), down_EDF)
        grad_gate_up = _weight_gradients(ctx.splits, grad_gate_up_SX, x_SD, gate_up_EXD)
        for e, grad, out in _per_expert(ctx.splits, grad_gate_up_SX, grad_SD):
            torch.mm(grad, gate_up_EXD[e], out=out)
        grad_x = F.embedding_bag(place_NA, grad_SD, mode="sum")
        grad_gates = grad_gates_S.index_select(0, place_NA.flatten()).view_as(gates_NA)
        return grad_x, grad_gates, grad_gate_up, grad_down, None


def _per_expert(splits: list[int], inputs_S: Tensor, outputs_S: Tensor) -> list[tuple[int, Tensor, Tensor]]:
    """(expert, its input rows, its output rows) for every expert with rows."""
    pairs = zip(inputs_S.split(splits), outputs_S.split(splits), strict=True)
    return [(e, a, b) for e, (a, b) in enumerate(pairs) if splits[e]]


def _weight_gradients(splits: list[int], grad_S: Tensor, inputs_S: Tensor, weight_E: Tensor) -> Tensor:
    """grad^T @ inputs of each expert; zero for experts without rows."""
    out_E = torch.empty_like(weight_E)
    pairs = zip(grad_S.split(splits), inputs_S.split(splits), strict=True)
    for e, (grad, inputs) in enumerate(pairs):
        torch.mm(grad.t(), inputs, out=out_E[e])
    return out_E


def _grouped_experts(x_ND: Tensor, gates_NA: Tensor, gate_up_EXD: Tensor, down_EDF: Tensor, slots: Slots) -> Tensor:
    """The same with grouped matrix products, on devices that have them; no synchronisation with the host."""
    x_SD = x_ND.index_select(0, slots.token)
    ends_E = slots.counts.cumsum(0).to(torch.int32)
    hidden_SF = swiglu(F.grouped_mm(x_SD, gate_up_EXD.transpose(1, 2), offs=ends_E))
    y_SD = F.grouped_mm(hidden_SF, down_EDF.transpose(1, 2), offs=ends_E)
    y_NAD = y_SD.index_select(0, slots.place.flatten()).unflatten(0, slots.place.shape)
    total_ND = y_NAD[:, 0] * gates_NA[:, :1]
    for slot in range(1, gates_NA.shape[1]):
        total_ND = total_ND + y_NAD[:, slot] * gates_NA[:, slot : slot + 1]
    return total_ND.to(x_ND.dtype)


class RoutedExperts(nn.Module):
    """E SwiGLU experts as two stacked weights; gate rows come first in `gate_up_proj`."""

    def __init__(self, config: DeepseekV3Config) -> None:
        super().__init__()
        experts, width, hidden = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * hidden, width))
        self.down_proj = nn.Parameter(torch.empty(experts, width, hidden))

    def forward(self, x_ND: Tensor, gates_NA: Tensor, slots: Slots) -> Tensor:
        """V3 Eq. 12, third term: the gated sum of each token's experts."""
        if x_ND.is_cpu:
            return _ExpertsOnCpu.apply(x_ND, gates_NA.to(x_ND.dtype), self.gate_up_proj, self.down_proj, slots)
        return _grouped_experts(x_ND, gates_NA, self.gate_up_proj, self.down_proj, slots)
