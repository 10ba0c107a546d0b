"""Adapters in peft's file layout, in and out: `adapter_config.json` and `adapter_model.safetensors`.

What is written here loads in peft and vLLM beside the base model; what peft wrote with plain LoRA loads here. Keys are
`base_model.model.<name in the checkpoint>.lora_A.weight`, [r, in], and `.lora_B.weight`, [out, r].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from aha.errors import CheckpointError
from aha.files import write_json
from aha.model_folder import read_model_json
from aha.models.checkpoint.files import atomic_folder, write_tensors
from aha.models.language_model import LanguageModel
from aha.models.lora import put_adapters
from aha.models.lora_linear import LoRAConfig, adapted_layers
from aha.models.sharded_tensors import full

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."


def adapter_tensors(model: LanguageModel) -> dict[str, Tensor]:
    """The adapters' matrices under peft's names; not copies, unless they are gathered from several processes."""
    return dict(_named(model))


def _named(model: LanguageModel) -> Iterator[tuple[str, Tensor]]:
    for layer in adapted_layers(model):
        for block in layer.blocks:
            if block.leaf in layer.lora_A:
                yield f"{PREFIX}{block.hf_name}.lora_A.weight", full(layer.lora_A[block.leaf]).detach()
                yield f"{PREFIX}{block.hf_name}.lora_B.weight", full(layer.lora_B[block.leaf]).detach()


def save_adapter(model: LanguageModel, folder: Path, base: str | None = None, writes: bool = True) -> None:
    """Writes a model's adapters, completely or not at all.

    Args:
        model: with adapters. Where it is spread over processes, all of them call this.
        folder: replaced if it already holds adapters.
        base: name or folder of the base model, for software that fetches it by itself.
        writes: False in the processes that only take part in gathering.
    """
    tensors = adapter_tensors(model)
    if not writes:
        return
    config = next(adapted_layers(model)).config
    with atomic_folder(folder, marker=SETTINGS) as temporary:
        write_tensors(tensors, temporary / WEIGHTS)
        write_json(temporary / SETTINGS, _settings(config, base), sort_keys=True)


def _settings(config: LoRAConfig, base: str | None) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": config.r,
        "lora_alpha": int(config.alpha) if config.alpha.is_integer() else config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "target_modules": list(config.target_modules),
        **{key: allowed[0] for key, allowed in _REQUIRED.items()},
    }


_REQUIRED: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "fan_in_fan_out": (False, None),
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layers_to_transform": (None, []),
    "layer_replication": (None, []),
}
"""Keys of adapter_config.json that would change the computation, with the values computed here, the usual one first."""


def load_adapter(model: LanguageModel, folder: str | Path) -> LanguageModel:
    """Freezes the model and puts the adapters of a folder on it; returns the model.

    Raises:
        CheckpointError: the files are damaged, of a kind that is not computed here, or do not fit the model.
    """
    folder = Path(folder)
    config = _read_settings(folder)
    try:
        found = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} is missing or damaged ({error}): fetch or write it again") from None
    names = {key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".lora_")[0] for key in found}
    leaves = {name.rpartition(".")[2] for name in names}
    put_adapters(model, config.changed(target_modules=tuple(sorted(leaves))))
    own = adapter_tensors(model)
    _check(folder, own, found)
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(found[key])
    return model


def _read_settings(folder: Path) -> LoRAConfig:
    raw = read_model_json(folder / SETTINGS)
    for key, allowed in {"peft_type": ("LORA",), **_REQUIRED}.items():
        if key in raw and raw[key] not in allowed:
            raise CheckpointError(f"{folder / SETTINGS}: {key} must be {allowed[0]!r}, got {raw[key]!r}")
    try:
        return LoRAConfig(
            r=raw["r"],
            alpha=raw["lora_alpha"],
            dropout=raw.get("lora_dropout", 0.0),
            rslora=raw.get("use_rslora", False),
        )
    except (KeyError, ValidationError) as error:
        raise CheckpointError(f"{folder / SETTINGS} describes no adapter ({error}): fetch or write it again") from None


def _check(folder: Path, own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    if own.keys() != found.keys():
        odd = sorted(own.keys() ^ found.keys())
        word = "lacks" if odd[0] in own else "has unexpected"
        raise CheckpointError(
            f"{folder / WEIGHTS} {word} {len(odd)} tensors, such as {odd[0]}: it is for another model"
        )
    for key, tensor in own.items():
        if tensor.shape != found[key].shape:
            shapes = f"must have shape {list(tensor.shape)}, got {list(found[key].shape)}"
            raise CheckpointError(f"{folder / WEIGHTS}: {key} {shapes}: it is for another model, or another r")
