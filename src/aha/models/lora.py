"""Adapters on a whole model: where they may sit, putting them there, and the base that is left without them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from aha.errors import UnknownNameError
from aha.models.hf_names import pieces
from aha.models.language_model import LanguageModel
from aha.models.lora_linear import Block, LoRAConfig, LoRALinear, adapted_layers
from aha.models.model_config import ModelConfig


@contextlib.contextmanager
def adapters_off(model: LanguageModel) -> Iterator[LanguageModel]:
    """Within it the model is the base that its adapters were added to."""
    layers = list(adapted_layers(model))
    for layer in layers:
        layer.active = False
    try:
        yield model
    finally:
        for layer in layers:
            layer.active = True


def linear_blocks(config: ModelConfig) -> dict[str, list[Block]]:
    """By the name of each of our linear layers below `layers`, its blocks: what can be adapted.

    Routers and routed experts are not linear layers here, nor is a prediction module part of what is served.
    """
    found: dict[str, list[Block]] = {}
    for piece in pieces(config):
        own, _, kind = piece.own_name.rpartition(".")
        if kind == "weight" and own.startswith("layers.") and not own.endswith(("norm", ".gate")):
            name = piece.hf_name.removesuffix(".weight")
            found.setdefault(own, []).append(Block(name, piece.start or 0, -1 if piece.stop is None else piece.stop))
    return found


def add_adapters(model: LanguageModel, config: LoRAConfig, seed: int) -> LanguageModel:
    """Freezes the model and puts new adapters on the layers that `config` names; returns the model.

    Raises:
        UnknownNameError: the model has no layer of such a name.
    """
    known = {block.leaf for blocks in linear_blocks(model.config).values() for block in blocks}
    for name in config.target_modules:
        if name not in known:
            raise UnknownNameError("layer for LoRA", name, known)
    wanted = set(config.target_modules) or known
    put_adapters(model, config.model_copy(update={"target_modules": tuple(sorted(wanted))}))
    generator = torch.Generator().manual_seed(seed)
    for layer in adapted_layers(model):
        layer.init_adapters(generator)
    return model


def put_adapters(model: LanguageModel, config: LoRAConfig) -> None:
    """Freezes the model and replaces its layers; the adapters have memory, but no values for A yet."""
    model.requires_grad_(False)
    targets = frozenset(config.target_modules)
    for own, blocks in linear_blocks(model.config).items():
        if targets.isdisjoint(block.leaf for block in blocks):
            continue
        parent, _, leaf = own.rpartition(".")
        linear = model.get_submodule(own)
        assert isinstance(linear, nn.Linear)
        whole = [block if block.stop >= 0 else block._replace(stop=linear.out_features) for block in blocks]
        setattr(model.get_submodule(parent), leaf, LoRALinear(linear, whole, targets, config))
    model.weights_changed()
