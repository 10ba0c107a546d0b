"""Sampling with one random stream per sample: what a sample draws never depends on the batch around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from aha.types import SamplingParams

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: scrambles 64-bit counters."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)), dtype=np.uint64)


def stream_key(seed: int, sample: int) -> int:
    """The 64-bit key of sample `sample` of a request with this seed."""
    with np.errstate(over="ignore"):
        start = np.array([seed % 2**64], dtype=np.uint64)
        return int(_mix(_mix(start + _GOLDEN) + np.array([sample + 1], dtype=np.uint64) * _GOLDEN)[0])


def uniforms(keys: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """One number in [0, 1) per row, a function of (key, position) alone."""
    with np.errstate(over="ignore"):
        mixed = _mix(keys + (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return np.asarray((mixed >> np.uint64(11)) * (1.0 / (1 << 53)))


@dataclass(frozen=True, slots=True)
class RowSettings:
    """Sampling settings of the rows of a batch, as tensors; None where no row needs the step."""

    temperature: Tensor | None
    reported: Tensor | None
    """The temperature of the log-probabilities that are given back."""
    greedy: Tensor | None
    top_p: Tensor | None

    @classmethod
    def of(cls, rows: Sequence[SamplingParams], device: torch.device) -> RowSettings:
        """Collects the settings of a batch."""
        temperatures = [row.temperature for row in rows]
        top_p = [row.top_p for row in rows]
        reported = [reported_temperature(row) for row in rows]
        scaled = any(t not in (0.0, 1.0) for t in temperatures)
        return cls(
            torch.tensor([t or 1.0 for t in temperatures], device=device) if scaled else None,
            torch.tensor(reported, device=device) if any(t != 1.0 for t in reported) else None,
            torch.tensor([t == 0.0 for t in temperatures], device=device) if 0.0 in temperatures else None,
            torch.tensor(top_p, device=device) if any(p < 1.0 for p in top_p) else None,
        )


def reported_temperature(sampling: SamplingParams) -> float:
    """The temperature of the log-probabilities that a request is answered with; greedy counts as 1."""
    return sampling.temperature or 1.0 if sampling.processed_logprobs else 1.0


def sample(
    logits_BV: Float[Tensor, "B V"], settings: RowSettings, draws_B: np.ndarray
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """Draws a token per row by inverting the cumulative distribution at `draws_B`.

    Returns:
        Token ids, and their log-probabilities without nucleus, at temperature 1 or the one that is to be reported.
    """
    logits_BV = logits_BV.float()
    if settings.reported is None:
        logprobs_BV = torch.log_softmax(logits_BV, dim=-1)
    else:
        logprobs_BV = torch.log_softmax(logits_BV / settings.reported[:, None], dim=-1)
    if settings.temperature is None:
        probs_BV = logprobs_BV.exp()
    else:
        probs_BV = torch.softmax(logits_BV / settings.temperature[:, None], dim=-1)
    if settings.top_p is not None:
        probs_BV = nucleus(probs_BV, settings.top_p)
    cumulative_BV = probs_BV.double().cumsum(-1)
    draws = torch.from_numpy(draws_B).to(logits_BV.device)
    targets_B1 = draws[:, None] * cumulative_BV[:, -1:]
    tokens_B = torch.searchsorted(cumulative_BV, targets_B1, right=True).squeeze(-1).clamp_(max=logits_BV.size(-1) - 1)
    if settings.greedy is not None:
        tokens_B = torch.where(settings.greedy, logits_BV.argmax(-1), tokens_B)
    return tokens_B, logprobs_BV.gather(-1, tokens_B[:, None]).squeeze(-1)


def nucleus(probs_BV: Float[Tensor, "B V"], top_p_B: Float[Tensor, " B"]) -> Float[Tensor, "B V"]:
    """Sets to 0 all but the fewest most likely tokens whose probabilities reach top_p (at least one stays)."""
    sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = sorted_BV.cumsum(-1) - sorted_BV
    sorted_BV = sorted_BV.masked_fill(before_BV >= top_p_B[:, None], 0.0)
    return torch.zeros_like(probs_BV).scatter(-1, order_BV, sorted_BV)
