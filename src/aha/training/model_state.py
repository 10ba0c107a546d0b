"""A model's weights and its optimizer's moments as one dictionary of named tensors, for checkpoints.

Frozen weights are not among them: they are the parent's, from where a stage loads them again.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from aha.models.sharded_tensors import copy_into
from aha.training.optimizer import Optimizer

MODEL, OPTIMIZER = "model.", "optimizer."


def training_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Trained weights, buffers (the routers' biases among them) and moments by name; not copies."""
    tensors = {MODEL + name: tensor for name, tensor in _changing(model).items()}
    return tensors | {OPTIMIZER + name: tensor for name, tensor in optimizer.state().items()}


def _changing(model: nn.Module) -> dict[str, Tensor]:
    named = model.named_parameters(remove_duplicate=False)
    frozen = {name for name, parameter in named if not parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


@torch.no_grad()
def load_training_state(model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor], steps: int) -> None:
    """Restores what `training_state` gave, in place, and the optimizer's step count.

    Whatever number of processes the model was spread over then, each takes the rows that it has now.
    """
    for name, tensor in _changing(model).items():
        copy_into(tensor, tensors[MODEL + name])
    optimizer.load_state({name: tensors[OPTIMIZER + name] for name in optimizer.state()}, steps)
