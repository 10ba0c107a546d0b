"""Folders of safetensors files: read lazily and with suspicion, written completely or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from aha.errors import CheckpointError
from aha.files import sync_file, sync_folder, write_json
from aha.model_folder import read_model_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
DEFAULT_SHARD_BYTES = 5 * 10**9
REMAP_BYTES = 1 << 24
"""Read of a mapped file before it is mapped anew."""


class TensorReader:
    """The tensors of a folder by name: shapes from the headers, contents only when asked for.

    A file stays open while tensors are read from it, and is mapped anew now and then, so that little of
    what has been read stays in memory.

    Args:
        folder: with `model.safetensors`, or shards and their index.
        extra: further files to read where they exist.

    Raises:
        CheckpointError: where the folder has only pickles, a header is damaged, or the index points outside.
    """

    def __init__(self, folder: Path, extra: Sequence[str] = ()) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._file_of: dict[str, str] = {}
        self._open_files = contextlib.ExitStack()
        self._reader: Any = None
        self._reading, self._bytes_read = "", 0
        index = self._read_index()
        for name in [*dict.fromkeys(index.values()), *(n for n in extra if (folder / n).is_file())]:
            file = self._open(name)
            for key in file.keys():  # noqa: SIM118  (not a dict)
                if key in self._file_of:
                    raise CheckpointError(f"{folder}: tensor {key} is in {self._file_of[key]} and in {name}")
                self._file_of[key] = name
        for key, name in index.items():
            if key and self._file_of.get(key) != name:
                raise CheckpointError(
                    f"{folder / INDEX} says {key} is in {name}, which does not have it: fetch it again"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open_files.close()

    def names(self) -> set[str]:
        """All tensor names."""
        return set(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, from the header."""
        return tuple(self._files[self._file_of[name]].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """A tensor's type in safetensors' spelling: F32, BF16, F8_E4M3, ..."""
        return str(self._files[self._file_of[name]].get_slice(name).get_dtype())

    def read(self, name: str) -> Tensor:
        """A tensor's contents."""
        file = self._file_of[name]
        path = self.folder / file
        try:
            # What was read of a mapped file stays in this process's memory until the file is mapped anew.
            if self._reading != file or self._bytes_read > REMAP_BYTES:
                self._reader = safe_open(path, framework="pt", device="cpu")
                self._reading, self._bytes_read = file, 0
            tensor: Tensor = self._reader.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: cannot read {name} ({error})") from None
        self._bytes_read += tensor.numel() * tensor.element_size()
        return tensor

    def _read_index(self) -> dict[str, str]:
        """Which tensor is in which file; for a single file {"": its name}."""
        if (self.folder / SINGLE).is_file():
            return {"": SINGLE}
        if (self.folder / INDEX).is_file():
            files = read_model_json(self.folder / INDEX).get("weight_map")
            if not isinstance(files, dict) or not files:
                raise CheckpointError(f"{self.folder / INDEX} must have a weight_map from tensor names to file names")
            for key, name in files.items():
                if not isinstance(name, str) or Path(name).name != name or "\\" in name or name in ("", ".", ".."):
                    raise CheckpointError(f"{self.folder / INDEX}: {key} must name a file in the folder, got {name!r}")
            return files
        pickles = sorted(p.name for p in self.folder.glob("*") if p.suffix in PICKLES)
        if pickles:
            raise CheckpointError(
                f"{self.folder} has only pickles ({pickles[0]}), which can run code when read and are refused: "
                f"convert it to safetensors"
            )
        raise CheckpointError(f"{self.folder} has no {SINGLE} and no {INDEX}: give the folder of a checkpoint")

    def _open(self, name: str) -> Any:
        path = self.folder / name
        self._check_link(path)
        try:
            file = self._open_files.enter_context(safe_open(path, framework="pt", device="cpu"))
        except FileNotFoundError:
            raise CheckpointError(f"{self.folder} lacks {name}, which its index names: fetch it again") from None
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged ({error}): fetch or write it again") from None
        self._files[name] = file
        return file

    def _check_link(self, path: Path) -> None:
        """A file may be a link into the folder itself, or into the store of the Hugging Face cache it is part of."""
        allowed = [self.folder.resolve()]
        if self.folder.resolve().parent.name == "snapshots":
            allowed.append(self.folder.resolve().parent.parent / "blobs")
        if not any(path.resolve().is_relative_to(folder) for folder in allowed):
            raise CheckpointError(f"{path} is a link that leaves the folder, which is refused: put the file there")


@contextlib.contextmanager
def atomic_folder(folder: Path, marker: str = "config.json") -> Iterator[Path]:
    """Yields a new folder beside `folder` that takes its place, whole and synced to disk, when the block ends well.

    An older checkpoint there, known by its `marker`, is replaced; anything else is left alone.

    Raises:
        CheckpointError: where `folder` exists and is not a checkpoint.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / marker).is_file())):
        raise CheckpointError(f"{folder} exists and is not a checkpoint (no {marker}): choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        for path in [*temporary.iterdir(), temporary]:
            sync_file(path)
        _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, folder: Path) -> None:
    if folder.exists():
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
        folder.rename(aside / "replaced")
        temporary.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        temporary.rename(folder)
    sync_folder(folder.parent)


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes one safetensors file with the permissions of an ordinary file."""
    contiguous = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, path, metadata={"format": "pt"})
    path.chmod(0o666 & ~_umask())


def write_sharded(tensors: Iterable[tuple[str, Tensor]], folder: Path, shard_bytes: int) -> None:
    """Writes `model.safetensors`, or shards of at most `shard_bytes` and their index.

    Args:
        tensors: names and contents, in order. They are taken as they are written: no more than a shard is held.
        folder: where to write.
        shard_bytes: a tensor larger than this gets a shard of its own.
    """
    shards: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    total = filled = 0

    def write() -> None:
        write_tensors(shard, folder / f"part-{len(shards)}")
        shards.append(list(shard))
        shard.clear()

    for name, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if shard and filled + size > shard_bytes:
            write()
            filled = 0
        shard[name] = tensor
        filled += size
        total += size
    write()
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"part-{number - 1}").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(folder / INDEX, index, sort_keys=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
