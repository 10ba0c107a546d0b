"""Python values as JSON text and back, so that results cross process borders as data and nothing else.

Subclasses travel as their base (a Counter as a dict, a named tuple as a tuple); what is not plain data is refused.
"""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_DEPTH = 100


def encode(value: Any) -> str:
    """Writes a value as JSON text.

    Raises:
        TypeError: it is, or contains, something that is not plain data.
        ValueError: it is nested deeper than `MAX_DEPTH`.
    """
    return json.dumps(_pack(value, 0))


def decode(text: str) -> Any:
    """Reads what `encode` wrote, into values of exactly the built-in types.

    Raises:
        TypeError, ValueError: the text is something else.
    """
    return _unpack(json.loads(text))


def _pack(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"a value nested deeper than {MAX_DEPTH}")
    deeper = depth + 1
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, list):
        return [_pack(item, deeper) for item in list.__iter__(value)]
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, deeper) for item in tuple.__iter__(value)]}
    if isinstance(value, dict):
        return {"dict": [[_pack(key, deeper), _pack(item, deeper)] for key, item in dict.items(value)]}
    if isinstance(value, set | frozenset):
        kind = "set" if isinstance(value, set) else "frozenset"
        return {kind: [_pack(item, deeper) for item in value]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, Fraction):
        return {"fraction": [value.numerator, value.denominator]}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    raise TypeError(f"a value of type {type(value).__name__}, which is not plain data")


def _unpack(packed: Any) -> Any:
    if isinstance(packed, list):
        return [_unpack(item) for item in packed]
    if not isinstance(packed, dict):
        return packed
    ((kind, inner),) = packed.items()
    match kind:
        case "tuple":
            return tuple(_unpack(item) for item in inner)
        case "dict":
            return {_unpack(key): _unpack(item) for key, item in inner}
        case "set":
            return {_unpack(item) for item in inner}
        case "frozenset":
            return frozenset(_unpack(item) for item in inner)
        case "bytes":
            return bytes.fromhex(inner)
        case "complex":
            return complex(*inner)
        case "fraction":
            return Fraction(*inner)
        case "decimal":
            return Decimal(inner)
    raise ValueError(f"no such kind of value: {str(kind)[:40]!r}")
