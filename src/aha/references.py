"""Code of the user's own by name: `module:attribute`, or `path/to/file.py:attribute`."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from aha.errors import ConfigError, nearest


def load_reference(reference: str) -> Any:
    """Imports what a reference names.

    Raises:
        ConfigError: there is no such module, file or attribute.
    """
    module_name, _, attribute = reference.rpartition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{reference!r}: expected module:name or path/to/file.py:name")
    module = _from_file(Path(module_name)) if module_name.endswith(".py") else _imported(module_name, reference)
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        names = [name for name in vars(module) if not name.startswith("_")]
        hint = nearest(attribute, names)
        raise ConfigError(f"{reference!r}: module {module_name!r} has no {attribute!r}{hint}") from error


def _imported(name: str, reference: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"{reference!r}: no module named {error.name!r}; is it installed, or on PYTHONPATH? A file is named as "
                "path/to/file.py:name"
            ) from error
        raise


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"there is no file {str(path)!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
