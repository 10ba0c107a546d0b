"""The tensors of a checkpoint in several files, one from each process that holds rows of them.

Files are laid out as torch.distributed.checkpoint's Hugging Face storage lays them out, and its reader reads them:
safetensors whose header says at which row of the whole tensor each piece begins. They are written and read here without
its planner, whose messages between processes are pickles, and without a `.metadata` file, which is one.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from aha.errors import CheckpointError
from aha.models.sharded_tensors import is_sharded, is_written_here, local, local_rows

PART = re.compile(r"shard-\d{5}-model-00001-of-00001\.safetensors")
_INFO, _OFFSETS = "DCP_SHARDING_INFO", "saved_offsets"


def part_name(rank: int) -> str:
    """The file of a process."""
    return f"shard-{rank:05d}-model-00001-of-00001.safetensors"


def serialize_part(tensors: Mapping[str, Tensor]) -> bytes:
    """What this process has to write: its rows of spread tensors; of those that all have, all rows in the first."""
    mine, offsets = {}, {}
    for name, tensor in tensors.items():
        here = local(tensor).detach()
        if is_written_here(tensor) and (here.numel() or not is_sharded(tensor)):
            mine[name] = here.to("cpu", copy=True).contiguous()
            offsets[name] = {_OFFSETS: [local_rows(tensor).start, *[0] * (tensor.dim() - 1)] if tensor.dim() else []}
    metadata = {"format": "pt", "DCP_VERSION": "1.0", _INFO: json.dumps(offsets)}
    return safetensors.torch.save(mine, metadata)


class PartFiles(Mapping[str, Tensor]):
    """The whole tensors of all parts, each put together when it is asked for.

    Args:
        folder: of a checkpoint.
        names: its files.

    Raises:
        CheckpointError: a file is no such part, or rows are missing or there twice.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder = folder
        pieces: dict[str, list[tuple[int, str]]] = {}
        for name in names:
            with self._open(name) as file:
                try:
                    info = json.loads(file.metadata()[_INFO])
                    for key in file.keys():  # noqa: SIM118  (not a dict)
                        offsets = info[key][_OFFSETS]
                        pieces.setdefault(key, []).append((offsets[0] if offsets else 0, name))
                except (KeyError, TypeError, ValueError) as error:
                    raise CheckpointError(f"{folder / name} does not say which rows it has ({error!r})") from None
        self._pieces = {key: sorted(found) for key, found in pieces.items()}

    def __getitem__(self, key: str) -> Tensor:
        found = []
        end = 0
        for start, name in self._pieces[key]:
            with self._open(name) as file:
                tensor = file.get_tensor(key)
            if start != end:
                raise CheckpointError(f"{self._folder / name}: {key} has rows from {start} on, expected {end}")
            end += tensor.shape[0] if tensor.dim() else 1
            found.append(tensor)
        return found[0] if len(found) == 1 else torch.cat(found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[Any]:
        try:
            with safe_open(self._folder / name, framework="pt", device="cpu") as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self._folder / name} is missing or damaged ({error})") from None
