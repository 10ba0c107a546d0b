"""Muon for matrices, AdamW for the rest, as one optimizer whose whole state is named tensors.

V3 4.2 trains with AdamW (beta 0.9/0.95, weight decay 0.1, clip 1.0). At laptop scale Muon on the matrices is clearly
ahead at equal steps, so it is the default for pretraining there; `muon_lr = 0` leaves everything to AdamW.

Parameters in bfloat16 or float16 have float32 master weights here, and their gradients add up in float32 over
micro-batches: steps and sums that bfloat16 would round away.

Where a parameter is several matrices in one (gate and up; queries, keys and values), its module says which rows are
whose (`fused_rows`, by the parameter's name there), and Muon takes each matrix on its own.

Of parameters that are spread over processes (`aha.models.sharded_tensors`) each process updates the rows that it has:
its moments and master weights are of these alone. Only Muon gathers, one matrix at a time, because it needs whole ones.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from aha.configuration import Config
from aha.models.language_model import LanguageModel
from aha.models.sharded_tensors import copy_into, full, is_sharded, like, local, local_rows, replica_group, total_norm
from aha.training.distributed import Distributed

NARROW = (torch.bfloat16, torch.float16)
SHARED_AT_ONCE = 1 << 24
"""Numbers of Muon's updates that processes exchange in one message: more would only be held longer."""


class OptimizerConfig(Config):
    """Learning rates and their schedule."""

    adam_lr: float = Field(3e-3, gt=0, description="peak learning rate of AdamW")
    muon_lr: float = Field(0.02, ge=0, description="peak learning rate of Muon on matrices; 0 trains them with AdamW")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW first-moment decay (V3 4.2: 0.9)")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW second-moment decay (V3 4.2: 0.95)")
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's momentum (Nesterov)")
    weight_decay: float = Field(0.1, ge=0, description="decoupled weight decay on matrices (V3 4.2: 0.1)")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the whole gradient (V3 4.2: 1.0)")
    warmup_steps: int = Field(20, ge=0, description="steps of linear warm-up from 0")
    schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="decay after `decay_from`")
    decay_from: float = Field(0.5, ge=0, le=1, description="share of the steps after which the decay begins")
    most_skipped: int = Field(
        10, gt=0, description="updates in a row that may be skipped because their gradient is not finite"
    )
    final_lr: float = Field(0.05, ge=0, le=1, description="learning rate at the last step, as a share of the peak")


