"""The software and the machine that a run was made with. No torch here: versions come from package metadata."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DISTRIBUTION = "aha-r1"
"""The name under which pip knows this package; `aha` is somebody else's."""


def environment() -> dict[str, Any]:
    """What a run should be able to say about the software and the machine that made it."""
    versions = {}
    for package in (DISTRIBUTION, "torch", "numpy", "safetensors", "tokenizers", "pydantic"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "versions": versions,
        "git": git_commit(Path(__file__).parent),
        "source_sha256": source_sha256(Path(__file__).parent),
        "machine": {
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "cpu": cpu_model(),
            "cores": available_cores(),
        },
    }


def install_command(extra: str) -> str:
    """The command that adds an extra of this package to the environment at hand, as it can be typed here.

    In a clone it installs from the clone, under the clone's constraints; elsewhere the published distribution.
    """
    clone = Path(__file__).resolve().parents[2]
    here = Path.cwd()
    python = Path(sys.executable)
    typed = python.relative_to(here) if python.is_relative_to(here) else python
    installer = f"{typed} -m pip install" if importlib.util.find_spec("pip") else f"uv pip install --python {typed}"
    if not (clone / "pyproject.toml").is_file():
        return f"{installer} '{DISTRIBUTION}[{extra}]'"
    root = "." if clone == here else str(clone)
    return f"{installer} -c {Path(root) / 'constraints.txt'} -e '{root}[{extra}]'"


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """The machine's main memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def gpus() -> list[tuple[str, int]]:
    """Name and bytes of memory of each NVIDIA GPU; nothing where its driver's tool is not there."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.rpartition(",") for line in listed.splitlines() if "," in line)
    return [(name.strip(), int(mebibytes) << 20) for name, _, mebibytes in rows]


def cpu_model() -> str:
    """The processor's name, as far as the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def source_sha256(folder: Path) -> str:
    """One hash over the Python files below a folder: whether two starts of a run were of the same code."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def git_commit(folder: Path) -> dict[str, Any] | None:
    """The commit of the checkout that holds `folder` and whether it has changes since; None outside a checkout."""

    def git(*arguments: str) -> str:
        command: Sequence[str] = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "errors.py")  # an environment inside another project's checkout is not ours
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
