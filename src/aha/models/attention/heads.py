"""Heads of one width, for kernels that want it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_heads(x_NHK: Tensor, width: int) -> Tensor:
    """Appends zeros to the last dimension: exact for q.k, and for v the extra outputs are dropped."""
    missing = width - x_NHK.shape[-1]
    return F.pad(x_NHK, (0, missing)) if missing else x_NHK
