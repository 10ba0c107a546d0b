"""Checkpoints that are whole or not there, proven by hash before use, and made of safetensors and JSON alone.

    checkpoints/step-00000120/
        tensors.safetensors
        state.json
        manifest.json       SHA-256 and size of the other files, identity of the stage; written last

Where the model is spread over processes, each writes its rows into a file of its own (`aha.training.part_files`) in
place of `tensors.safetensors`; any number of processes can go on from either.

A checkpoint is written into a temporary folder, every file is flushed to the disk, the manifest comes last, and the
folder is then renamed into place. Loading walks from the newest to the oldest, recomputes every hash, and sets aside
(as `.bad`) whatever does not agree, saying so. The only two outcomes of a crash are "the new one" and "the one
before".
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from aha.errors import CheckpointError
from aha.files import cannot_write, canonical_json, file_sha256, fingerprint, sync_folder
from aha.models.sharded_tensors import is_sharded
from aha.training.distributed import Distributed
from aha.training.part_files import PART, PartFiles, part_name, serialize_part

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
FORMAT = 1

_NAME = re.compile(r"step-(\d{8,})")
_TEMPORARY = ".tmp-"


@dataclass(frozen=True)
class Checkpoint:
    """What a training loop needs to go on: tensors by name, and everything else as JSON."""

    step: int
    tensors: Mapping[str, Tensor]
    state: dict[str, Any]


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    identity: str,
    keep: int = 2,
    distributed: Distributed | None = None,
) -> Path:
    """Writes a checkpoint, verified and on the disk when this returns, and deletes all but the newest `keep`.

    Args:
        folder: holds the checkpoints of one stage.
        step: how many steps are done.
        tensors: on any device; tensors that share memory are stored once each.
        state: JSON-able.
        identity: of the stage; `load_latest` only takes checkpoints of the same identity.
        keep: how many to keep, this one included.
        distributed: the processes, which all call this; what is not spread is written by rank 0. None: there is one.

    Raises:
        CheckpointError: it cannot be written (a full disk, a read-only folder). Earlier checkpoints are intact.
    """
    target = folder / f"step-{step:08d}"
    temporary = folder / f"{_TEMPORARY}{step:08d}"
    everywhere = _Together(distributed or Distributed(), target, temporary)
    first = everywhere.distributed.is_first
    if any(everywhere(lambda: first and _is_there(target, temporary, identity))):
        return target
    entries = everywhere(lambda: _write_tensors(temporary, tensors, everywhere.distributed))
    files = {name: entry for part in entries for name, entry in part.items()}
    everywhere(lambda: _finish(target, temporary, files, step, state, identity, keep) if first else None)
    return target


class _Together:
    """Does something in every process, and fails in all where it fails in one."""

    def __init__(self, distributed: Distributed, target: Path, temporary: Path) -> None:
        self.distributed, self._target, self._temporary = distributed, target, temporary

    def __call__(self, work: Callable[[], Any]) -> list[Any]:
        """The JSON-able results of all processes, in order of rank."""
        result = problem = None
        try:
            result = work()
        except OSError as error:
            reason = cannot_write(self._target, error)
            step = int(self._target.name.removeprefix("step-"))
            problem = f"checkpoint at step {step} not saved: {reason}; earlier checkpoints are intact"
        except CheckpointError as error:
            problem = str(error)
        answers = self.distributed.all_gather_object([result, problem])
        problems = [problem for _, problem in answers if problem]
        if problems:
            if self.distributed.is_first:
                shutil.rmtree(self._temporary, ignore_errors=True)
            raise CheckpointError(problems[0])
        return [result for result, _ in answers]


def _is_there(target: Path, temporary: Path, identity: str) -> bool:
    """Whether the checkpoint exists already; makes the temporary folder for it where it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_temporary(target.parent)
    if target.exists():
        if _is_good(target, identity):
            return True
        _delete(target)
    temporary.mkdir()
    return False


def _write_tensors(
    folder: Path, tensors: Mapping[str, Tensor], distributed: Distributed
) -> dict[str, dict[str, str | int]]:
    """Writes this process's file of tensors, if it has one; its entry in the manifest."""
    if any(map(is_sharded, tensors.values())):
        name, data = part_name(distributed.rank), serialize_part(tensors)
    elif distributed.is_first:
        name, data = TENSORS, safetensors.torch.save(_separate(tensors))
    else:
        return {}
    return {name: _write(folder / name, data)}


def _finish(
    target: Path,
    temporary: Path,
    files: dict[str, dict[str, str | int]],
    step: int,
    state: Mapping[str, Any],
    identity: str,
    keep: int,
) -> None:
    """Writes what belongs beside the tensors, the manifest last, and puts the checkpoint in its place."""
    files[STATE] = _write(temporary / STATE, json.dumps(state, ensure_ascii=False).encode())
    _write(temporary / MANIFEST, _manifest({"format": FORMAT, "step": step, "identity": identity, "files": files}))
    sync_folder(temporary)
    temporary.rename(target)
    sync_folder(target.parent)
    if not _is_good(target, identity):
        raise CheckpointError(f"checkpoint {str(target)!r} does not read back as it was written; check the disk")
    for old in list(_newest_first(target.parent))[keep:]:
        _delete(old)


