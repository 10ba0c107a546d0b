"""Block-scaled FP8 weights, as DeepSeek releases them.

E4M3 with one float32 scale per 128 x 128 block (V3 section 3.3).
"""

from __future__ import annotations

from torch import Tensor

BLOCK = 128
SCALE_SUFFIX = "_scale_inv"


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
