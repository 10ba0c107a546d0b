"""Strict configuration: one pydantic base class for every part's settings, YAML in and out, and `--set a.b=c`.

A configuration is data: it is read from YAML, overridden by dotted paths, validated once, and from then on immutable.
Whatever is wrong with it is said in one line that names the dotted path, what was found and what was expected:

    >>> class Optimizer(Config):
    ...     lr: float = Field(1e-3, gt=0, description="Peak learning rate.")
    >>> build_config(Optimizer, {"lrr": 0.1})
    Traceback (most recent call last):
    aha.errors.ConfigError: unknown key 'lrr' (did you mean 'lr'?); known keys: lr
    >>> build_config(Optimizer, {"lr": 0})
    Traceback (most recent call last):
    aha.errors.ConfigError: lr = 0: must be greater than 0
"""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aha.errors import ConfigError, nearest

__all__ = [
    "Config",
    "Field",
    "NamedStage",
    "StageName",
    "StageOf",
    "apply_overrides",
    "build_config",
    "changed_settings",
    "dump_config",
    "load_config",
    "merge",
    "named_stages",
    "override_config",
    "parse_override",
    "read_yaml",
]


class Config(BaseModel):
    """Base of every configuration: unknown keys are errors, values are immutable, field descriptions carry units."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), validate_default=True, allow_inf_nan=False
    )

    def data_identity(self) -> str:
        """The hash of data outside the run that these settings name; a stage is redone when it changes.

        Raises:
            ConfigError: the data are not there.
        """
        return ""

    def changed(self, **settings: Any) -> Self:
        """A copy with some settings replaced, validated as a whole.

        A mapping given for a section changes what it names and leaves the rest of the section.

        Raises:
            ConfigError: a name is unknown, or a value is out of bounds or does not go with the others.
        """
        present = dict(self)
        for name, value in settings.items():
            section = present.get(name)
            if isinstance(section, Config) and isinstance(value, Mapping):
                value = section.changed(**value)
            present[name] = value
        return build_config(type(self), present)


C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class StageOf:
    """Marks a setting that names an earlier stage: of which kind it is to be, and what a setting of its own must be."""

    kind: str = ""
    """Empty: any."""
    setting: str = ""
    value: str = ""


StageName = Annotated[str, StageOf()]
"""The name of an earlier stage of the recipe, whose model or files a stage reads; empty: none."""


class NamedStage(NamedTuple):
    """A setting that names a stage."""

    path: str
    """Of the setting, with dots."""
    name: str
    expected: StageOf


def named_stages(config: Config, path: str = "") -> Iterator[NamedStage]:
    """All names of stages that are set, in order of declaration.

    Args:
        config: settings, with sections and lists in them.
        path: where they stand, to start the paths with.
    """
    for field, info in type(config).model_fields.items():
        value = getattr(config, field)
        inside = [*info.metadata, *(mark for part in get_args(info.annotation) for mark in _marks(part))]
        items = [(str(at), item) for at, item in enumerate(value)] if isinstance(value, list | tuple) else [("", value)]
        for at, item in items:
            where = ".".join(filter(None, (path, field, at)))
            if isinstance(item, Config):
                yield from named_stages(item, where)
            elif item and (marks := [mark for mark in inside if isinstance(mark, StageOf)]):
                yield NamedStage(where, item, marks[0])


def _marks(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__metadata__", ())


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads `1e-4` as a number (YAML 1.1 wants `1.0e-4`) and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds one mapping, after looking for repeated keys."""
        keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(
                    f"key {key!r} is given twice from line {node.start_mark.line + 1} on; keep one of them"
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Raises:
        ConfigError: there is no such file, it is not YAML, or it is not a mapping.
    """
    try:
        data = _parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"cannot read configuration {str(path)!r}: {reason}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of settings (`key: value` lines), found {_kind(data)}")
    return data


def _parse_yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"not valid YAML: {line}{getattr(error, 'problem', None) or error}") from error


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, list | tuple):
        return "a list"
    return repr(value)


def parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """Splits `a.b=c` into the path ("a", "b") and the value.

    The value is read as YAML: `8`, `1e-4`, `true`, `[1, 2]`, `{x: 1}`, `null`, or a word.

    Raises:
        ConfigError: there is no `=`, a part of the path is empty, or the value is not YAML.
    """
    path, equals, value = text.partition("=")
    parts = tuple(path.strip().split("."))
    if not equals or not all(parts):
        raise ConfigError(f"--set {text!r}: expected a.b=value, as in --set rl.group_size=8")
    try:
        return parts, _parse_yaml(value)
    except ConfigError as error:
        raise ConfigError(f"--set {text!r}: the value is {error}") from error


def apply_overrides(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Returns a copy of `data` with each `a.b=c` applied in order. A list is entered by index: `a.0.b=c`.

    Keys that do not exist are added, so that validation names them with the nearest spelling.

    Raises:
        ConfigError: an override is malformed, or its path leads through something that is neither a section nor a list.
    """
    result = copy.deepcopy(dict(data))
    for text in overrides:
        path, value = parse_override(text)
        _set(result, path, value, text)
    return result


def _set(target: Any, path: Sequence[str], value: Any, text: str) -> None:
    for depth, key in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(target, list):
            if not key.isdecimal() or int(key) >= len(target):
                where = ".".join(path[:depth])
                raise ConfigError(
                    f"--set {text!r}: {where} is a list of {len(target)}; expected an index, found {key!r}"
                )
            index: Any = int(key)
        elif isinstance(target, dict):
            index = key
            if not last and target.get(key) is None:
                target[key] = {}
        else:
            raise ConfigError(f"--set {text!r}: {'.'.join(path[:depth])} is {_kind(target)}, which has no key {key!r}")
        if last:
            target[index] = value
        else:
            target = target[index]


def merge(default: Config, data: Mapping[str, Any]) -> dict[str, Any]:
    """Lays partial settings over a complete configuration and returns plain data, not yet validated.

    Sections that are themselves configurations are merged key by key; everything else (numbers, lists, free mappings)
    is replaced as a whole. A section whose `kind` changes is replaced too, because the keys of another kind mean
    nothing there.
    """
    merged: dict[str, Any] = default.model_dump(mode="json")
    for key, value in data.items():
        section = getattr(default, key, None) if key in type(default).model_fields else None
        if isinstance(section, Config) and isinstance(value, Mapping):
            same_kind = "kind" not in value or value["kind"] == getattr(section, "kind", value["kind"])
            merged[key] = merge(section, value) if same_kind else dict(value)
        else:
            merged[key] = value
    return merged


def build_config(cls: type[C], data: Mapping[str, Any], source: str = "") -> C:
    """Validates plain data into a configuration.

    Args:
        cls: the configuration class.
        data: plain settings, as read from YAML.
        source: where they came from (a file name), to start the message with.

    Raises:
        ConfigError: a key is unknown (the message names the dotted path and the nearest spelling), missing, or its
            value is out of bounds or of the wrong type (the message names the field, the value and the bound). All
            faults are listed, in one line.
    """
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        inner = [fault["loc"] for fault in found if fault["type"] != "too_short"]
        counted = [  # a list is "too short" where its items are wrong: that is no fault of its own
            fault
            for fault in found
            if fault["type"] != "too_short" or all(loc[: len(fault["loc"])] != fault["loc"] for loc in inner)
        ]
        faults = [_describe(cls, fault) for fault in counted]
        raise ConfigError((f"{source}: " if source else "") + "; ".join(dict.fromkeys(faults))) from error


def override_config(default: C, data: Mapping[str, Any], overrides: Iterable[str] = (), source: str = "") -> C:
    """A complete configuration, changed by partial settings (see `merge`) and then by `a.b=c` overrides, validated."""
    return build_config(type(default), apply_overrides(merge(default, data), overrides), source)


def load_config(cls: type[C], path: Path, overrides: Iterable[str] = ()) -> C:
    """Reads a YAML file into a configuration class, after applying `a.b=c` overrides.

    Raises:
        ConfigError: as `read_yaml`, `apply_overrides` and `build_config`.
    """
    return build_config(cls, apply_overrides(read_yaml(path), overrides), str(path))


def changed_settings(config: Config, start: Config | None) -> dict[str, Any]:
    """The settings that differ from their class's defaults or from `start`, as plain data.

    Laid over `start` (see `merge`), they make the same configuration again.

    Args:
        config: with sections and lists in it.
        start: a configuration of the same class; None for the class's defaults.
    """
    complete, short = (config.model_dump(mode="json", exclude_defaults=some) for some in (False, True))
    found: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value, default = getattr(config, name), field.get_default(call_default_factory=True)
        before = default if start is None else getattr(start, name)
        if isinstance(value, Config) and type(before) is type(value):
            if inner := changed_settings(value, before):
                found[name] = inner
        elif value != default or value != before:
            found[name] = short.get(name, complete[name])
    return found


SHORT, LINE = 116, 120
"""Characters of a part of a printed configuration that stands in one line, and of a line."""


def dump_config(config: Config | Mapping[str, Any]) -> str:
    """A configuration, or some of its settings, as YAML in order of declaration: equal values give equal bytes."""
    data = config.model_dump(mode="json") if isinstance(config, Config) else dict(config)
    dumper = yaml.SafeDumper(io.StringIO(), sort_keys=False)
    dumper.ignore_aliases = lambda _: True
    root = dumper.represent_data(data)
    _one_line_where_short(root)
    root.flow_style = False
    text: str = yaml.serialize(root, Dumper=yaml.SafeDumper, allow_unicode=True, width=LINE)
    return text


def _one_line_where_short(node: yaml.Node) -> int:
    """Lays a part of a document out in one line where it is short; returns the characters that it takes so."""
    if isinstance(node, yaml.MappingNode):
        length = sum(_one_line_where_short(one) + 2 for pair in node.value for one in pair)
    elif isinstance(node, yaml.SequenceNode):
        length = 2 + sum(_one_line_where_short(one) + 2 for one in node.value)
    else:
        return len(node.value)
    node.flow_style = length <= SHORT
    return length


def _describe(cls: type[BaseModel], fault: Any) -> str:
    """One fault that pydantic found, in our words."""
    location = tuple(fault["loc"])
    path = ".".join(str(part) for part in location)
    kind = fault["type"]
    if kind == "extra_forbidden":
        known = _known_keys(cls, location[:-1])
        listed = f"; known keys: {', '.join(known)}" if known else ""
        return f"unknown key {path!r}{nearest(str(location[-1]), known)}{listed}"
    if kind == "missing":
        return f"{path} is missing: it has no default, set it"
    message = fault["msg"]
    for prefix in ("Input should be ", "Value error, "):
        if message.startswith(prefix):
            message = ("must be " if prefix.startswith("Input") else "") + message.removeprefix(prefix)
            break
    if not path:
        return str(message)
    value = fault["input"]
    if kind == "value_error" and isinstance(value, Mapping | BaseModel):  # of settings that do not go together
        return f"{path}: {message}"
    shown = _kind(value) if isinstance(value, Mapping | list | tuple) else repr(value)
    return f"{path} = {shown}: {message}"


def _known_keys(cls: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys of the section at `path` below a class; empty where the path leaves what annotations can tell."""
    candidates: list[Any] = [cls]
    for part in path:
        inner: list[Any] = []
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                if str(part) in candidate.model_fields:
                    inner += _sections(candidate.model_fields[str(part)].annotation)
            else:
                inner += _sections(get_args(candidate)[-1 if get_origin(candidate) is dict else 0])
        candidates = inner
    keys = [key for c in candidates if isinstance(c, type) and issubclass(c, BaseModel) for key in c.model_fields]
    return list(dict.fromkeys(keys))


def _sections(annotation: Any) -> list[Any]:
    """What an annotation may hold that has keys: configurations, and containers of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = get_origin(annotation)
    if origin in (dict, list, tuple):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections(argument)]
