"""Training that goes wrong without an error: said at once, stopped after a while, never published."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import Any

from torch import Tensor

from aha.errors import DivergedError
from aha.models.checkpoint.hf import is_finite

JUMP = 3.0
"""How many times its recent mean a loss has to be to count as a jump."""
RECENT = 20
"""Steps over which the loss is compared, and over which a gradient of zero is worth a word."""


class Divergence:
    """Watches the metrics of each step.

    Args:
        name: of the stage.
        most_skipped: updates in a row without a finite gradient after which training stops.
        notify: is told each kind of warning once.
    """

    def __init__(self, name: str, most_skipped: int, notify: Callable[[str], None]) -> None:
        self._name, self._most, self._notify = name, most_skipped, notify
        self.skipped = 0
        """Steps in a row whose update was skipped. What stands now may be spoiled, so it is not kept."""
        self._still = 0
        self._losses: list[float] = []
        self._said: set[str] = set()

    def see(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Takes in a step's metrics.

        Raises:
            DivergedError: too many updates in a row were skipped.
        """
        self.skipped = self.skipped + 1 if metrics.get("skipped") else 0
        if self.skipped == 1:
            self._say(
                "skipped",
                f"the gradient of step {step} is not finite, so its update is skipped; after {self._most} such steps "
                "in a row training stops",
            )
        if self.skipped >= self._most:
            raise DivergedError(
                f"{self._name}: the gradients of {self.skipped} steps in a row, up to step {step}, are not finite: the "
                "weights have diverged. Lower optimizer.adam_lr and optimizer.muon_lr or raise optimizer.warmup_steps; "
                "a checkpoint from before is kept, and nothing is published"
            )
        self._still = self._still + 1 if metrics.get("grad_norm") == 0.0 and not self.skipped else 0
        if self._still == RECENT:
            self._say("still", f"the gradient has been zero for {RECENT} steps, up to step {step}: nothing is learnt")
        self._watch_loss(step, metrics.get("loss"))

    def _watch_loss(self, step: int, loss: Any) -> None:
        """A loss that jumps, where losses are far from zero: those of policies are not."""
        if not isinstance(loss, float) or not math.isfinite(loss):
            return
        recent = self._losses
        if len(recent) == RECENT and min(recent) > 0.1 and loss > JUMP * fmean(recent):
            self._say(
                "jump",
                f"the loss of step {step} is {loss:.3g}, after {fmean(recent):.3g} on average in the {RECENT} steps "
                "before; if it does not come down again, lower the learning rate",
            )
        self._losses = [*recent, loss][-RECENT:]

    def _say(self, kind: str, words: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self._notify(f"{self._name}: warning: {words}")


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that holds a NaN or an infinity; None where all are finite."""
    for name, tensor in tensors:
        if tensor.is_floating_point() and not is_finite(tensor):
            return name
    return None
