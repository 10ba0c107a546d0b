"""Checkpoints in the Hugging Face layout, in and out, of every family.

A folder written here loads in transformers, vLLM and SGLang: one tensor per expert, routing biases in float32, a tied
head once, as the embedding, and a config.json with the keys that vLLM wants. DeepSeek-V3's multi-token prediction
modules are in `mtp.safetensors`, outside the index, and config.json says 0 of them, because other software expects
them at V3's own layer 61 only; at that depth they are inside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from aha.errors import CheckpointError
from aha.files import write_json
from aha.model_folder import read_generation_config, tokens_in_use
from aha.models.checkpoint.files import (
    DEFAULT_SHARD_BYTES,
    TensorReader,
    atomic_folder,
    write_sharded,
    write_tensors,
)
from aha.models.checkpoint.fp8 import SCALE_SUFFIX, dequantize, has_scale, scales_shape
from aha.models.checkpoint.names import V3_LAYERS, Piece, is_ignorable, pieces, shared_copies
from aha.models.config.base import ModelConfig
from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.config.dense import DenseConfig
from aha.models.config.load import MTP_FILE, MTP_KEY, load_config
from aha.models.language_model import LanguageModel
from aha.models.lora_linear import LoRALinear, effective_weight
from aha.models.model_from_config import build
from aha.models.sharded_tensors import FullCopy


class HfTensors(Mapping[str, Tensor]):
    """The model's weights under their Hugging Face names: what a checkpoint or an inference server gets.

    Each is a view, or with adapters merged in a new tensor, made when it is asked for. Routing biases are included,
    although they are buffers: without them another engine routes differently. Of a model that is spread over
    processes each is gathered, so all of them must ask for the same names in the same order.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._own = FullCopy(model.state_dict(keep_vars=False))
        self._pieces = {piece.hf_name: piece for piece in pieces(model.config)}
        self._adapted = {
            f"{name}.weight": layer for name, layer in model.named_modules() if isinstance(layer, LoRALinear)
        }

    def __getitem__(self, name: str) -> Tensor:
        piece = self._pieces[name]
        layer = self._adapted.get(piece.own_name)
        return piece.of(self._own[piece.own_name] if layer is None else effective_weight(layer).detach())

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)


def save_pretrained(
    model: LanguageModel,
    folder: str | Path,
    dtype: torch.dtype | None = None,
    tokenizer_files: Mapping[str, str | bytes] | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    writes: bool = True,
) -> None:
    """Writes a checkpoint, completely or not at all.

    A model that is spread over processes is gathered tensor by tensor: all of them call this, and one writes.

    Args:
        model: what to write.
        folder: replaced if it already is a checkpoint.
        dtype: of the weights on disk; None keeps the model's. Routing biases are float32 always.
        tokenizer_files: further files by name, such as tokenizer.json.
        max_shard_bytes: size at which weights are split into several files.
        writes: False in the processes that only take part in gathering.
    """
    config, tensors = model.config, HfTensors(model)
    modules = dict.fromkeys(piece.hf_name for piece in pieces(config) if piece.is_mtp)
    inside = config.num_hidden_layers == V3_LAYERS
    outside = {} if inside else modules
    names = {name: name for name in tensors if name not in outside}
    if inside and modules:
        names |= shared_copies(config)
    target = dtype or model.embed_tokens.weight.dtype

    def stored(name: str) -> Tensor:
        tensor = tensors[name]
        return tensor.to(torch.float32 if name.endswith("e_score_correction_bias") else target)

    if not writes:
        for name in [*names.values(), *outside]:
            tensors[name]
        return
    settings = config.to_hf_dict() | {"torch_dtype": str(target).removeprefix("torch.")}
    if outside:
        settings |= {"num_nextn_predict_layers": 0, MTP_KEY: len(model.mtp)}
    with atomic_folder(Path(folder)) as temporary:
        written = ((name, stored(s) if name == s else stored(s).clone()) for name, s in names.items())
        write_sharded(written, temporary, max_shard_bytes)
        if outside:
            write_tensors({name: stored(name) for name in outside}, temporary / MTP_FILE)
        write_json(temporary / "config.json", settings, sort_keys=True)
        write_json(
            temporary / "generation_config.json", model.generation_config or _generation_config(config), sort_keys=True
        )
        for name, content in (tokenizer_files or {}).items():
            data = content.encode() if isinstance(content, str) else content
            (temporary / Path(name).name).write_bytes(data)