def _write(path: Path, data: bytes) -> dict[str, str | int]:
    """Writes a file to the disk; its entry in the manifest."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def _newest_first(folder: Path) -> Iterator[Path]:
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    for _, path in sorted(found, reverse=True):
        yield path


def _clear_temporary(folder: Path) -> None:
    """Removes what a killed process left half written or half deleted."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path)


def _delete(path: Path) -> None:
    """Deletes a checkpoint so that a crash in between leaves plain rubbish, not what looks like a damaged one."""
    doomed = path.with_name(f"{_TEMPORARY}delete-{path.name}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def _is_good(path: Path, identity: str) -> bool:
    """Whether a checkpoint's files hash to what its manifest says, without holding them in memory."""
    try:
        manifest = _read_manifest(path)
        hashes = {name: file_sha256(path / name) for name in manifest["files"]}
    except (CheckpointError, OSError):
        return False
    expected = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    return manifest["identity"] == identity and hashes == expected


def _manifest(content: dict[str, Any]) -> bytes:
    """A manifest that proves itself: one canonical text, with its own hash in it, so that any changed bit shows."""
    return canonical_json({**content, "self": fingerprint(content)}).encode()


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors that share no memory, as the file format wants them."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().to("cpu").contiguous()
        address = plain.untyped_storage().data_ptr()
        if address in seen or plain.untyped_storage().nbytes() != plain.numel() * plain.element_size():
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        result[name] = plain
    return result


def load_latest(folder: Path, identity: str, say: Callable[[str], None] = lambda message: None) -> Checkpoint | None:
    """Loads the newest good checkpoint of a stage.

    Args:
        folder: holds the checkpoints of one stage.
        identity: of the stage; checkpoints of another identity are passed over.
        say: told, in one line each, about every checkpoint that is damaged and set aside as `.bad`.

    Returns:
        The checkpoint, or None where there is no good one.
    """
    if not folder.is_dir():
        return None
    _clear_temporary(folder)
    for path in list(_newest_first(folder)):
        try:
            return load(path, identity)
        except _OtherIdentityError as error:
            say(f"{error}; passed over")
        except CheckpointError as error:
            aside = next(
                p for n in itertools.count() if not (p := path.with_name(f"{path.name}.bad{n or ''}")).exists()
            )
            path.rename(aside)
            sync_folder(folder)
            say(f"{error}; set aside as {aside.name!r}")
    return None


def load(path: Path, identity: str | None = None) -> Checkpoint:
    """Loads one checkpoint after checking every hash.

    `tensors.safetensors` is read once: what was hashed is what is used. Files of several processes, together larger
    than a process may hold, are hashed first and read tensor by tensor afterwards.

    Raises:
        CheckpointError: a file is missing, changed, or not what the manifest says, or the identity is another.
    """
    manifest = _read_manifest(path)
    entries = manifest["files"]
    parts = sorted(name for name in entries if PART.fullmatch(name))
    for name in parts:
        _verify(path / name, entries[name])
    contents = {name: _read_verified(path / name, entries[name]) for name in entries if name not in parts}
    if identity is not None and manifest["identity"] != identity:
        raise _OtherIdentityError(f"checkpoint {path.name!r} belongs to another configuration")
    tensors = PartFiles(path, parts) if parts else safetensors.torch.load(contents[TENSORS])
    return Checkpoint(manifest["step"], tensors, json.loads(contents[STATE]))


class _OtherIdentityError(CheckpointError):
    """A good checkpoint, of another stage or configuration."""


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path.name!r} is damaged: {MANIFEST}: {error.strerror}") from error
    try:
        content = json.loads(text)
        claimed = content.pop("self")
        sound = fingerprint(content) == claimed and _manifest(content) == text
        others = set(content["files"]) - {STATE}
        sound = sound and STATE in content["files"] and (others == {TENSORS} or _are_parts(others))
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise CheckpointError(f"checkpoint {path.name!r} is damaged: {MANIFEST} was changed after it was written")
    if content["format"] != FORMAT:
        raise CheckpointError(f"checkpoint {path.name!r} has format {content['format']}, expected {FORMAT}")
    if f"step-{content['step']:08d}" != path.name:
        raise CheckpointError(f"checkpoint {path.name!r} is damaged: its manifest is for step {content['step']}")
    return dict(content)


def _are_parts(names: set[str]) -> bool:
    """Whether these are the files of all of some processes."""
    return bool(names) and names == {part_name(rank) for rank in range(len(names))}


def _verify(path: Path, entry: Mapping[str, Any]) -> None:
    """Checks a file's hash without holding it in memory."""
    try:
        size, found = path.stat().st_size, file_sha256(path)
    except OSError as error:
        raise CheckpointError(f"checkpoint {path.parent.name!r} is damaged: {path.name}: {error.strerror}") from error
    _compare(path, entry, size, found)


def _read_verified(path: Path, entry: Mapping[str, Any]) -> bytes:
    """The content of a file whose hash is right."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path.parent.name!r} is damaged: {path.name}: {error.strerror}") from error
    _compare(path, entry, len(content), hashlib.sha256(content).hexdigest())
    return content


def _compare(path: Path, entry: Mapping[str, Any], size: int, sha256: str) -> None:
    if size != entry["size"]:
        sizes = f"has {size} bytes, expected {entry['size']}"
        raise CheckpointError(f"checkpoint {path.parent.name!r} is damaged: {path.name} {sizes}")
    if sha256 != entry["sha256"]:
        raise CheckpointError(f"checkpoint {path.parent.name!r} is damaged: the content of {path.name} has changed")
