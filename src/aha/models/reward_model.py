"""A reward model: the language model with a scalar head on its last token (R1 supplement 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aha.errors import CheckpointError
from aha.files import read_json, write_json
from aha.models.checkpoint.hf import load_pretrained, save_pretrained
from aha.models.language_model import LanguageModel
from aha.models.layouts import Layout, Ragged

BACKBONE, HEAD, ABOUT = "model", "reward_head.safetensors", "reward_model.json"
SCORE_TOKENS = 16_384
"""Tokens scored in one forward pass."""


class RewardModel(nn.Module):
    """Backbone and head; the backbone's own head and its prediction modules stay unused."""

    def __init__(self, backbone: LanguageModel) -> None:
        super().__init__()
        self.backbone = backbone
        self.score = nn.Linear(backbone.config.hidden_size, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        backbone.mtp.requires_grad_(False)
        if backbone.lm_head.weight is not backbone.embed_tokens.weight:
            backbone.lm_head.requires_grad_(False)
        self.to(backbone.lm_head.weight.device)

    def forward(self, token_ids_N: Int[Tensor, " N"], layout: Layout) -> Float[Tensor, " S"]:
        """One score per sequence, read at its last token."""
        hidden = self.backbone(token_ids_N, layout)
        return self.score(hidden.hidden_ND.index_select(0, layout.last_S).float()).squeeze(-1)

    def score_sequences(self, sequences: Sequence[Sequence[int]]) -> Float[Tensor, " S"]:
        """Scores of token sequences, differentiable."""
        device = self.score.weight.device
        ids_N = torch.tensor([token for sequence in sequences for token in sequence], device=device)
        return self(ids_N, Ragged([len(sequence) for sequence in sequences], device))


class RewardScorer:
    """A reward model behind `protocols.Scorer`."""

    def __init__(self, model: RewardModel) -> None:
        self.model = model.eval()

    @torch.inference_mode()
    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """One number per sequence, whatever is in the batch with it."""
        results: list[float] = [0.0] * len(sequences)
        batch: list[int] = []
        size = 0
        for index in sorted(range(len(sequences)), key=lambda i: len(sequences[i])):
            if batch and size + len(sequences[index]) > SCORE_TOKENS:
                self._fill(results, sequences, batch)
                batch, size = [], 0
            batch.append(index)
            size += len(sequences[index])
        if batch:
            self._fill(results, sequences, batch)
        return results

    def _fill(self, results: list[float], sequences: Sequence[Sequence[int]], batch: list[int]) -> None:
        scores = self.model.score_sequences([sequences[i] for i in batch]).tolist()
        for index, score in zip(batch, scores, strict=True):
            results[index] = score


def save_reward_model(
    model: RewardModel, folder: Path, about: dict[str, Any], tokenizer_files: dict[str, str], writes: bool = True
) -> None:
    """Writes the backbone in Hugging Face layout, the head beside it, and what was measured about its scores.

    Every process that holds a part of the backbone calls this; the one that `writes` does.
    """
    save_pretrained(model.backbone, folder / BACKBONE, tokenizer_files=tokenizer_files, writes=writes)
    if not writes:
        return
    head = {name: tensor.detach().cpu().contiguous() for name, tensor in model.score.state_dict().items()}
    save_file(head, folder / HEAD)
    write_json(folder / ABOUT, about)


def load_reward_model(folder: Path, device: torch.device | str = "cpu") -> tuple[RewardModel, dict[str, Any]]:
    """Reads what `save_reward_model` wrote.

    Raises:
        CheckpointError: a part is missing or damaged.
    """
    model = RewardModel(load_pretrained(folder / BACKBONE, device=device))
    try:
        model.score.load_state_dict(load_file(folder / HEAD))
    except Exception as error:  # noqa: BLE001 - missing file, damaged header, wrong shape: one message
        raise CheckpointError(f"{folder / HEAD} is not a reward model's head ({error}); train it again") from None
    return model, read_json(folder / ABOUT)