def load_pretrained(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> LanguageModel:
    """Builds the model of a checkpoint, of the family that config.json names.

    FP8 weights are multiplied out by their block scales. Names and shapes are checked from the file headers
    before anything is allocated.

    Raises:
        CheckpointError: where the files are damaged, refused, or do not fit config.json.
    """
    folder = Path(folder)
    config = load_config(folder)
    tokens, generation = tokens_in_use(folder, config.vocab_size), read_generation_config(folder)
    with TensorReader(folder, extra=(MTP_FILE,)) as reader:
        config = _without_absent_mtp(config, reader)
        with torch.device("meta"):
            model = build(config)
        shapes = model.state_dict()
        wanted = list(pieces(config))
        _check_names(reader, wanted, config)
        for piece in wanted:
            _check_shape(reader, piece, shapes[piece.own_name])
        model = model.to(dtype).to_empty(device=device)
        own = model.state_dict()
        with torch.no_grad():
            for piece in wanted:
                tensor = _read(reader, piece.hf_name)
                if not is_finite(tensor):
                    raise CheckpointError(
                        f"{folder}: {piece.hf_name} holds values that are not finite (NaN or infinity): the file is "
                        "damaged, or training diverged before it was written; take another checkpoint"
                    )
                piece.of(own[piece.own_name]).copy_(tensor)
        _check_tied(reader, config)
    model.num_tokens = tokens
    model.generation_config = generation
    return model


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor of floating-point numbers has neither NaN nor infinities; needs no memory."""
    return tensor.numel() == 0 or all(math.isfinite(float(end)) for end in torch.aminmax(tensor))


def _read(reader: TensorReader, name: str) -> Tensor:
    tensor = reader.read(name)
    if has_scale(reader.dtype(name)):
        return dequantize(tensor, reader.read(name + SCALE_SUFFIX))
    return tensor


def _check_tied(reader: TensorReader, config: ModelConfig) -> None:
    """A head in the file that is not the embedding, although config.json ties the two, belongs to another model."""
    copies = shared_copies(config) if isinstance(config, DenseConfig) else {}
    for copy, source in copies.items():
        if copy in reader.names() and not torch.equal(_read(reader, copy), _read(reader, source)):
            raise CheckpointError(
                f"{reader.folder}: {copy} differs from {source}, but config.json has tie_word_embeddings = true: "
                "set it to false"
            )


def _without_absent_mtp(config: ModelConfig, reader: TensorReader) -> ModelConfig:
    """Published conversions often drop the prediction modules and leave their number in config.json."""
    if not isinstance(config, DeepseekV3Config):
        return config
    first = f"model.layers.{config.num_hidden_layers}."
    if config.num_nextn_predict_layers and not any(name.startswith(first) for name in reader.names()):
        return config.changed(num_nextn_predict_layers=0)
    return config


def _check_names(reader: TensorReader, wanted: list[Piece], config: ModelConfig) -> None:
    expected = {piece.hf_name for piece in wanted}
    present = reader.names()
    scales = {name for name in present if name.endswith(SCALE_SUFFIX) and name.removesuffix(SCALE_SUFFIX) in expected}
    unexpected = {n for n in present - expected - scales - shared_copies(config).keys() if not is_ignorable(n)}
    missing = expected - present
    for names, word in ((missing, "lacks"), (unexpected, "has unexpected")):
        if names:
            example = min(names)
            raise CheckpointError(
                f"{reader.folder} {word} {len(names)} tensors, such as {example}: "
                f"its config.json describes another model"
            )
    for name in expected:
        if has_scale(reader.dtype(name)) and name + SCALE_SUFFIX not in scales:
            raise CheckpointError(f"{reader.folder}: {name} is FP8 without its {name + SCALE_SUFFIX}: fetch it again")


def _check_shape(reader: TensorReader, piece: Piece, own: Tensor) -> None:
    expected, found = tuple(piece.of(own).shape), reader.shape(piece.hf_name)
    if found == expected and has_scale(reader.dtype(piece.hf_name)):
        scale = reader.shape(piece.hf_name + SCALE_SUFFIX)
        if scale != scales_shape(expected):
            raise CheckpointError(
                f"{reader.folder}: {piece.hf_name}{SCALE_SUFFIX} must have shape {list(scales_shape(expected))}, "
                f"got {list(scale)}"
            )
    if found != expected:
        raise CheckpointError(
            f"{reader.folder}: {piece.hf_name} must have shape {list(expected)} by config.json, got {list(found)}"
        )


def _generation_config(config: ModelConfig) -> dict[str, object]:
    ids = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    return {name: value for name, value in ids.items() if value is not None} | {
        "_from_model_config": True,
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.95,
    }
