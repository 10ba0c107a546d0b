"""LoRA (arXiv 2106.09685): low-rank additions to the linear layers of a model whose own weights stay as they are.

y = W x + s B A x, with s = alpha / r, or alpha / sqrt(r) (rsLoRA, arXiv 2312.03732). Adapters are named as in the
checkpoint: `q_proj` is one block of rows of our fused `qkv_proj`, so it has matrices of its own there, as peft does it.
Training and decoding on a model's weights run the two small products beside the large one; the packed decoders, an
export and other engines take `effective_weight`, the merged matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from aha.configuration import Config
from aha.models.sharded_tensors import full


class LoRAConfig(Config):
    """Which linear layers get adapters, and of what size."""

    r: int = Field(16, gt=0, description="rank of the adapters")
    alpha: float = Field(32.0, gt=0, description="scale of the adapters, before the division by r")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the adapters' inputs dropped in training")
    rslora: bool = Field(False, description="divide alpha by sqrt(r) instead of r")
    target_modules: tuple[str, ...] = Field(
        (), description="last names of the adapted layers, such as q_proj; none: all of attention and feed-forward"
    )

    @property
    def scale(self) -> float:
        """s: the factor on B A."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)


class Block(NamedTuple):
    """Rows [start, stop) of one of our linear layers, which are one linear layer of the checkpoint."""

    hf_name: str
    """Its full name there, such as model.layers.0.self_attn.q_proj."""
    start: int
    stop: int

    @property
    def leaf(self) -> str:
        """The last part of its name, such as q_proj."""
        return self.hf_name.rpartition(".")[2]


class LoRALinear(nn.Linear):
    """A linear layer with adapters on some of its blocks. Its weight and bias are frozen and keep their names.

    Args:
        linear: whose weight and bias it takes over.
        blocks: all of its blocks, in the order of rows.
        adapted: the leaves that get adapters.
        config: their size.
    """

    def __init__(self, linear: nn.Linear, blocks: list[Block], adapted: frozenset[str], config: LoRAConfig) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.blocks, self.config, self.active = blocks, config, True
        weight = linear.weight
        chosen = [block for block in blocks if block.leaf in adapted]
        self.lora_A = nn.ParameterDict({b.leaf: weight.new_empty(config.r, linear.in_features) for b in chosen})
        self.lora_B = nn.ParameterDict({b.leaf: weight.new_zeros(b.stop - b.start, config.r) for b in chosen})

    @torch.no_grad()
    def init_adapters(self, generator: torch.Generator) -> None:
        """As peft does: A uniform within 1 / sqrt(fan-in), B zero, so that training starts from the base."""
        bound = 1 / math.sqrt(self.in_features)
        for name, matrix in self.lora_A.items():
            drawn = torch.empty(matrix.shape).uniform_(-bound, bound, generator=generator)
            matrix.copy_(drawn)
            self.lora_B[name].zero_()

    def forward(self, input: Tensor) -> Tensor:
        """The layer with its adapters, or without while they are off."""
        y = super().forward(input)
        if not self.active:
            return y
        dropped = F.dropout(input, self.config.dropout, training=self.training and torch.is_grad_enabled())
        return y + self.config.scale * torch.cat([self._delta(block, dropped) for block in self.blocks], dim=-1)

    def _delta(self, block: Block, x: Tensor) -> Tensor:
        if block.leaf not in self.lora_A:
            return x.new_zeros(*x.shape[:-1], block.stop - block.start)
        return F.linear(F.linear(x, self.lora_A[block.leaf]), self.lora_B[block.leaf])

    @torch.no_grad()
    def merged(self) -> Tensor:
        """W + s B A, computed in float32 at least."""
        weight = full(self.weight)
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True)
        for block in self.blocks:
            if block.leaf in self.lora_A:
                a, b = (full(pair[block.leaf]).to(wide.dtype) for pair in (self.lora_A, self.lora_B))
                wide[block.start : block.stop].addmm_(b, a, alpha=self.config.scale)
        return wide.to(weight.dtype)


def effective_weight(linear: nn.Linear) -> Tensor:
    """The matrix that the layer multiplies by: its weight, with active adapters merged in (then a new tensor)."""
    return linear.merged() if isinstance(linear, LoRALinear) and linear.active else linear.weight


def adapted_layers(model: nn.Module) -> Iterator[LoRALinear]:
    """The layers that have adapters."""
    return (module for module in model.modules() if isinstance(module, LoRALinear))
