"""Spreading a model over the processes of a run: FSDP2 layer by layer, experts over groups of processes.

What is spread is a DTensor afterwards (see `aha.models.sharded_tensors`). Gathering weights and sending tokens are
collective, so all processes must run the same passes: one that has less to do makes up for it with `dummy_pass`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from aha.errors import ConfigError
from aha.models.experts.layer import RoutedExperts
from aha.models.language_model import LanguageModel
from aha.models.layouts import Ragged
from aha.models.sharded_tensors import is_sharded
from aha.training.distributed import Distributed
from aha.training.parallel import ParallelConfig


def shard(model: LanguageModel, parallel: ParallelConfig, distributed: Distributed) -> LanguageModel:
    """Leaves this process its part of a model that is whole and the same in all; returns the model.

    With one process there is nothing to spread, and a model without experts has none to split.

    Raises:
        ConfigError: processes or experts do not divide by `expert_parallel`.
    """
    if distributed.world_size == 1 and parallel.expert_parallel == 1:
        return model
    if parallel.expert_parallel > 1:
        _split_experts(model, parallel.expert_parallel, distributed)
    if parallel.fsdp:
        _shard_layers(model, distributed)
    return model


def _split_experts(model: LanguageModel, count: int, distributed: Distributed) -> None:
    world = distributed.world_size
    if world % count:
        raise ConfigError(
            f"parallel.expert_parallel = {count} must divide the number of processes, which is {world}: start "
            f"{count} processes or a multiple, or lower expert_parallel"
        )
    layers = [module for module in model.modules() if isinstance(module, RoutedExperts)]
    if layers and model.config.num_experts % count:
        raise ConfigError(
            f"parallel.expert_parallel = {count} must divide the number of experts, which is {model.config.num_experts}"
        )
    mesh = init_device_mesh(distributed.device.type, (world // count, count), mesh_dim_names=("replicas", "experts"))
    for experts in layers:
        experts.split(mesh)


def _shard_layers(model: LanguageModel, distributed: Distributed) -> None:
    """Each layer is gathered when it computes; embedding, head and prediction modules are gathered for a whole pass.

    Experts that are split already stay as they are. Gradients are summed, like all of ours, and in float32.
    """
    mesh = init_device_mesh(distributed.device.type, (distributed.world_size,), mesh_dim_names=("shards",))
    split = {parameter for parameter in model.parameters() if is_sharded(parameter)}
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for layer in model.layers:
        fully_shard(layer, mesh=mesh, ignored_params=split, mp_policy=policy)
    fully_shard(model, mesh=mesh, ignored_params=split, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    assert isinstance(model, FSDPModule)
    model.set_reduce_scatter_unused_params(True)


def reshard(model: nn.Module) -> None:
    """Reshards the root after a forward pass without a backward pass."""
    if isinstance(model, FSDPModule):
        model.reshard()


def dummy_passes(own: int, parallel: ParallelConfig, distributed: Distributed) -> int:
    """How many dummy passes must follow the `own` ones of this process's batch; asks all, so ask before the passes."""
    return distributed.max([own])[0] - own if parallel.spreads else 0


def dummy_pass(model: LanguageModel, prediction_modules: bool = False) -> Tensor:
    """Takes part in one forward pass of the other processes, with a token of its own that changes nothing.

    Args:
        model: what the others run.
        prediction_modules: whether they run these too.

    Returns:
        A loss of 0 that depends on every weight: call its `backward` where the others call theirs.
    """
    ids_N = torch.zeros(1, dtype=torch.int64, device=model.embed_tokens.weight.device)
    layout = Ragged([1], ids_N.device)
    hidden = model(ids_N, layout)
    outputs = model.mtp_hidden(hidden, ids_N, layout) if prediction_modules else []
    return torch.stack([model.logits(output.hidden_ND).sum() for output in [hidden, *outputs]]).sum() * 0.0
