"""The gated sum of each token's experts: one door, and a way for each kind of device behind it.

Slots are sorted by expert once, then there is one matrix product per expert on contiguous rows. Products are exact for
every token: none is dropped, in training or inference (V3 section 2.1.2). Sums over a token's experts run in a fixed
order; on the CPU results repeat bit for bit, elsewhere gradients of gathered rows may be added up in any order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from aha.models.swiglu import Hidden, swiglu, swiglu_backward, swiglu_forward


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
    # Not bincount: on CUDA it waits for the device to learn the size of its result.
    counts_E = torch.zeros(num_experts, dtype=torch.int64, device=flat_S.device)
    counts_E.scatter_add_(0, flat_S, torch.ones_like(flat_S))
    return Slots(token_S, place_S.view_as(indices_NA), order_S, counts_E)


def gated_sum(x_ND: Tensor, gates_NA: Tensor, gate_up_EXD: Tensor, down_EDF: Tensor, slots: Slots) -> Tensor:
    """V3 Eq. 12, third term: sum_a gate[n, a] * expert_a(x_n)."""
    if x_ND.is_cpu:
        summed: Tensor = _ExpertsOnCpu.apply(x_ND, gates_NA.to(x_ND.dtype), gate_up_EXD, down_EDF, slots)
        return summed
    return grouped_experts(x_ND, gates_NA, gate_up_EXD, down_EDF, slots)


class _ExpertsOnCpu(torch.autograd.Function):
    """sum_a gate[n, a] * expert_a(x_n): rows gathered in the order of experts, results back in that of tokens."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, gates_NA: Tensor, gate_up_EXD: Tensor, down_EDF: Tensor, slots: Slots
    ) -> Tensor:
        splits = slots.counts.tolist()
        y_SD, saved = swiglu_forward(x_ND.index_select(0, slots.token), gate_up_EXD, down_EDF, splits)
        ctx.save_for_backward(*saved, gates_NA, gate_up_EXD, down_EDF, slots.token, slots.place, slots.order)
        ctx.splits = splits
        return F.embedding_bag(slots.place, y_SD, mode="sum", per_sample_weights=gates_NA)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        *saved, gates_NA, gate_up_EXD, down_EDF, token_S, place_NA, order_S = ctx.saved_tensors
        gates_S1 = gates_NA.flatten().index_select(0, order_S).unsqueeze(-1)
        grad_SD = grad_ND.index_select(0, token_S)
        grad_x_SD, grad_gate_up, grad_down, grad_gates_S = swiglu_backward(
            grad_SD, Hidden(*saved), gate_up_EXD, down_EDF, ctx.splits, gates_S1
        )
        assert grad_gates_S is not None
        grad_gates = grad_gates_S.index_select(0, place_NA.flatten()).view_as(gates_NA)
        return F.embedding_bag(place_NA, grad_x_SD, mode="sum"), grad_gates, grad_gate_up, grad_down, None


def grouped_experts(x_ND: Tensor, gates_NA: Tensor, gate_up_EXD: Tensor, down_EDF: Tensor, slots: Slots) -> Tensor:
    """The same with grouped matrix products, on other devices than the CPU. In bfloat16 the host never waits for it."""
    x_SD = x_ND.index_select(0, slots.token)
    ends_E = slots.counts.cumsum(0).to(torch.int32)
    hidden_SF = swiglu(F.grouped_mm(x_SD, gate_up_EXD.transpose(1, 2), offs=ends_E))
    y_SD = F.grouped_mm(hidden_SF, down_EDF.transpose(1, 2), offs=ends_E)
    y_NAD = y_SD.index_select(0, slots.place.flatten()).unflatten(0, slots.place.shape)
    total_ND = y_NAD[:, 0] * gates_NA[:, :1]
    for slot in range(1, gates_NA.shape[1]):
        total_ND = total_ND + y_NAD[:, slot] * gates_NA[:, slot : slot + 1]
    return total_ND.to(x_ND.dtype)


def gated_sum_fixed(
    x_ND: Tensor, gates_NA: Tensor, indices_NA: Tensor, gate_up_EXD: Tensor, down_EDF: Tensor
) -> Tensor:
    """The same sum with shapes that do not depend on the routing, for a few tokens at a time in a CUDA graph.

    Where the tokens use fewer slots than there are experts, each slot fetches its expert's weights; else every
    expert computes every token, which reads each weight once, and the gates of experts that were not chosen are 0.
    Grouped products would do in bfloat16; in float32 they wait for the host, which a graph cannot.
    """
    tokens, active = indices_NA.shape
    experts = gate_up_EXD.shape[0]
    if tokens * active < experts:
        flat_S = indices_NA.flatten()
        x_S1D = x_ND.repeat_interleave(active, 0).unsqueeze(1)
        hidden_S1F = swiglu(torch.bmm(x_S1D, gate_up_EXD[flat_S].transpose(1, 2)))
        y_SD = torch.bmm(hidden_S1F, down_EDF[flat_S].transpose(1, 2)).squeeze(1)
        return (y_SD.unflatten(0, (tokens, active)) * gates_NA.unsqueeze(-1)).sum(1).to(x_ND.dtype)
    gates_NE = torch.zeros(tokens, experts, dtype=gates_NA.dtype, device=x_ND.device)
    gates_NE = gates_NE.scatter(1, indices_NA, gates_NA)
    x_END = x_ND.expand(experts, *x_ND.shape)
    hidden_ENF = swiglu(torch.bmm(x_END, gate_up_EXD.transpose(1, 2)))
    y_END = torch.bmm(hidden_ENF, down_EDF.transpose(1, 2))
    return (y_END * gates_NE.t().unsqueeze(-1)).sum(0).to(x_ND.dtype)
