"""What the GPU measurements share: model shapes with random weights, and a clock that waits for the device.

Every script here takes `--shape tiny --device cpu`, which says nothing about speed and shows that the script works.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from aha.models.config.base import ModelConfig
from aha.models.config.dense import DenseConfig
from aha.models.config.presets import preset
from aha.models.language_model import LanguageModel
from aha.models.model_from_config import build

QWEN3_06B: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "bos_token_id": 151_643,
    "eos_token_id": 151_645,
}
SHAPES = ("qwen3-0.6b", "v2-lite", "v3", "tiny")


def config_of(shape: str, layers: int = 0) -> ModelConfig:
    """A shape's configuration, with fewer layers where `layers` says so."""
    changes: dict[str, Any] = {"num_hidden_layers": layers} if layers else {}
    if shape == "qwen3-0.6b":
        return DenseConfig.checked(QWEN3_06B | changes)
    return preset(shape, **changes, **({"num_nextn_predict_layers": 0} if shape in ("tiny", "v3") else {}))


def random_model(config: ModelConfig, device: str, dtype: torch.dtype) -> LanguageModel:
    """A model on a device, made there, with random weights."""
    with torch.device(device):
        model = build(config).to(dtype)
    return model.init_weights(torch.Generator(device).manual_seed(0)).to(device)


def arguments(about: str | None, shape: str) -> argparse.ArgumentParser:
    """A parser with what every script has."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default=shape)
    parser.add_argument("--layers", type=int, default=0, help="of the model; 0: as many as the shape has")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="", choices=("", "float32", "bfloat16"), help="bfloat16 but on the CPU")
    parser.add_argument("--repeats", type=int, default=10, help="timed runs of each")
    return parser


def dtype_of(options: argparse.Namespace) -> torch.dtype:
    """The numbers to compute with."""
    found: torch.dtype = getattr(torch, options.dtype or ("float32" if options.device == "cpu" else "bfloat16"))
    return found


def seconds(run: Callable[[], object], device: str, repeats: int, warm_up: int = 2) -> list[float]:
    """Times of single runs, the device's work included."""
    times = []
    for index in range(warm_up + repeats):
        wait(device)
        started = time.perf_counter()
        run()
        wait(device)
        if index >= warm_up:
            times.append(time.perf_counter() - started)
    return times


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def heading(options: argparse.Namespace) -> str:
    """Where and with what was measured."""
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    return f"{name}, torch {torch.__version__}, {str(dtype_of(options)).removeprefix('torch.')}, {options.shape}"


def spread(values: list[float], digits: int = 1) -> str:
    """Median, and least to most."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"
