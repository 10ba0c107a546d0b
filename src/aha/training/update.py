"""One optimizer step, as every training stage takes it: pretraining, fine-tuning, reward models, RL.

A process's share of the batch goes through the model in parts, whose gradients add up. What they report is summed over
all processes together with the gradients; then the optimizer steps and the routers' biases follow their load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from aha.models.language_model import LanguageModel
from aha.models.moe import max_violation, update_router_bias
from aha.training.distributed import Distributed
from aha.training.model_state import load_training_state, training_state
from aha.training.optimizer import Optimizer, OptimizerConfig
from aha.training.parallel import ParallelConfig
from aha.training.sharding import dummy_pass, dummy_passes, shard

P = TypeVar("P")
PredictionModules = Literal["frozen", "joint", "beside"]
"""How a stage trains a model's prediction modules."""


@dataclass(frozen=True)
class PassReport:
    """What one forward and backward pass over a part of the batch has to say.

    Attributes:
        sums: scalars that are summed over parts and processes, by name.
        router_counts: tokens that each expert got, [routers, experts]; None without routers.
    """

    sums: Mapping[str, Tensor | float]
    router_counts: Tensor | None = None


@dataclass(frozen=True)
class Stepped:
    """What a step did, over all processes.

    Attributes:
        sums: the parts' sums, by name.
        metrics: `grad_norm` before clipping, `learning_rate` of AdamW, `skipped` (1 where the gradient was not finite
            and nothing was changed) and, of models with routers, `max_vio` and `expert_load`.
    """

    sums: dict[str, float]
    metrics: dict[str, Any]


class Update:
    """Owns the optimizer of a model that is trained.

    Args:
        model: what is trained: a language model, or a module around one. It is spread over the processes here.
        config: rates and schedule.
        total_steps: of the schedule.
        distributed: the processes that share a batch.
        parallel: how the model is spread over them.
        sums: names of what the parts report, for processes that have no part.
        bias_update_rate: gamma of the routers' balance rule; 0 leaves their biases alone.
        prediction_modules: whether passes run these: not at all, so that they are frozen; with the model, whose
            gradient is theirs too, and their routers report; or beside it (see `training.prediction`), clipped apart.
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        total_steps: int,
        distributed: Distributed,
        parallel: ParallelConfig,
        sums: Sequence[str] = ("loss",),
        bias_update_rate: float = 0.0,
        prediction_modules: PredictionModules = "frozen",
    ) -> None:
        self.model, self.distributed, self.parallel = model, distributed, parallel
        backbone = model if isinstance(model, LanguageModel) else model.backbone
        assert isinstance(backbone, LanguageModel)
        self.backbone = backbone
        self.trains_mtp = prediction_modules != "frozen" and bool(backbone.mtp)
        if not self.trains_mtp:
            backbone.mtp.requires_grad_(False)
        shard(backbone, parallel, distributed)
        apart = "mtp." if prediction_modules == "beside" else ""
        self.optimizer = Optimizer(model, config, total_steps, distributed, apart)
        self._sums, self._bias_update_rate = tuple(sums), bias_update_rate
        self._routers = backbone.config.num_moe_layers + (len(backbone.mtp) if prediction_modules == "joint" else 0)
        shape = self._routers, backbone.config.num_experts
        self._load = torch.zeros(shape, dtype=torch.int64, device=distributed.device)
        """What each expert got since the biases last moved."""

    def step(
        self,
        parts: Sequence[P],
        backward: Callable[[P], PassReport],
        matching_backward: Callable[[], None] | None = None,
        balance_routers: bool = True,
    ) -> Stepped:
        """One step on the parts of this process (possibly none), together with all other processes.

        Where no process has a part nothing changes, the schedule included.

        Args:
            parts: of the batch, each as large as one pass takes.
            backward: runs a part forward and backward.
            matching_backward: the passes of a part without data, beside other processes' parts; by default those of
                the model.
            balance_routers: whether the routers' biases follow their load now. Where one rollout feeds several steps
                they do so after the last: until then the experts stay those that the sampler chose by.
        """
        device = self.distributed.device
        self.optimizer.zero_grad()
        missing = dummy_passes(len(parts), self.parallel, self.distributed)
        sums = torch.zeros(1 + len(self._sums), dtype=torch.float64, device=device)
        experts = torch.zeros_like(self._load)
        for part in parts:
            report = backward(part)
            numbers = [1.0, *(report.sums[name] for name in self._sums)]
            sums += torch.stack([torch.as_tensor(number, dtype=torch.float64, device=device) for number in numbers])
            if report.router_counts is not None:
                experts += report.router_counts
        for _ in range(missing):
            (matching_backward or self._matching_backward)()
        self.optimizer.sum_gradients(self.distributed, sums, experts)
        passes, *summed = sums.tolist()
        metrics: dict[str, Any] = {"grad_norm": 0.0, "learning_rate": 0.0, "skipped": 0.0}
        if passes:
            metrics = self._apply(experts, balance_routers)
        return Stepped(dict(zip(self._sums, summed, strict=True)), metrics)

    def _matching_backward(self) -> None:
        dummy_pass(self.backbone, self.trains_mtp).backward()

    def _apply(self, experts: Tensor, balance_routers: bool) -> dict[str, Any]:
        """Moves weights and biases, and says what that took."""
        norm, rate, updated = self.optimizer.step()
        metrics: dict[str, Any] = {"grad_norm": norm, "learning_rate": rate, "skipped": float(not updated)}
        if not experts.any():
            return metrics
        self._load += experts
        if balance_routers:
            if updated and self._bias_update_rate:
                update_router_bias(list(self.backbone.routers())[: self._routers], self._load, self._bias_update_rate)
            self._load.zero_()
        return metrics | {"max_vio": float(max_violation(experts).mean()), "expert_load": experts.tolist()}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and counters for a checkpoint."""
        return training_state(self.model, self.optimizer), {"optimizer_steps": self.optimizer.steps}

    def load_state(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Restores what `state` gave, in place."""
        load_training_state(self.model, self.optimizer, tensors, state["optimizer_steps"])
