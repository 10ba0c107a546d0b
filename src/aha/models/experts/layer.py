"""The routed experts as a module: all of them here, or some of them with the others in other processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.experts.parallel import SlotExchange
from aha.models.experts.products import Slots, gated_sum, gated_sum_fixed, sort_slots


class RoutedExperts(nn.Module):
    """E SwiGLU experts as two stacked weights; gate rows come first in `gate_up_proj`.

    After `split` this process holds some of the experts, and `forward` must be called by all processes together.
    """

    def __init__(self, config: DeepseekV3Config) -> None:
        super().__init__()
        experts, width, hidden = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * hidden, width))
        self.fused_rows = {"gate_up_proj": (hidden, hidden)}
        self.down_proj = nn.Parameter(torch.empty(experts, width, hidden))
        self.group: dist.ProcessGroup | None = None
        """The processes that the experts are split over; None: all are here."""

    def forward(self, x_ND: Tensor, gates_NA: Tensor, slots: Slots) -> Tensor:
        """V3 Eq. 12, third term: the gated sum of each token's experts."""
        if self.group is None:
            return gated_sum(x_ND, gates_NA, self.gate_up_proj, self.down_proj, slots)
        assert isinstance(self.gate_up_proj, DTensor) and isinstance(self.down_proj, DTensor)
        gate_up_XD, down_DF = self.gate_up_proj.to_local(), self.down_proj.to_local()
        exchange = SlotExchange(slots.counts, self.group)
        x_RD = exchange.dispatch(x_ND.index_select(0, slots.token))
        here = sort_slots(exchange.expert_R.unsqueeze(-1), gate_up_XD.shape[0])
        y_RD = gated_sum(x_RD, gates_NA.new_ones(len(x_RD), 1), gate_up_XD, down_DF, here)
        y_SD = exchange.combine(y_RD)
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
        """The same sum with shapes that do not depend on the routing, for a few tokens at a time in a CUDA graph."""
        return gated_sum_fixed(x_ND, gates_NA, indices_NA, self.gate_up_proj, self.down_proj)
