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
    module_name, attribute = _split(reference)
    module = _from_file(Path(module_name)) if module_name.endswith(".py") else _imported(module_name, reference)
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        names = [name for name in vars(module) if not name.startswith("_")]
        hint = nearest(attribute, names)
        raise ConfigError(f"{reference!r}: module {module_name!r} has no {attribute!r}{hint}") from error


def reference_file(reference: str) -> Path | None:
    """The file that holds what a reference names, without running it; None for a module that has none of its own.

    Raises:
        ConfigError: there is no such file or module.
    """
    module_name, _ = _split(reference)
    if module_name.endswith(".py"):
        return _existing(Path(module_name))
    try:
        spec = importlib.util.find_spec(module_name)
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        here = Path(*module_name.split(".")).with_suffix(".py")
        if here.is_file():  # where workers look, which are started with `python -m`
            return here
        raise _no_module(module_name, reference)
    return Path(spec.origin) if spec.has_location and spec.origin else None


def _split(reference: str) -> tuple[str, str]:
    module_name, _, attribute = reference.rpartition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{reference!r}: expected module:name or path/to/file.py:name")
    return module_name, attribute


def _imported(name: str, reference: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise _no_module(error.name, reference) from error
        raise


def _no_module(name: str, reference: str) -> ConfigError:
    return ConfigError(
        f"{reference!r}: no module named {name!r}; is it installed, or on PYTHONPATH? A file is named as "
        "path/to/file.py:name"
    )


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, _existing(path))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"there is no file {str(path)!r}")
    return path
