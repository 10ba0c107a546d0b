"""The loop around the steps, the same for every training stage: resume, step, log, show, save."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from aha.training.checkpointer import Saved
from aha.training.divergence import Divergence
from aha.training.stage import StageContext
from aha.training.update import Update


class TrainingLoop(ABC):
    """Runs the steps that are left; subclasses say what a step is.

    Args:
        context: of the stage.
        update: what moves the weights.
        steps: of the whole stage.
        log_every: steps between rows in metrics.jsonl; the last step always has one.

    Attributes:
        num_tokens: tokens that went through the model so far, of all processes, prompts included.
    """

    VISIBLE: ClassVar[tuple[str, ...]] = ("loss",)
    """Metrics beside the progress bar."""

    def __init__(self, context: StageContext, update: Update, steps: int, log_every: int = 1) -> None:
        self.context, self.update, self.steps, self.log_every = context, update, steps, log_every
        self.num_tokens = 0
        self._divergence = Divergence(context.name, update.optimizer.config.most_skipped, context.progress.notify)

    def train(self) -> None:
        """Goes on from the last checkpoint, or begins.

        Raises:
            DivergedError: the gradients of many steps in a row were not finite.
        """
        context = self.context
        saved = context.checkpointer.load()
        start = 0 if saved is None else self._restore(saved)
        if saved is None:
            self.between_steps(0)
        with context.progress.task(context.name, self.steps, start) as task:
            for step in range(start, self.steps):
                metrics = self.step(step) | {"num_tokens": float(self.num_tokens)}
                if step % self.log_every == 0 or step + 1 == self.steps:
                    context.metrics.write({"step": step, **metrics})
                self._divergence.see(step, metrics)
                self.between_steps(step + 1)
                task.update(step + 1, {name: metrics[name] for name in self.VISIBLE if name in metrics})
                if not self._divergence.skipped and context.checkpointer.due():
                    context.checkpointer.save(step + 1, *self.state())

    @abstractmethod
    def step(self, step: int) -> dict[str, Any]:
        """One step on the global batch; returns its metrics. Adds the batch's tokens to `num_tokens`."""

    def between_steps(self, done: int) -> None:  # noqa: B027 (a hook: nothing by default)
        """What is measured, said or kept when `done` steps are done; 0 before the first."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON for a checkpoint: all that the next step depends on."""
        tensors, counters = self.update.state()
        return tensors, counters | {"num_tokens": self.num_tokens}

    def load_state(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Restores what `state` gave."""
        self.update.load_state(tensors, state)
        self.num_tokens = state["num_tokens"]

    def _restore(self, saved: Saved) -> int:
        self.load_state(saved.tensors, saved.state)
        return saved.step
