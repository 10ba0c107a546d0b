"""What training is going to take, in words, before it starts."""

from __future__ import annotations

from torch import nn

GIB = 1 << 30
TRAINED_BYTES = 12
"""For each trained parameter: a gradient and AdamW's two moments, in fp32; beside narrow weights fp32 masters too."""
LATER = "the time that is left is shown after the first steps"


def weights_bytes(model: nn.Module) -> int:
    """Of a model's parameters."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def training_bytes(model: nn.Module) -> int:
    """Of gradients, moments and master weights."""
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return sum(p.numel() * (TRAINED_BYTES + (4 if p.element_size() < 4 else 0)) for p in trained)


def in_words(count: float) -> str:
    """Bytes for people."""
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / (1 << 20):.0f} MiB"
