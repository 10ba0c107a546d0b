"""What a model is and what it takes, before anything of it is loaded. No torch here."""

from __future__ import annotations

from pathlib import Path

from aha.environment import gpus, memory_bytes
from aha.errors import CheckpointError
from aha.model_folder import tokens_in_use
from aha.models.config.base import ModelConfig
from aha.models.config.dense import DenseConfig
from aha.models.config.load import load_config
from aha.models.config.memory_estimate import (
    ADAPTER_RANK,
    MICRO_TOKENS,
    REQUEST_TOKENS,
    REQUESTS,
    ROLLOUT_TOKENS,
    ROLLOUTS,
    adapter_parameters,
    stage_memory,
)
from aha.models.config.parameter_count import describe
from aha.models.config.presets import preset
from aha.text.chat_template import ChatTemplate

GIB = 1 << 30
COLUMNS = ("float32", "recomputed", "bfloat16", "recomputed")

QUESTION = ({"role": "user", "content": "What is 17 + 25?"},)

Row = tuple[str, str]


def describe_model(name: str) -> str:
    """A preset, or a folder with a `config.json`, as a text table: kind, parameters, cache, memory of each stage.

    Raises:
        UnknownNameError: no such preset, and no such folder.
        CheckpointError: the folder's model is of a family that is not ours, or its tokenizer is another model's.
    """
    folder = Path(name)
    if (folder / "config.json").is_file():
        config = load_config(folder)
        rows = _folder_rows(folder, config)
    else:
        config = preset(name)
        rows = []
    rows += _size_rows(config)
    rows.append((f"LoRA adapters of rank {ADAPTER_RANK}, parameters", _count(adapter_parameters(config, ADAPTER_RANK))))
    table = "\n".join(f"{label:<44}{value:>32}" for label, value in rows)
    return f"{table}\n\n{_memory_table(config)}"


def _folder_rows(folder: Path, config: ModelConfig) -> list[Row]:
    kind = config.model_type if isinstance(config, DenseConfig) else "deepseek"
    files = sorted(folder.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    tokens = tokens_in_use(folder, config.vocab_size)
    padding = f", {config.vocab_size - tokens:,} rows of padding" if tokens < config.vocab_size else ""
    return [
        ("family", f"{kind}, {config.num_hidden_layers} layers"),
        ("longest sequence", f"{config.max_position_embeddings:,} tokens"),
        ("vocabulary", f"{tokens:,} tokens{padding}"),
        ("weights on disk", f"{len(files)} files, {_gib(size)}"),
        ("chat template", _chat_template(folder)),
    ]


def _chat_template(folder: Path) -> str:
    """Whether there is one, and whether it renders."""
    template = ChatTemplate.load(folder)
    if template is None:
        return "none"
    with template:
        try:
            return f"renders ({len(template.render(QUESTION))} characters)"
        except CheckpointError as error:
            return str(error)


def _size_rows(config: ModelConfig) -> list[Row]:
    sizes = describe(config)
    cache, heads = sizes.cache_bytes_per_token, sizes.mha_cache_bytes_per_token
    if isinstance(config, DenseConfig):
        kept, parts = "keys and values", [("  of which embedding and head", _count(sizes.embedding_parameters))]
    else:
        kept, parts = (
            "latent",
            [
                ("  of which active for one token", _count(sizes.active_parameters)),
                ("  besides: multi-token prediction", _count(sizes.mtp_parameters)),
            ],
        )
    return [
        ("parameters, embedding and head included", _count(sizes.total_parameters)),
        *parts,
        (f"cache per token in bf16, {kept}", f"{cache:,} bytes"),
        ("  multi-head attention of the same heads", f"{heads:,} bytes ({heads / cache:.1f} times)"),
    ]


def _memory_table(config: ModelConfig) -> str:
    """Bytes of each stage in both numbers, with activations kept or computed again, and what this machine has."""
    columns = [
        stage_memory(config, narrow, checkpointing) for narrow in (False, True) for checkpointing in (False, True)
    ]
    lines = [f"{'memory, estimated':<24}" + "".join(f"{column:>14}" for column in COLUMNS)]
    for stages in zip(*columns, strict=True):
        lines.append(f"{stages[0].stage:<24}" + "".join(f"{_gib(stage.total):>14}" for stage in stages))
    machine = [f"main memory {_gib(memory_bytes())}", *(f"{name} {_gib(size)}" for name, size in gpus())]
    return "\n".join([*lines, f"this machine: {', '.join(machine)}", *NOTES])


NOTES = (
    "recomputed: with activation checkpointing. bfloat16: with float32 masters of what is trained.",
    f"Training: {MICRO_TOKENS:,} tokens per forward pass. Serving: {REQUESTS} requests of {REQUEST_TOKENS:,} tokens.",
    f"GRPO: {ROLLOUTS} samples of {ROLLOUT_TOKENS:,} tokens at once. With kl_beta, all weights: once more the weights.",
)


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB" if size >= GIB // 10 else f"{size / (1 << 20):,.1f} MiB"


def _count(number: int) -> str:
    scaled = f"{number / 1e9:.2f}B" if number >= 1e8 else f"{number / 1e6:.2f}M"
    return f"{number:,} = {scaled}"
