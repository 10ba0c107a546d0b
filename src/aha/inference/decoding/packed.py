"""The decode step for small models on a CPU, in as few operations as possible: what all families share.

At one token per row a small model's time goes into starting operations, not into arithmetic. So weights are packed
once per version, with norm weights and softmax scale multiplied into the next matrix, and one workspace per batch size
is written over and over. DeepSeek-V3's own part is in `latent_packed.py`, the dense families' in `dense_packed.py`.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from aha.models.language_model import LanguageModel
from aha.models.layers import RMSNorm, SwiGLU
from aha.models.lora_linear import effective_weight

MAX_PACKED_BYTES = 1 << 30
"""Larger models are bound by memory, not by starting operations, and should not be held twice."""

_VERSION = operator.attrgetter("_version")


class _OptimizerSteps:
    """Counts steps of PyTorch's optimizers: the fused ones change weights without changing their version."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *_: object) -> None:
        self.count += 1


_optimizer_steps = _OptimizerSteps()
register_optimizer_step_post_hook(_optimizer_steps)


def can_pack(model: nn.Module) -> bool:
    """Whether a model is small, on the CPU and in float32."""
    parameters = list(model.parameters())
    size = sum(p.numel() * p.element_size() for p in parameters)
    return size <= MAX_PACKED_BYTES and all(p.is_cpu and p.dtype == torch.float32 for p in parameters)


class Normalizer:
    """x / sqrt(sum(x^2) + D eps): an RMSNorm whose factor sqrt(D) * weight is in the next matrix (see `fold`)."""

    def __init__(self, width: int, eps: float) -> None:
        self.floor = torch.tensor(math.sqrt(width * eps))

    def __call__(self, x: Tensor, out: Tensor, norm: Tensor) -> None:
        """Writes x normalised to `out`; `norm` [B, 1] is overwritten."""
        torch.linalg.vector_norm(x, 2, -1, True, out=norm)
        torch.div(x, norm.hypot_(self.floor), out=out)


def fold(norm: RMSNorm, weight_XD: Tensor) -> Tensor:
    """The matrix [D, X] that makes of a `Normalizer`'s output what `weight` makes of the norm's."""
    return (weight_XD * (norm.weight * math.sqrt(norm.weight.numel()))).t().contiguous()


class Workspace:
    """Buffers of one batch size, with the views that the steps use."""

    def __init__(self, batch: int, width: int) -> None:
        self.norm_B1 = torch.empty(batch, 1)
        self.normed_BD = torch.empty(batch, width)


class PackedSwiGLU:
    """A dense feed-forward layer behind its norm."""

    def __init__(self, mlp: SwiGLU, norm: RMSNorm) -> None:
        self.normalize = Normalizer(norm.weight.numel(), norm.eps)
        self.gate_up = fold(norm, effective_weight(mlp.gate_up_proj))
        self.down = effective_weight(mlp.down_proj).t().contiguous()

    def step(self, x_BD: Tensor, work: Workspace) -> None:
        """Adds its output to x in place."""
        self.normalize(x_BD, work.normed_BD, work.norm_B1)
        gate, up = torch.mm(work.normed_BD, self.gate_up).chunk(2, dim=-1)
        x_BD.addmm_(F.silu(gate).mul_(up), self.down)


W = TypeVar("W", bound=Workspace)


class PackedModel(ABC, Generic[W]):
    """What packed decoders share: knowing when they are stale, workspaces, the final norm and the head."""

    def __init__(self, model: LanguageModel) -> None:
        self._parameters = [p for p in model.parameters() if not p.is_inference()]
        self._version = self._current_version()
        self._normalize = Normalizer(model.config.hidden_size, model.norm.eps)
        self._head = fold(model.norm, model.head_weight)
        self._workspaces: dict[int, W] = {}

    @abstractmethod
    def _new_workspace(self, batch: int) -> W: ...

    def is_stale(self) -> bool:
        """Whether a parameter was changed in place since the weights were packed.

        Seen are operations that PyTorch records, and steps of its optimizers. After others, such as a collective that
        writes into parameters, call the model's `weights_replaced`.
        """
        return self._version != self._current_version()

    def workspace(self, batch: int) -> W:
        """The buffers of a batch size."""
        if batch not in self._workspaces:
            if len(self._workspaces) >= 64:
                self._workspaces.clear()
            self._workspaces[batch] = self._new_workspace(batch)
        return self._workspaces[batch]

    def logits(self, x_BD: Tensor, work: W) -> Tensor:
        """Final norm and head, [B, V]."""
        self._normalize(x_BD, work.normed_BD, work.norm_B1)
        return torch.mm(work.normed_BD, self._head)

    def _current_version(self) -> int:
        return sum(map(_VERSION, self._parameters)) + _optimizer_steps.count
