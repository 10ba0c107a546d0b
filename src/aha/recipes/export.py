"""Models for other software: a folder with adapters merged in, or a GGUF file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast, get_args

from aha.errors import ConfigError, UnknownNameError
from aha.models.checkpoint.gguf_export import Precision, export_gguf

FORMATS = ("hf", "gguf")


def export_model(folder: Path, out: Path, form: str, adapter: Path | None, precision: str) -> None:
    """Writes a model and says where.

    Args:
        folder: in Hugging Face layout, with its tokenizer.
        out: the folder (hf) or file (gguf) to write.
        form: of `FORMATS`.
        adapter: a folder of LoRA adapters to merge in, or None.
        precision: of the matrices.

    Raises:
        UnknownNameError: no such format or precision.
        ConfigError: the model cannot be written in this format, or the package for it is missing.
        CheckpointError: files are damaged, refused, or do not belong together.
    """
    if form not in FORMATS:
        raise UnknownNameError("format", form, FORMATS)
    if precision not in get_args(Precision):
        raise UnknownNameError("precision", precision, get_args(Precision))
    for source in (folder, adapter):
        if source is not None and out.resolve() == source.resolve():
            raise ConfigError(f"--out {str(out)!r} is what is read: name another folder, nothing is written over")
    kind = cast(Precision, precision)
    if form == "gguf" and out.is_dir():
        raise ConfigError(f"--out {str(out)!r} is a folder: name the GGUF file that is to be written")
    out.resolve().parent.mkdir(parents=True, exist_ok=True)
    if form == "hf":
        _write_folder(folder, out, adapter, precision)
    elif adapter is None:
        export_gguf(folder, out, kind)
    else:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.resolve().parent) as merged:
            _write_folder(folder, Path(merged) / "model", adapter, "f32")
            export_gguf(Path(merged) / "model", out, kind)
    print(out)


def _write_folder(folder: Path, out: Path, adapter: Path | None, precision: str) -> None:
    """A model folder in another precision or with adapters merged in, with all that lay beside the weights."""
    import torch

    from aha.model_folder import tokenizer_files
    from aha.models.checkpoint.adapter import load_adapter
    from aha.models.checkpoint.hf import load_pretrained, save_pretrained

    dtypes = {"f32": torch.float32, "bf16": torch.bfloat16}
    if precision not in dtypes:
        raise ConfigError(f"precision = {precision!r}: a model folder is written in f32 or bf16")
    model = load_pretrained(folder)
    if adapter is not None:
        load_adapter(model, adapter)
    save_pretrained(model, out, dtypes[precision], tokenizer_files(folder))
