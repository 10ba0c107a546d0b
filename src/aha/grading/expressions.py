"""Exact arithmetic on untrusted text: a bounded recursive-descent parser over + - * / and parentheses, in fractions."""

from __future__ import annotations

from fractions import Fraction

MAX_CHARACTERS = 120
MAX_DIGITS = 9


class _Parser:
    """Parses one expression; raises ValueError on anything else. Depth and length are bounded by `MAX_CHARACTERS`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.numbers: list[int] = []

    def peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1
        return self.text[self.at] if self.at < len(self.text) else ""

    def sum(self) -> Fraction:
        value = self.product()
        while (op := self.peek()) in ("+", "-"):
            self.at += 1
            right = self.product()
            value = value + right if op == "+" else value - right
        return value

    def product(self) -> Fraction:
        value = self.atom()
        while (op := self.peek()) in ("*", "/"):
            self.at += 1
            right = self.atom()
            if op == "/" and right == 0:
                raise ValueError("division by zero")
            value = value * right if op == "*" else value / right
        return value

    def atom(self) -> Fraction:
        if self.peek() == "(":
            self.at += 1
            value = self.sum()
            if self.peek() != ")":
                raise ValueError("missing )")
            self.at += 1
            return value
        start = self.at
        while self.at < len(self.text) and self.text[self.at] in "0123456789":
            self.at += 1
        if not 0 < self.at - start <= MAX_DIGITS:
            raise ValueError("a number was expected")
        self.numbers.append(int(self.text[start : self.at]))
        return Fraction(self.numbers[-1])


def evaluate(text: str) -> tuple[Fraction, list[int]]:
    """Evaluates an arithmetic expression exactly.

    Args:
        text: numbers of at most nine ASCII digits, + - * / and parentheses; at most 120 characters.

    Returns:
        The value, and the numbers that occur, in order.

    Raises:
        ValueError: the text is anything else, or divides by zero.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError("expression too long")
    parser = _Parser(text)
    value = parser.sum()
    if parser.peek():
        raise ValueError(f"unexpected {parser.peek()!r}")
    return value, parser.numbers


def integer(text: str) -> int | None:
    """Reads a plain non-negative integer of at most nine digits (surrounding space allowed), or returns None."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None
