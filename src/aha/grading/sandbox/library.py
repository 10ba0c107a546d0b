"""Installed packages that the programs of a sandbox may import: their files and no others, read-only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

PLACE = "/library"
"""Where the sandbox sees them."""
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Library:
    """What is there to import, and a call that is made once before any program starts, to have it loaded."""

    distributions: tuple[str, ...]
    """By their names on PyPI; what they require comes with them."""
    modules: tuple[Path, ...]
    """Files of this package, seen under their import path."""
    function: str
    """``module:function``, what programs call."""
    warm: tuple[Any, ...]
    """Arguments of the first call, JSON values; what it returns or raises is nobody's concern."""

    def shown(self, package: str) -> dict[str, str]:
        """Path on the host to path inside.

        Args:
            package: where the sandbox sees this package.
        """
        source = Path(__file__).parents[3]
        ours = {str(path): f"{package}/{path.relative_to(source)}" for path in self.modules}
        return installed_files(self.distributions) | ours


def installed_files(names: Sequence[str]) -> dict[str, str]:
    """The top-level files and folders of installed distributions and of all that they require."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # required elsewhere, on another system for instance
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "/", "__pycache__"}:
            path = Path(str(distribution.locate_file(top))).resolve()
            if path.exists():
                found[str(path)] = f"{PLACE}/{top}"
        for required in distribution.requires or ():
            if "extra ==" not in required and (match := _NAME.match(required)):
                waiting.append(match.group())
    return found
