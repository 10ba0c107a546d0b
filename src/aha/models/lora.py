"""Adapters on a whole model: where they may sit, putting them there, and the base that is left without them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from aha.errors import UnknownNameError
from aha.models.checkpoint.names import Piece, pieces
from aha.models.config.base import ModelConfig
from aha.models.language_model import LanguageModel
from aha.models.lora_linear import Block, LoRAConfig, LoRALinear, adapted_layers


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


def adaptable(config: ModelConfig) -> dict[str, list[Piece]]:
    """By the name of each of our linear layers below `layers`, the checkpoint's layers that it is made of, by rows.

    Routers and routed experts are not linear layers here, and a prediction module is no part of what is served.
    """
    found: dict[str, list[Piece]] = {}
    for piece in pieces(config):
        own, _, kind = piece.own_name.rpartition(".")
        if kind == "weight" and own.startswith("layers.") and not own.endswith(("norm", ".gate")):
            found.setdefault(own, []).append(piece)
    return found


def _leaf(piece: Piece) -> str:
    """The last name of the layer that a weight belongs to, such as q_proj."""
    return piece.hf_name.split(".")[-2]


def add_adapters(model: LanguageModel, config: LoRAConfig, seed: int) -> LanguageModel:
    """Freezes the model and puts new adapters on the layers that `config` names; returns the model.

    Raises:
        UnknownNameError: the model has no layer of such a name.
    """
    known = {_leaf(piece) for parts in adaptable(model.config).values() for piece in parts}
    for name in config.target_modules:
        if name not in known:
            raise UnknownNameError("layer for LoRA", name, known)
    wanted = set(config.target_modules) or known
    put_adapters(model, config.changed(target_modules=tuple(sorted(wanted))))
    generator = torch.Generator().manual_seed(seed)
    for layer in adapted_layers(model):
        layer.init_adapters(generator)
    return model


def put_adapters(model: LanguageModel, config: LoRAConfig) -> None:
    """Freezes the model and replaces its layers; the adapters have memory, but no values for A yet."""
    model.requires_grad_(False)
    targets = frozenset(config.target_modules)
    for own, parts in adaptable(model.config).items():
        if targets.isdisjoint(map(_leaf, parts)):
            continue
        parent, _, name = own.rpartition(".")
        linear = model.get_submodule(own)
        assert isinstance(linear, nn.Linear)
        blocks = [
            Block(part.hf_name.removesuffix(".weight"), part.start or 0, part.stop or linear.out_features)
            for part in parts
        ]
        setattr(model.get_submodule(parent), name, LoRALinear(linear, blocks, targets, config))
    model.weights_replaced()
