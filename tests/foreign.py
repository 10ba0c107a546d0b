"""A small checkpoint as others make them: a ChatML tokenizer, with thinking tags that are merely added tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from aha.models.checkpoint.fp8 import BLOCK
from aha.models.checkpoint.hf import save_pretrained
from aha.models.config.presets import preset
from aha.models.model_from_config import build

TEMPLATE = (
    "{%- for message in messages %}\n"
    "    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}"
)
SPLIT = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def write_tokenizer(folder: Path, texts: Iterable[str], vocab_size: int = 600, think: bool = True) -> Tokenizer:
    """Trains a byte-level tokenizer and writes it as Qwen's checkpoints have it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens([AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    if think:
        backend.add_tokens([AddedToken(token, special=False) for token in ("<think>", "</think>")])
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "add_bos_token": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(backend.to_str(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    ends = [backend.token_to_id("<|im_end|>"), backend.token_to_id("<|endoftext|>")]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}), encoding="utf-8")
    return backend


def write_checkpoint(folder: Path, texts: Iterable[str], preset_name: str = "qwen3-tiny", **changes: Any) -> None:
    """A model of a real architecture with random weights, and a vocabulary that is padded as Qwen's are."""
    apart = folder.with_name(f"{folder.name}-tokenizer")
    backend = write_tokenizer(apart, texts)
    ids = {"bos_token_id": None, "eos_token_id": backend.token_to_id("<|im_end|>")}
    config = preset(preset_name, vocab_size=backend.get_vocab_size() + 7, **{**ids, **changes})
    model = build(config)
    model.init_weights(torch.Generator().manual_seed(0))
    files = {path.name: path.read_text(encoding="utf-8") for path in apart.iterdir()}
    save_pretrained(model, folder, tokenizer_files=files)


def quantize(weight_XY: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the E4M3 weight and its scales; the largest magnitude of each block maps to 448."""
    rows, columns = weight_XY.shape
    padded = F.pad(weight_XY.float(), (0, -columns % BLOCK, 0, -rows % BLOCK))
    blocks = padded.unflatten(0, (-1, BLOCK)).unflatten(2, (-1, BLOCK))
    scale = blocks.abs().amax(dim=(1, 3)).clamp(min=1e-12) / 448.0
    scaled = (blocks / scale[:, None, :, None]).flatten(2, 3).flatten(0, 1)[:rows, :columns]
    return scaled.to(torch.float8_e4m3fn), scale
