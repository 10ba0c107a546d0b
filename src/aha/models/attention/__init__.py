"""Attention of flattened tokens: one door, and a backend for each kind of device behind it."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from aha.models.attention.cpu import attend_fused
from aha.models.attention.padded import attend_padded
from aha.models.attention.varlen import attend_varlen, serves
from aha.models.layouts import Layout


def attend(
    q_NHK: Float[Tensor, "N H K"],
    k_NJK: Float[Tensor, "N J K"],
    v_NJV: Float[Tensor, "N J V"],
    layout: Layout,
    scale: float,
) -> Float[Tensor, "N H V"]:
    """Causal attention within each segment and over its prefix, differentiable.

    With J < H key and value heads, each serves H / J query heads (grouped-query attention).
    """
    if q_NHK.is_cpu:
        return attend_fused(q_NHK, k_NJK, v_NJV, layout, scale)
    if serves(q_NHK, v_NJV):
        return attend_varlen(q_NHK, k_NJK, v_NJV, layout, scale)
    return attend_padded(q_NHK, k_NJK, v_NJV, layout, scale)
