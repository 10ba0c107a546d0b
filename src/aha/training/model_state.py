"""A model's weights and its optimizer's moments as one dictionary of named tensors, for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from aha.training.optimizer import Optimizer

MODEL, OPTIMIZER = "model.", "optimizer."


def training_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Weights, buffers (the routers' biases among them) and moments by name; not copies."""
    tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    return tensors | {OPTIMIZER + name: tensor for name, tensor in optimizer.state().items()}


@torch.no_grad()
def load_training_state(model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor], steps: int) -> None:
    """Restores what `training_state` gave, in place, and the optimizer's step count."""
    model.load_state_dict({name.removeprefix(MODEL): t for name, t in tensors.items() if name.startswith(MODEL)})
    optimizer.load_state(
        {name.removeprefix(OPTIMIZER): t for name, t in tensors.items() if name.startswith(OPTIMIZER)}, steps
    )
