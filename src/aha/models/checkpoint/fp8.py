"""Block-scaled FP8 weights, as DeepSeek releases them.

E4M3 with one float32 scale per 128 x 128 block (V3 section 3.3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128
SCALE_SUFFIX = "_scale_inv"
E4M3_MAX = 448.0


def has_scale(dtype: str) -> bool:
    """Whether a tensor of this safetensors type comes with block scales."""
    return dtype == "F8_E4M3"


def scales_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """One scale per block; blocks at the edges may be partial."""
    return tuple(-(-size // BLOCK) for size in shape)


def dequantize(weight_XY: Tensor, scale_inv: Tensor) -> Tensor:
    """Weight times the scale of its block, float32. Blocks at the right and bottom edges may be partial.

    Raises:
        ValueError: where there is not one scale per block.
    """
    rows, columns = weight_XY.shape
    expected = scales_shape((rows, columns))
    if tuple(scale_inv.shape) != expected:
        raise ValueError(f"scales of a {rows} x {columns} weight must be {expected}, got {tuple(scale_inv.shape)}")
    scale_XY = scale_inv.float().repeat_interleave(BLOCK, 0)[:rows].repeat_interleave(BLOCK, 1)[:, :columns]
    return weight_XY.float() * scale_XY


def quantize(weight_XY: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the E4M3 weight and its scales; the largest magnitude of each block maps to 448."""
    rows, columns = weight_XY.shape
    padded = F.pad(weight_XY.float(), (0, -columns % BLOCK, 0, -rows % BLOCK))
    blocks = padded.unflatten(0, (-1, BLOCK)).unflatten(2, (-1, BLOCK))
    scale = blocks.abs().amax(dim=(1, 3)).clamp(min=1e-12) / E4M3_MAX
    scaled = (blocks / scale[:, None, :, None]).flatten(2, 3).flatten(0, 1)[:rows, :columns]
    return scaled.to(torch.float8_e4m3fn), scale