def schedule_factor(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """The learning rate at a step (from 0), as a share of the peak; `final_lr` at the last, total_steps - 1."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    start = max(config.warmup_steps, int(config.decay_from * total_steps))
    if config.schedule == "constant" or step < start:
        return 1.0
    left = total_steps - 1 - start
    progress = min(1.0, (step - start) / left) if left > 0 else 1.0
    shape = 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.final_lr + (1.0 - config.final_lr) * shape


def orthogonalize(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Newton-Schulz iteration towards U V^T of each matrix in a batch [..., M, N], in fp32.

    Quintic coefficients of Muon (Jordan et al. 2024): singular values end near 1, not exactly at 1.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    # Written into the same buffers each time: with small batches new ones would cost a fifth of Muon's work.
    gram, scaled, polynomial = (x.new_empty(*x.shape[:-1], x.shape[-2]) for _ in range(3))
    moved = torch.empty_like(x)
    for _ in range(iterations):
        torch.matmul(x, x.mT, out=gram)
        torch.matmul(torch.mul(gram, c, out=scaled), gram, out=polynomial)
        polynomial += gram.mul_(b)
        torch.matmul(polynomial, x, out=moved)
        x.mul_(a).add_(moved)  # a x + (b G + c G G) x with G = x x^T
    return x.mT if tall else x


def _muon_direction(matrix: Tensor, parameter: Tensor, rows: Sequence[int]) -> Tensor:
    """Muon's update of this process's rows of a matrix that is spread as its parameter is, before the learning rate.

    Stacked matrices, such as experts, are whole in the process that has them; of others all rows are gathered.

    Args:
        matrix: the momentum, [M, N] or stacked [..., M, N].
        parameter: the whole one.
        rows: of each of the matrices that lie one below the other in it; they are M together.
    """
    if not is_sharded(parameter) or parameter.dim() > 2:
        return _by_pieces(matrix, rows)
    return _by_pieces(full(like(matrix, parameter)), rows)[local_rows(parameter)]


def _by_pieces(matrix: Tensor, rows: Sequence[int]) -> Tensor:
    """Each piece orthogonalized, and scaled by its own shape as Muon scales a matrix: sqrt(max(1, M / N))."""
    pieces = matrix.split(list(rows), dim=-2)
    return torch.cat([orthogonalize(x) * max(1.0, x.shape[-2] / x.shape[-1]) ** 0.5 for x in pieces], dim=-2)


def trains_with_muon(name: str, parameter: Tensor) -> bool:
    """Matrices of the blocks; not embeddings, heads, a reward model's score, routers, norms, adapters."""
    others = ("embed", "lm_head", "score.", "mlp.gate.", "norm", "lora_")
    return parameter.dim() >= 2 and not any(part in name for part in others)


def _fused_rows(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of parameters that are several matrices, one below the other, the rows of each: modules say so."""
    return {
        f"{prefix}.{name}".removeprefix("."): rows
        for prefix, module in model.named_modules()
        for name, rows in getattr(module, "fused_rows", {}).items()
    }


def _rows_in_use(model: nn.Module, named: Mapping[str, Tensor]) -> dict[str, int]:
    """How many rows of embeddings and heads are tokens: weight decay must not touch those that pad a vocabulary."""
    rows = {
        id(weight): part.num_tokens
        for part in model.modules()
        if isinstance(part, LanguageModel)
        for weight in (part.embed_tokens.weight, part.lm_head.weight)
    }
    return {name: rows[id(parameter)] for name, parameter in named.items() if id(parameter) in rows}


def _fair_share(work: Mapping[str, int], distributed: Distributed) -> set[str]:
    """The matrices that this process orthogonalizes: the largest first, each to whoever has least to do."""
    loads = [0] * distributed.world_size
    own = set()
    for name, cost in sorted(work.items(), key=lambda item: (-item[1], item[0])):
        rank = loads.index(min(loads))
        loads[rank] += cost
        if rank == distributed.rank:
            own.add(name)
    return own


def _work(matrix: Tensor, rows: Sequence[int]) -> int:
    """What orthogonalizing the pieces costs, up to a factor."""
    width = matrix.shape[-1]
    return matrix[..., 0, 0].numel() * sum(count * width * min(count, width) for count in rows)


class Optimizer:
    """Updates a model's parameters in place from their gradients.

    Args:
        model: its parameters that require gradients are trained.
        config: rates and schedule.
        total_steps: for the schedule.
        distributed: all processes, which must step together: they share Muon's work on matrices that each has whole.
        apart: the beginning of names whose gradients are clipped by a norm of their own, so that they do not touch the
            others' steps; empty: none.
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        total_steps: int,
        distributed: Distributed | None = None,
        apart: str = "",
    ) -> None:
        self.config = config
        self.total_steps = total_steps
        self._distributed = distributed or Distributed()
        self._apart = apart
        self.steps = 0
        self._named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._master = {n: local(p).detach().float() for n, p in self._named.items() if p.dtype in NARROW}
        self._wide_grad: dict[str, Tensor] = {}
        for name in self._master:
            self._named[name].register_post_accumulate_grad_hook(functools.partial(self._widen, name))
        trained: dict[str, Tensor] = {name: self._master.get(name, local(p)) for name, p in self._named.items()}
        self._muon = {n: p for n, p in trained.items() if config.muon_lr and trains_with_muon(n, p)}
        self._adam = {n: p for n, p in trained.items() if n not in self._muon}
        fused = _fused_rows(model)
        self._rows = {n: fused.get(n, (p.shape[-2],)) for n, p in self._named.items() if n in self._muon}
        """Of each of Muon's parameters, the rows of the matrices that it is made of."""
        work = {n: _work(p, self._rows[n]) for n, p in self._muon.items() if not is_sharded(self._named[n])}
        self._elsewhere = work.keys() - _fair_share(work, self._distributed)
        """Matrices whose updates other processes compute."""
        self._momentum = {n: torch.zeros_like(p) for n, p in self._muon.items()}
        used = _rows_in_use(model, self._named)
        starts = {n: local_rows(self._named[n]).start for n in used}
        self._decayed = {
            n: p.detach()[: max(0, used[n] - starts[n]) if n in used else None]
            for n, p in self._adam.items()
            if p.dim() >= 2
        }
        # Decoupled decay is ours to apply, on the rows that are in use; AdamW without decay is Adam.
        betas = (config.beta1, config.beta2)
        on_cuda = any(p.is_cuda for p in self._adam.values())
        self._adamw = torch.optim.AdamW(
            [*self._adam.values()] or [torch.zeros(0)],
            config.adam_lr,
            betas,
            weight_decay=0.0,
            foreach=not on_cuda,
            fused=on_cuda,
        )

    @property
    def parameters(self) -> list[Tensor]:
        """All trained parameters, in a fixed order; of narrow ones the master weights, of spread ones the rows here."""
        return [*self._muon.values(), *self._adam.values()]

    def _widen(self, name: str, parameter: Tensor) -> None:
        """Adds a narrow parameter's new gradient to its float32 sum."""
        assert parameter.grad is not None
        if name in self._wide_grad:
            self._wide_grad[name].add_(local(parameter.grad))
        else:
            self._wide_grad[name] = local(parameter.grad).float()
        parameter.grad = None

    def _gradient(self, name: str) -> Tensor | None:
        if name in self._master:
            return self._wide_grad.get(name)
        gradient = self._named[name].grad
        return None if gradient is None else local(gradient)

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        self._wide_grad.clear()
        for parameter in (*self._named.values(), *self._adam.values()):
            parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """All gradients, in the order of `parameters`; zeros where this process's batch did not reach a parameter."""
        for name, parameter in self._named.items():
            if self._gradient(name) is None:
                if name in self._master:
                    self._wide_grad[name] = torch.zeros_like(self._master[name])
                else:
                    parameter.grad = torch.zeros_like(parameter)
        return list(self._present().values())

    def sum_gradients(self, distributed: Distributed, *beside: Tensor) -> None:
        """Sums the gradients over the processes that hold the same rows; FSDP has done so for those it shards.

        Args:
            distributed: all processes.
            beside: further tensors to be summed over all of them, in the same message.
        """
        gradients = dict(zip((*self._muon, *self._adam), self.gradients(), strict=True))
        plain = [gradient for name, gradient in gradients.items() if not is_sharded(self._named[name])]
        distributed.all_reduce_sum([*plain, *beside])
        groups = {name: group for name in gradients if (group := replica_group(self._named[name])) is not None}
        for group in dict.fromkeys(groups.values()):
            distributed.all_reduce_sum([gradients[name] for name in groups if groups[name] is group], group)

    def _present(self) -> dict[str, Tensor]:
        found = {name: self._gradient(name) for name in (*self._muon, *self._adam)}
        return {name: gradient for name, gradient in found.items() if gradient is not None}

    @torch.no_grad()
    def step(self) -> tuple[float, float, bool]:
        """Clips, then updates every parameter; a gradient that is not finite changes nothing but the step count.

        Returns:
            The gradient's norm before clipping (without what is apart), AdamW's learning rate, and whether the update
            took place.
        """
        factor = schedule_factor(self.config, self.steps, self.total_steps)
        rate = self.config.adam_lr * factor
        self.steps += 1
        present = self._present()
        if not present:
            return 0.0, rate, False
        others = {name: present.pop(name) for name in list(present) if self._apart and name.startswith(self._apart)}
        norm = self._clip(present)
        if not math.isfinite(norm):
            return norm, rate, False
        if others and not math.isfinite(self._clip(others)):
            torch._foreach_zero_(list(others.values()))
        self._muon_step(self.config.muon_lr * factor)
        self._adam_step(rate)
        self._narrow()
        return norm, rate, True

    def _clip(self, gradients: Mapping[str, Tensor]) -> float:
        """Scales gradients down to the largest norm, all together; returns what their norm was."""
        if not gradients:
            return 0.0
        norm = float(total_norm(torch._foreach_norm(list(gradients.values())), [self._named[n] for n in gradients]))
        if math.isfinite(norm) and norm > self.config.clip_norm:
            torch._foreach_mul_(list(gradients.values()), self.config.clip_norm / norm)
        return norm

    def _narrow(self) -> None:
        """Rounds the master weights to what the model computes with."""
        for name, master in self._master.items():
            local(self._named[name]).copy_(master)

    def _muon_step(self, lr: float) -> None:
        shared: dict[str, Tensor] = {}
        for name in self._muon:
            gradient = self._gradient(name)
            if gradient is None:
                continue
            momentum = self._momentum[name].lerp_(gradient, 1.0 - self.config.momentum)
            if name in self._elsewhere:
                update = torch.zeros_like(gradient)
            else:
                update = gradient.lerp(momentum, self.config.momentum)
                update = _muon_direction(update, self._named[name], self._rows[name])
            if self._distributed.world_size == 1 or is_sharded(self._named[name]):
                self._muon_update(name, update, lr)
                continue
            shared[name] = update
            if sum(map(torch.numel, shared.values())) >= SHARED_AT_ONCE:
                self._share_updates(shared, lr)
        self._share_updates(shared, lr)

    def _share_updates(self, updates: dict[str, Tensor], lr: float) -> None:
        """Sums updates over the processes, each computed by one and zero in the others, and applies them."""
        self._distributed.all_reduce_sum(list(updates.values()))
        for name, update in updates.items():
            self._muon_update(name, update, lr)
        updates.clear()

    def _muon_update(self, name: str, update: Tensor, lr: float) -> None:
        self._muon[name].mul_(1.0 - lr * self.config.weight_decay).add_(update, alpha=-lr)

    def _adam_step(self, lr: float) -> None:
        for name, parameter in self._adam.items():
            parameter.grad = self._gradient(name)
        if self.config.weight_decay:
            decayed = [matrix for name, matrix in self._decayed.items() if self._adam[name].grad is not None]
            if decayed:
                torch._foreach_mul_(decayed, 1.0 - lr * self.config.weight_decay)
        self._adamw.param_groups[0]["lr"] = lr
        self._adamw.step()

    def _moments(self, name: str) -> dict[str, Tensor]:
        """AdamW's state of a parameter; zeros before its first step."""
        state, parameter = self._adamw.state[self._adam[name]], self._adam[name]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state

    def state(self) -> dict[str, Tensor]:
        """All moments and master weights by name, for a checkpoint; `steps` is the caller's to save.

        They share memory with the optimizer's, and are spread over processes as their parameters are.
        """
        moments = {name: self._moments(name) for name in self._adam}
        groups = {"momentum": self._momentum, "master": self._master}
        groups |= {key: {name: moments[name][key] for name in moments} for key in ("exp_avg", "exp_avg_sq")}
        spread = {
            f"{group}.{name}": like(tensor, self._named[name])
            for group, tensors in groups.items()
            for name, tensor in tensors.items()
        }
        return spread | {f"step.{name}": moments[name]["step"] for name in moments}

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Restores what `state` gave."""
        for name, tensor in self.state().items():
            copy_into(tensor, tensors[name])
        self.steps = steps
