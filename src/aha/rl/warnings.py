"""What goes wrong in reinforcement learning without an error: said in words, each once, with what to change."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

STEPS = 10
"""Over so many steps thinking is compared, and so many in a row a state has to last."""
SHRUNK = 2 / 3
"""Of the first steps' thinking, what the last ones' has to fall below."""
WORTHLESS = 0.5
"""The two error rates of verdicts together."""
FEW_VERDICTS = 50
LOW_ENTROPY = 0.01
OFTEN_CUT = 0.3


class Warnings:
    """Watches the metrics of each step. Its whole state is `state`.

    Args:
        notify: is told each kind of warning once.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._said: list[str] = []
        self._in_a_row = {"entropy": 0, "forgotten": 0}
        self._first: list[list[float]] = []
        self._last: list[list[float]] = []

    def see(self, metrics: Mapping[str, Any]) -> None:
        """Takes in a step's metrics and says what is wrong, if it is new."""
        self._remember(metrics)
        for kind, words in self._wrong(metrics):
            if kind not in self._said:
                self._said.append(kind)
                self._notify(f"warning: {words}")

    def _remember(self, metrics: Mapping[str, Any]) -> None:
        pair = [metrics.get(name, math.nan) for name in ("completions/mean_thinking_tokens", "rewards/accuracy/mean")]
        if not any(map(math.isnan, pair)):
            if len(self._first) < STEPS:
                self._first.append(pair)
            else:
                self._last = [*self._last, pair][-STEPS:]
        # A step in which nothing was trained has no entropy.
        low = metrics["tokens_trained"] > 0 and metrics["entropy/trained_tokens"] < LOW_ENTROPY
        for name, holds in (("entropy", low), ("forgotten", metrics["curriculum/forgotten"] > 0)):
            self._in_a_row[name] = self._in_a_row[name] + 1 if holds else 0

    def _wrong(self, metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What is wrong now, by kind."""
        if len(self._last) == STEPS:
            (before, right_before), (now, right_now) = _means(self._first), _means(self._last)
            if now < SHRUNK * before and right_now <= right_before:
                yield (
                    "shrinks",
                    f"thinking shrinks, from {before:.0f} tokens in the first {STEPS} steps to {now:.0f} in the last, "
                    f"and accuracy does not rise ({right_before:.0%} to {right_now:.0%}): the policy learns to give "
                    "up. Ask what it can just solve (prompts.curriculum.start_levels), and let being right count more "
                    "than form (loss.normalize=each with a lower rubric.format)",
                )
        rejects, accepts = (_rate(metrics, name) for name in ("rejects_right", "accepts_wrong"))
        if metrics.get("verdicts/count", 0) >= FEW_VERDICTS and rejects + accepts > WORTHLESS:
            yield (
                "verdicts",
                f"the policy's verdicts on its own attempts say little: it rejects {rejects:.0%} of the right ones "
                f"and accepts {accepts:.0%} of the wrong ones, so that thinking again hardly helps. Pretrain longer, "
                "with more second passes that confirm or repair (pretrain.corpus.second_pass), before thinking is "
                "made to go on (sampling.forced_share)",
            )
        if self._in_a_row["entropy"] >= STEPS:
            yield (
                "entropy",
                f"the entropy was below {LOW_ENTROPY} for {STEPS} steps: all samples of a prompt are alike, and there "
                "is nothing left to choose from. Ask harder levels, raise sampling.temperature or loss.clip_high, or "
                "lower optimizer.adam_lr",
            )
        if self._in_a_row["forgotten"] >= STEPS:
            yield (
                "forgotten",
                f"for {STEPS} steps some problems have been solved much less often than before "
                f"({metrics['curriculum/forgotten']:.0f} pairs of family and level now). Keep easy ones "
                "(prompts.curriculum.easy_share), raise prompts.curriculum.floor, or lower optimizer.adam_lr",
            )
        if (cut := metrics["completions/clipped_ratio"]) > OFTEN_CUT:
            yield (
                "cut",
                f"{cut:.0%} of the completions ran into the length limit: none of them is right, however good its "
                "thinking. Raise the limit (sampling.lengths, sampling.tokens_per_level). Unless they are left out of "
                "the loss (loss.mask_truncated=true), they also teach to think less",
            )

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return {"said": self._said, "in_a_row": self._in_a_row, "first": self._first, "last": self._last}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` gave."""
        self._said, self._in_a_row = list(state["said"]), dict(state["in_a_row"])
        self._first, self._last = list(state["first"]), list(state["last"])


def _rate(metrics: Mapping[str, Any], name: str) -> float:
    """An error rate of the verdicts, 0 where there was nothing to be wrong about."""
    rate = metrics.get(f"verdicts/{name}", math.nan)
    return 0.0 if math.isnan(rate) else float(rate)


def _means(rows: Sequence[Sequence[float]]) -> list[float]:
    return [fmean(column) for column in zip(*rows, strict=True)]
