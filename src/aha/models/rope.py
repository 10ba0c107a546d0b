"""Rotary positions on interleaved pairs or on halves, with YaRN (V3 section 4.3) and Llama 3's scaling.

DeepSeek's pairs are (x0, x1), (x2, x3), ... as in the released weights, so one position's rotation is a product of
complex numbers. The inverse rotation is the product with the conjugate, which is also the gradient.

The dense families pair a head's first half with its second: (x0, x_K/2), (x1, x_K/2+1), ... With x' the head with its
halves exchanged, the rotation is x * (cos, cos) + x' * (-sin, sin), and the same with -sin for sin is the gradient.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from aha.models.config.base import Llama3Scaling, ModelConfig, RopeScaling
from aha.models.config.deepseek_v3 import DeepseekV3Config


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


def _cos_sin_factor(scaling: RopeScaling | Llama3Scaling | None) -> float:
    if not isinstance(scaling, RopeScaling):
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return yarn_mscale(scaling.factor, scaling.mscale) / yarn_mscale(scaling.factor, scaling.mscale_all_dim)
    return yarn_mscale(scaling.factor, 1.0)


def inverse_frequencies(config: ModelConfig) -> Tensor:
    """Angles per position, in radians, of the R/2 pairs: theta^(-2i/R), divided by scaling where they turn rarely."""
    dim, theta, scaling = config.rope_dim, config.rope_theta, config.rope_scaling
    plain = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim)
    if scaling is None:
        return plain
    kept = _llama3_kept(plain, scaling) if isinstance(scaling, Llama3Scaling) else _yarn_kept(dim, theta, scaling)
    return plain / scaling.factor * (1 - kept) + plain * kept


def _yarn_kept(dim: int, theta: float, yarn: RopeScaling) -> Tensor:
    """How much of each frequency YaRN keeps, 0 to 1: linear in the pair's number."""

    def pair_with(rotations: float) -> float:
        return dim * math.log(yarn.original_max_position_embeddings / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_with(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_with(yarn.beta_slow)), dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float32, device="cpu") - low) / max(high - low, 0.001)
    return 1 - ramp.clamp(0, 1)


def _llama3_kept(plain: Tensor, scaling: Llama3Scaling) -> Tensor:
    """How much of each frequency Llama 3's scaling keeps, 0 to 1: linear in its rotations in the original context."""
    rotations = plain * (scaling.original_max_position_embeddings / (2 * math.pi))
    width = scaling.high_freq_factor - scaling.low_freq_factor
    return ((rotations - scaling.low_freq_factor) / width).clamp(0, 1)


class Rope:
    """The table of rotations exp(i * position * frequency), grown as longer sequences are seen.

    Not part of the weights.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._frequencies = inverse_frequencies(config)
        self._factor = _cos_sin_factor(config.rope_scaling)
        self._tables: dict[torch.device, Tensor] = {}
        self._outgrown: list[Tensor] = []
        """Too short tables: recorded CUDA graphs read them on. As sizes double, all are less than one more."""

    def table(self, length: int, device: torch.device) -> Tensor:
        """Rotations of positions 0 to at least `length` - 1 as complex64 [positions, R/2]."""
        table = self._tables.get(device)
        if table is None or table.shape[0] < length:
            with torch.inference_mode(False):  # a table made while generating serves training as well
                table = self._make(max(256, 1 << (length - 1).bit_length())).to(device)
            if device in self._tables:
                self._outgrown.append(self._tables[device])
            self._tables[device] = table
        return table

    def _make(self, rows: int) -> Tensor:
        angles = torch.outer(torch.arange(rows, dtype=torch.float32, device="cpu"), self._frequencies)
        return torch.complex(angles.cos() * self._factor, angles.sin() * self._factor)

    def at(self, positions_N: Tensor, length: int) -> Tensor:
        """Rotations of the given positions, all below `length`: complex64 [N, R/2]."""
        return self.table(length, positions_N.device).index_select(0, positions_N)


class HalvesRope(Rope):
    """The same for heads whose halves are paired: (cos, cos) and (-sin, sin), float32 [positions, 2, K]."""

    def _make(self, rows: int) -> Tensor:
        cis = super()._make(rows)
        cos, sin = cis.real, cis.imag
        return torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)], 1)


class _RotateHalves(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NHK: Tensor, rotations_N2K: Tensor) -> Tensor:
        ctx.save_for_backward(rotations_N2K)
        cos_N1K, sin_N1K = rotations_N2K.split(1, dim=1)
        return (x_NHK * cos_N1K).addcmul_(x_NHK.roll(x_NHK.shape[-1] // 2, -1), sin_N1K)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NHK: Tensor) -> tuple[Tensor, None]:
        (rotations_N2K,) = ctx.saved_tensors
        cos_N1K, sin_N1K = rotations_N2K.split(1, dim=1)
        rolled_NHK = grad_NHK.roll(grad_NHK.shape[-1] // 2, -1)
        return (grad_NHK * cos_N1K).addcmul_(rolled_NHK, sin_N1K, value=-1), None


def rotate_halves(x_NHK: Tensor, rotations_N2K: Tensor) -> Tensor:
    """Rotates all of every head by its token's rotation (of `HalvesRope`), differentiably; in float32 at least."""
    wide = x_NHK.to(torch.promote_types(x_NHK.dtype, torch.float32))
    rotated: Tensor = _RotateHalves.apply(wide, rotations_N2K)
    return rotated.to(x_NHK.dtype)


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
