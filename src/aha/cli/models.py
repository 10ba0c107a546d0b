"""`aha model` and `aha export`: models are counted, and written for other software."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from aha.environment import install_command
from aha.errors import ConfigError


def model(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", help="tiny, v2-lite, v3, or a model folder.")],
) -> None:
    """Count a model: parameters, cache per token, and the memory that each stage takes, beside this machine's.

    Nothing is loaded: a folder's config.json, tokenizer.json and the sizes of its files are enough.

    [bold]Examples[/bold]

      aha model v3

      aha model Qwen3-0.6B
    """
    from aha.recipes.describe import describe_model

    print(describe_model(name))


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="DIR", help="A model folder in Hugging Face layout.")],
    out: Annotated[Path, typer.Option(help="The folder or the file to write.")],
    to: Annotated[str, typer.Option(help="hf: a model folder; gguf: a file for llama.cpp (dense families).")] = "hf",
    adapter: Annotated[
        Path | None, typer.Option(help="A folder of LoRA adapters to merge in, as peft writes them.", file_okay=False)
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the matrices: f32, bf16, or f16 (gguf only).")] = "bf16",
) -> None:
    """Write a model for other software: a Hugging Face folder, adapters merged in, or a GGUF file for llama.cpp.

    [bold]Examples[/bold]

      aha export runs/r1-tiny-seed0/student-qwen/model --to gguf --out student.gguf

      aha export Qwen3-0.6B --adapter my-adapter --out Qwen3-0.6B-mine
    """
    from aha.recipes.export import export_model

    export_model(checkpoint, out, to, adapter, precision)


def push(
    checkpoint: Annotated[Path, typer.Argument(metavar="DIR", help="A model folder, such as RUN/STAGE/model.")],
    repo: Annotated[str, typer.Argument(metavar="NAME/REPO", help="The repository on the Hugging Face Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Upload a model to the Hugging Face Hub, with a card that says what this run has measured of it.

    [bold]Example[/bold]

      aha push runs/r1-tiny-seed0/r1/model me/r1-tiny
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ConfigError(f"`aha push` needs huggingface_hub: {install_command('hf')}")
    from aha.recipes.push import push as push_model

    print(push_model(checkpoint, repo, private))
