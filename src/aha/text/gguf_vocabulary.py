"""A `tokenizer.json` as a GGUF file has it: byte-level BPE by its tokens, their kinds, merges and pre-tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aha.errors import CheckpointError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""llama.cpp's kinds of tokens."""

_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {_SPLIT % r"\p{N}": "qwen2", _SPLIT % r"\p{N}{1,3}": "llama-bpe"}
"""llama.cpp's names of the patterns by which Qwen and Llama 3 split text."""


@dataclass(frozen=True, slots=True)
class GGUFVocabulary:
    """What goes into the file's metadata."""

    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    special: Mapping[str, int]
    """Ids of "bos", "eos" and "pad", as far as there are such tokens."""
    add_bos: bool | None
    """Whether texts begin with "bos". None where the files do not say: then llama.cpp goes by the pre-tokenizer."""


def gguf_vocabulary(tokenizer: Mapping[str, Any], settings: Mapping[str, Any], rows: int) -> GGUFVocabulary:
    """Reads a tokenizer.

    Args:
        tokenizer: contents of `tokenizer.json`.
        settings: contents of `tokenizer_config.json`.
        rows: of the embedding; rows that no token has get a name and the kind UNUSED.

    Raises:
        CheckpointError: it is not byte-level BPE, or splits text in a way that llama.cpp has no name for.
    """
    model = tokenizer.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise CheckpointError("GGUF export: the tokenizer must be byte-level BPE (type BPE without byte_fallback)")
    tokens = [f"[PAD{index}]" for index in range(rows)]
    kinds = [UNUSED] * rows
    for token, index in model["vocab"].items():
        tokens[index], kinds[index] = token, NORMAL
    ids = {}
    for added in tokenizer.get("added_tokens") or ():
        index = added["id"]
        tokens[index], kinds[index] = added["content"], CONTROL if added.get("special") else USER_DEFINED
        ids[added["content"]] = index
    names = {kind: _content(settings.get(f"{kind}_token")) for kind in ("bos", "eos", "pad")}
    return GGUFVocabulary(
        pre=_pre_tokenizer(tokenizer.get("pre_tokenizer") or {}),
        tokens=tuple(tokens),
        kinds=tuple(kinds),
        merges=tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]),
        special={kind: ids[name] for kind, name in names.items() if name in ids},
        add_bos=_adds_bos(tokenizer.get("post_processor") or {}, settings, names["bos"]),
    )


def _adds_bos(post_processor: Mapping[str, Any], settings: Mapping[str, Any], bos: str) -> bool | None:
    """What tokenizer_config.json states, else True where the post-processor puts the token before every text."""
    stated = settings.get("add_bos_token")
    if isinstance(stated, bool):
        return stated
    for step in post_processor.get("processors") or [post_processor]:
        first = (step.get("single") or [{}])[0] if step.get("type") == "TemplateProcessing" else {}
        if bos and (first.get("SpecialToken") or {}).get("id") == bos:
            return True
    return None


def _content(token: Any) -> str:
    """A token of tokenizer_config.json: its text, or an object with it."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _pre_tokenizer(settings: Mapping[str, Any]) -> str:
    """llama.cpp's name of a way to split text before the merges."""
    steps = settings.get("pretokenizers") or [settings]
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and steps[1].get("use_regex", True):
        return "smollm"  # digits one by one, then GPT-2's pattern
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        pattern = (steps[0].get("pattern") or {}).get("Regex", "")
        if pattern in PRE_TOKENIZERS:
            return PRE_TOKENIZERS[pattern]
    raise CheckpointError(f"GGUF export: llama.cpp has no name for the pre-tokenizer {json.dumps(settings)[:200]}")
