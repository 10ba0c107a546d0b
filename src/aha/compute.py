"""Where models compute and in what numbers: one setting for every stage and every command. No torch here."""

from __future__ import annotations

from typing import Literal

from aha.configuration import Config, Field


class ComputeConfig(Config):
    """Device and numbers of a model's weights and activations."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to compute; auto takes GPUs if present")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of weights and activations; auto is bfloat16 on CUDA and float32 on CPUs; with bfloat16 the "
        "optimizer keeps float32 weights beside",
    )
