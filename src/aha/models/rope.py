"""Rotary positions on interleaved pairs, with YaRN (V3 section 4.3).

Pairs are (x0, x1), (x2, x3), ... as in the released weights, so one position's rotation is a product of complex
numbers. The inverse rotation is the product with the conjugate, which is also the gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aha.models.config import DeepseekV3Config, RopeScaling


def yarn_mscale(factor: float, mscale: float) -> float:
    """m(s, a) = 0.1 a ln s + 1, the attention temperature of YaRN (V3 4.3 writes sqrt(t) = 0.1 ln s + 1)."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def softmax_scale(config: DeepseekV3Config) -> float:
    """The factor on q.k: (d_h + d_h^R)^-0.5 of V3 Eq. 10, times the square of m(s, mscale_all_dim) under YaRN.

    As transformers and vLLM do. DeepSeek's demo reads `mscale` instead; the released config sets both to 1.
    """
    scale = config.qk_head_dim**-0.5
    yarn = config.rope_scaling
    if yarn is not None and yarn.mscale_all_dim:
        scale *= yarn_mscale(yarn.factor, yarn.mscale_all_dim) ** 2
    return scale


def _cos_sin_factor(yarn: RopeScaling) -> float:
    if yarn.mscale and yarn.mscale_all_dim:
        return yarn_mscale(yarn.factor, yarn.mscale) / yarn_mscale(yarn.factor, yarn.mscale_all_dim)
    return yarn_mscale(yarn.factor, 1.0)


def inverse_frequencies(config: DeepseekV3Config) -> Tensor:
    """Angles per position, in radians, of the R/2 pairs: theta^(-2i/R), slowed down by YaRN where they turn rarely."""
    dim, theta = config.qk_rope_head_dim, config.rope_theta
    plain = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim)
    yarn = config.rope_scaling
    if yarn is None:
        return plain

    def pair_with(rotations: float) -> float:
        return dim * math.log(yarn.original_max_position_embeddings / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_with(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_with(yarn.beta_slow)), dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float32, device="cpu") - low) / max(high - low, 0.001)
    slow = ramp.clamp(0, 1)
    return plain / yarn.factor * slow + plain * (1 - slow)


class Rope:
    """The table of rotations exp(i * position * frequency), grown as longer sequences are seen.

    Not part of the weights.
    """

    def __init__(self, config: DeepseekV3Config) -> None:
        self._frequencies = inverse_frequencies(config)
        self._factor = 1.0 if config.rope_scaling is None else _cos_sin_factor(config.rope_scaling)
        self._limit = config.max_position_embeddings
        self._tables: dict[torch.device, Tensor] = {}

    def table(self, length: int, device: torch.device) -> Tensor:
        """Rotations of positions 0 to at least `length` - 1 as complex64 [positions, R/2]."""
        table = self._tables.get(device)
        if table is None or table.shape[0] < length:
            with torch.inference_mode(False):  # a table made while generating serves training as well
                table = self._make(max(256, 1 << (length - 1).bit_length())).to(device)
            self._tables[device] = table
        return table

    def _make(self, rows: int) -> Tensor:
        angles = torch.outer(torch.arange(rows, dtype=torch.float32, device="cpu"), self._frequencies)
        return torch.complex(angles.cos() * self._factor, angles.sin() * self._factor)

    def at(self, positions_N: Tensor, length: int) -> Tensor:
        """Rotations of the given positions, all below `length`: complex64 [N, R/2]."""
        return self.table(length, positions_N.device).index_select(0, positions_N)


def rotate_(x: Tensor, cis: Tensor) -> Tensor:
    """Rotates the pairs of the last dimension in place and returns x. `cis` broadcasts against [..., R/2]."""
    if x.dtype == torch.float32 and _viewable_as_complex(x):
        torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(cis)
        return x
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    pairs = torch.view_as_complex(x.to(wide).unflatten(-1, (-1, 2)).contiguous())
    return x.copy_(torch.view_as_real(pairs * cis).flatten(-2))


def _viewable_as_complex(x: Tensor) -> bool:
    even = all(stride % 2 == 0 for stride in x.stride()[:-1]) and x.storage_offset() % 2 == 0
    return even and x.stride(-1) == 1
