"""Numbers as the page writes them."""

from __future__ import annotations


def percent(value: float | None) -> str:
    """A share in percent; a dash for none."""
    return "–" if value is None else f"{100 * value:.1f}%"


def number(value: float | None, digits: int = 1) -> str:
    """A number with so many decimals; a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}"


def count(value: int) -> str:
    """A number of parameters in millions or billions."""
    return f"{value / 1e9:.1f}B" if value >= 1e9 else f"{value / 1e6:.2f}M"
