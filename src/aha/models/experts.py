"""The routed experts: slots sorted by expert once, then one matrix product per expert on contiguous rows.

Products are exact for every token: none is dropped, in training or inference (V3 section 2.1.2). Sums over a
token's experts run in a fixed order, without atomics, so results repeat bit for bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from aha.models.config import DeepseekV3Config
from aha.models.expert_parallel import Journey
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
    return Slots(token_S, place_S.view_as(indices_NA), order_S, torch.bincount(flat_S, minlength=num_experts))


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


def _grouped_experts(x_ND: Tensor, gates_NA: Tensor, gate_up_EXD: Tensor, down_EDF: Tensor, slots: Slots) -> Tensor:
    """The same with grouped matrix products, without synchronisation with the host: other devices than the CPU."""
    x_SD = x_ND.index_select(0, slots.token)
    ends_E = slots.counts.cumsum(0).to(torch.int32)
    hidden_SF = swiglu(F.grouped_mm(x_SD, gate_up_EXD.transpose(1, 2), offs=ends_E))
    y_SD = F.grouped_mm(hidden_SF, down_EDF.transpose(1, 2), offs=ends_E)
    y_NAD = y_SD.index_select(0, slots.place.flatten()).unflatten(0, slots.place.shape)
    total_ND = y_NAD[:, 0] * gates_NA[:, :1]
    for slot in range(1, gates_NA.shape[1]):
        total_ND = total_ND + y_NAD[:, slot] * gates_NA[:, slot : slot + 1]
    return total_ND.to(x_ND.dtype)


def _gated_sum(x_ND: Tensor, gates_NA: Tensor, gate_up_EXD: Tensor, down_EDF: Tensor, slots: Slots) -> Tensor:
    """The gated sum of each token's experts, as suits the device."""
    if x_ND.is_cpu:
        summed: Tensor = _ExpertsOnCpu.apply(x_ND, gates_NA.to(x_ND.dtype), gate_up_EXD, down_EDF, slots)
        return summed
    return _grouped_experts(x_ND, gates_NA, gate_up_EXD, down_EDF, slots)


class RoutedExperts(nn.Module):
    """E SwiGLU experts as two stacked weights; gate rows come first in `gate_up_proj`.

    After `split` this process holds some of the experts, and `forward` must be called by all processes together.
    """

    def __init__(self, config: DeepseekV3Config) -> None:
        super().__init__()
        experts, width, hidden = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * hidden, width))
        self.down_proj = nn.Parameter(torch.empty(experts, width, hidden))
        self.group: dist.ProcessGroup | None = None
        """The processes that the experts are split over; None: all are here."""

    def forward(self, x_ND: Tensor, gates_NA: Tensor, slots: Slots) -> Tensor:
        """V3 Eq. 12, third term: the gated sum of each token's experts."""
        if self.group is None:
            return _gated_sum(x_ND, gates_NA, self.gate_up_proj, self.down_proj, slots)
        assert isinstance(self.gate_up_proj, DTensor) and isinstance(self.down_proj, DTensor)
        gate_up_XD, down_DF = self.gate_up_proj.to_local(), self.down_proj.to_local()
        journey = Journey(slots.counts, self.group)
        x_RD = journey.dispatch(x_ND.index_select(0, slots.token))
        here = sort_slots(journey.expert_R.unsqueeze(-1), gate_up_XD.shape[0])
        y_RD = _gated_sum(x_RD, gates_NA.new_ones(len(x_RD), 1), gate_up_XD, down_DF, here)
        y_SD = journey.combine(y_RD)
        y_NAD = y_SD.index_select(0, slots.place.flatten()).unflatten(0, slots.place.shape)
        return (y_NAD * gates_NA.unsqueeze(-1)).sum(1).to(x_ND.dtype)

    def split(self, mesh: DeviceMesh) -> None:
        """Keeps this process's experts of a mesh [replicas, experts]; the new parameters are DTensors."""
        for name in ("gate_up_proj", "down_proj"):
            weight = getattr(self, name)
            part = distribute_tensor(weight.detach(), mesh, (Replicate(), Shard(0)), src_data_rank=None)
            local = part.to_local().clone()  # not a view: the whole goes
            kept = DTensor.from_local(local, mesh, part.placements, run_check=False)
            setattr(self, name, nn.Parameter(kept, requires_grad=weight.requires_grad))
        self.group = mesh.get_group("experts")

    def forward_fixed(self, x_ND: Tensor, gates_NA: Tensor, indices_NA: Tensor) -> Tensor:
        """The same sum with shapes that do not depend on the routing, for a few tokens at a time in a CUDA graph.

        Where the tokens use fewer slots than there are experts, each slot fetches its expert's weights; else every
        expert computes every token, which reads each weight once, and the gates of experts that were not chosen are 0.
        """
        tokens, active = indices_NA.shape
        experts = self.gate_up_proj.shape[0]
        if tokens * active < experts:
            flat_S = indices_NA.flatten()
            x_S1D = x_ND.repeat_interleave(active, 0).unsqueeze(1)
            hidden_S1F = swiglu(torch.bmm(x_S1D, self.gate_up_proj[flat_S].transpose(1, 2)))
            y_SD = torch.bmm(hidden_S1F, self.down_proj[flat_S].transpose(1, 2)).squeeze(1)
            return (y_SD.unflatten(0, (tokens, active)) * gates_NA.unsqueeze(-1)).sum(1).to(x_ND.dtype)
        gates_NE = torch.zeros(tokens, experts, dtype=gates_NA.dtype, device=x_ND.device)
        gates_NE = gates_NE.scatter(1, indices_NA, gates_NA)
        x_END = x_ND.expand(experts, *x_ND.shape)
        hidden_ENF = swiglu(torch.bmm(x_END, self.gate_up_proj.transpose(1, 2)))
        y_END = torch.bmm(hidden_ENF, self.down_proj.transpose(1, 2))
        return (y_END * gates_NE.t().unsqueeze(-1)).sum(0).to(x_ND.dtype)
