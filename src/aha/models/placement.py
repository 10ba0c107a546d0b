"""What a compute policy means on this machine."""

from __future__ import annotations

from typing import TypedDict

import torch

from aha.compute import ComputeConfig
from aha.errors import ConfigError


class Placement(TypedDict):
    """Where a model goes and its type: arguments of `load_pretrained` and of `Module.to`."""

    device: torch.device
    dtype: torch.dtype


def placement(compute: ComputeConfig, device: torch.device | None = None) -> Placement:
    """Resolves "auto".

    Args:
        compute: the policy.
        device: of a process that has chosen already; None chooses here.

    Raises:
        ConfigError: CUDA is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if device is None:
        if compute.device == "cuda" and not available:
            raise ConfigError("compute.device = 'cuda': there is no GPU here; set compute.device=cpu")
        device = torch.device("cuda" if available and compute.device != "cpu" else "cpu")
    automatic = "bfloat16" if device.type == "cuda" else "float32"
    return {"device": device, "dtype": getattr(torch, automatic if compute.dtype == "auto" else compute.dtype)}
