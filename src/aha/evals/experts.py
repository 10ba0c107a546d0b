"""Which experts a model uses: load by domain of the problem, and along one transcript (after V3 appendix C, Fig. 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aha.evals.runner import Sample
from aha.models.language_model import LanguageModel
from aha.models.layouts import Ragged
from aha.models.moe import Routing
from aha.text.templates import zero_prompt
from aha.text.tokenizer import Tokenizer

SAMPLES_PER_DOMAIN = 40


def expert_report(model: LanguageModel, tokenizer: Tokenizer, samples: Sequence[Sample]) -> dict[str, Any]:
    """Shares of routed slots per expert.

    Args:
        model: whose routers are watched.
        tokenizer: of the model.
        samples: completions under the R1-Zero template; the first of each domain are used, and as the transcript the
            first right and well-formed one that rejects a wrong attempt, or, without any, the first right one.

    Returns:
        ``by_domain``: layer to domain to one share per expert. ``transcript``: tokens, and the first expert of each
        in the last layer. Both are empty for a model without routers.
    """
    if not model.config.num_moe_layers:
        return {"by_domain": {}, "transcript": None}
    by_domain: dict[str, dict[str, list[float]]] = {}
    for domain in sorted({sample.domain for sample in samples}):
        chosen = [sample for sample in samples if sample.domain == domain and sample.completion][:SAMPLES_PER_DOMAIN]
        routes, _ = _routes(model, tokenizer, chosen)
        for layer, indices_NA in routes.items():
            counts_E = torch.bincount(indices_NA.flatten(), minlength=model.config.num_experts).double()
            by_domain.setdefault(str(layer), {})[domain] = (counts_E / counts_E.sum()).tolist()
    right = [sample for sample in samples if sample.correct and sample.well_formed]
    shown = next((sample for sample in right if sample.wrong_rejected), next(iter(right), None))
    return {"by_domain": by_domain, "transcript": _transcript(model, tokenizer, shown) if shown else None}


def _transcript(model: LanguageModel, tokenizer: Tokenizer, sample: Sample) -> dict[str, Any]:
    routes, ids = _routes(model, tokenizer, [sample])
    last = routes[max(routes)]
    return {"tokens": [tokenizer.decode([token]) for token in ids], "experts": last[:, 0].tolist()}


@torch.no_grad()
def _routes(
    model: LanguageModel, tokenizer: Tokenizer, samples: Sequence[Sample]
) -> tuple[dict[int, Tensor], list[int]]:
    """Experts of every completion token, per layer with experts [N, A], and the token ids."""
    sequences, masks = [], []
    for sample in samples:
        prompt = zero_prompt(tokenizer, sample.question)
        completion = tokenizer.encode_markup(sample.completion)
        sequences.append(prompt + completion)
        masks.append([False] * len(prompt) + [True] * len(completion))
    ids = torch.tensor([token for sequence in sequences for token in sequence])
    mask_N = torch.tensor([flag for mask in masks for flag in mask])
    device = next(model.parameters()).device
    seen: dict[int, Tensor] = {}
    handles = []
    for index, layer in enumerate(model.layers):
        gate = getattr(layer.mlp, "gate", None)
        if isinstance(gate, nn.Module):
            handles.append(gate.register_forward_hook(_remember(seen, index)))
    try:
        model(ids.to(device), Ragged([len(sequence) for sequence in sequences], device))
    finally:
        for handle in handles:
            handle.remove()
    return {index: indices_NA.cpu()[mask_N] for index, indices_NA in seen.items()}, ids[mask_N].tolist()


def _remember(seen: dict[int, Tensor], index: int) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Routing) -> None:
        seen[index] = output.indices

    return hook
