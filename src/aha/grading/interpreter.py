"""The laptop world's programming language: a line of instructions on one integer, run by a bounded interpreter.

    program      := instruction (";" instruction)*
    instruction  := ("add" | "sub" | "mul" | "div" | "mod" | "max" | "min") number | "neg" | "abs"

`div` and `mod` round down. Time and memory are bounded by construction: no loops, at most 16 instructions, numbers of
at most six digits. Untrusted programs therefore need no sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MAX_INSTRUCTIONS = 16
BINARY: dict[str, Callable[[int, int], int]] = {
    "add": lambda x, n: x + n,
    "sub": lambda x, n: x - n,
    "mul": lambda x, n: x * n,
    "div": lambda x, n: x // n,
    "mod": lambda x, n: x % n,
    "max": max,
    "min": min,
}
UNARY: dict[str, Callable[[int], int]] = {"neg": lambda x: -x, "abs": abs}
_INSTRUCTION = re.compile(r"\s*(?:(add|sub|mul|div|mod|max|min)\s+([0-9]{1,6})|(neg|abs))\s*", re.ASCII)

Program = list[tuple[str, int]]


def parse_program(text: str) -> Program:
    """Parses a program.

    Raises:
        ValueError: with the position (from 1) of the first instruction that is not one, or of a division by zero.
    """
    parts = text.split(";")
    if len(parts) > MAX_INSTRUCTIONS:
        raise ValueError(f"{len(parts)} instructions; at most {MAX_INSTRUCTIONS} are allowed")
    program: Program = []
    for position, part in enumerate(parts, start=1):
        match = _INSTRUCTION.fullmatch(part)
        if match is None:
            raise ValueError(f"instruction {position} is not one: {part[:40]!r}")
        name, number = (match[3], 0) if match[3] else (match[1], int(match[2]))
        if name in ("div", "mod") and number == 0:
            raise ValueError(f"instruction {position} divides by zero")
        program.append((name, number))
    return program


def run_program(program: Program, value: int) -> int:
    """Runs a parsed program on an input."""
    for name, number in program:
        value = UNARY[name](value) if name in UNARY else BINARY[name](value, number)
    return value


def format_program(program: Program) -> str:
    """Writes a program as text that `parse_program` reads back."""
    return ";".join(name if name in UNARY else f"{name} {number}" for name, number in program)
