"""The model that a stage trains: how it is loaded (numbers, memory, adapters) and what is left of it afterwards.

With adapters a stage writes two folders: the model with them merged in, which every later stage and every engine reads
like any other, and the adapters alone, in peft's layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aha.errors import DivergedError
from aha.models.checkpoint.adapter import save_adapter
from aha.models.checkpoint.hf import load_pretrained, save_pretrained
from aha.models.language_model import LanguageModel
from aha.models.lora import add_adapters
from aha.models.lora_linear import LoRAConfig, adapted_layers
from aha.models.sharded_tensors import local
from aha.training.distributed import Distributed
from aha.training.divergence import first_not_finite
from aha.training.stage import StageContext

ADAPTER = "-adapter"
"""What is added to the name of a model's folder for the one beside it that holds the adapters alone."""


def load_for_training(context: StageContext[Any], folder: Path, lora: LoRAConfig | None = None) -> LanguageModel:
    """The model of a folder, ready for training; with `lora` only its new adapters are trained.

    Args:
        context: of the stage that trains it: where, in what numbers, and what is kept for the backward pass.
        folder: a checkpoint in Hugging Face layout.
        lora: adapters, or None to train everything.

    Raises:
        CheckpointError: the files are damaged, refused, or do not fit their config.json.
        UnknownNameError: the model has no layer that `lora` names.
    """
    model = load_pretrained(folder, **context.placement)
    model.activation_checkpointing = context.parallel.activation_checkpointing
    return model if lora is None else add_adapters(model, lora, context.derive_seed("adapters"))


def save_trained(
    model: LanguageModel, folder: Path, tokenizer_files: Mapping[str, str], distributed: Distributed
) -> None:
    """Writes the model folder, adapters merged in, and beside it the adapters where there are any.

    Every process calls this; rank 0 writes, and the others wait for it.

    Raises:
        DivergedError: a weight is not finite; nothing is written.
    """
    if (name := first_not_finite((name, local(tensor)) for name, tensor in model.state_dict().items())) is not None:
        raise DivergedError(
            f"{folder}: {name} holds values that are not finite, so the model is not published; lower the learning rate"
        )
    if any(adapted_layers(model)):
        save_adapter(model, folder.with_name(folder.name + ADAPTER), writes=distributed.is_first)
    save_pretrained(model, folder, tokenizer_files=tokenizer_files, writes=distributed.is_first)
    distributed.barrier()
