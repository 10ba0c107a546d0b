"""Which model a `config.json` describes. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aha.errors import CheckpointError
from aha.model_folder import read_model_json
from aha.models.config.base import ModelConfig
from aha.models.config.deepseek_v3 import MODEL_TYPES, DeepseekV3Config
from aha.models.config.dense import DENSE_MODEL_TYPES, DenseConfig

MTP_FILE = "mtp.safetensors"
MTP_KEY = "aha_mtp_layers"
"""In config.json: how many prediction modules `mtp.safetensors` holds."""


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads the contents of a `config.json` by its `model_type`.

    Raises:
        CheckpointError: where the model type is not one of ours (names those that are), or the file wants code to run.
        ConfigError: where the file asks for something we do not compute, or a field is out of bounds.
    """
    if raw.get("auto_map"):
        raise CheckpointError(
            "config.json: auto_map names code to run from the checkpoint, which is refused. Where model_type is one of "
            "ours it is not needed: delete the key"
        )
    kind = raw.get("model_type")
    if kind in MODEL_TYPES:
        return DeepseekV3Config.from_hf_dict(raw)
    if kind in DENSE_MODEL_TYPES:
        return DenseConfig.from_hf_dict(raw)
    supported = ", ".join((*MODEL_TYPES, *DENSE_MODEL_TYPES))
    raise CheckpointError(f"config.json: model_type must be one of {supported}; got {kind!r}")


def load_config(folder: str | Path) -> ModelConfig:
    """Reads a checkpoint's configuration, prediction modules in `mtp.safetensors` included.

    Raises:
        CheckpointError: where there is no readable config.json, or its model_type is not one of ours.
        ConfigError: where it describes a model that we do not compute.
    """
    folder = Path(folder)
    raw = read_model_json(folder / "config.json")
    mtp_layers = raw.pop(MTP_KEY, 0)
    if mtp_layers and (folder / MTP_FILE).is_file():
        raw["num_nextn_predict_layers"] = mtp_layers
    if (raw.get("quantization_config") or {}).get("quant_method") == "fp8":
        del raw["quantization_config"]
    return read_config(raw)
