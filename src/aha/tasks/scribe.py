"""How worked solutions are written: arithmetic steps that can slip, checks that catch slips, words in two languages.

A web of solutions contains mistakes. Styles `brief` and `full` carry a slip on to a wrong answer, consistently; style
`check` verifies each step by the inverse operation, notices, says so ("Wait, no."), and does the step again. What
reinforcement learning can find (that checking pays) is therefore in the corpus, and how often is a setting.
"""

from __future__ import annotations

import random
import re

from aha.types import Style, Voice

INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}

WORDS: dict[str, dict[str, str]] = {
    "check": {"en": " check ", "zh": "检查"},
    "ok": {"en": " ok", "zh": "对"},
    "wait": {"en": " Wait, no.", "zh": "等等，不对。"},
    "yes": {"en": " yes", "zh": "成"},
    "no": {"en": " no", "zh": "不行"},
    "then": {"en": " then ", "zh": "则"},
    "so": {"en": "So ", "zh": "得"},
    "speed": {"en": "Speed ", "zh": "速度"},
    "time": {"en": "Time ", "zh": "时间"},
    "way": {"en": "Way ", "zh": "路程"},
    "left": {"en": "Left ", "zh": "还剩"},
    "try": {"en": "Try ", "zh": "试"},
    "slope": {"en": "Slope ", "zh": "倍数"},
}
"""Connecting words. The Chinese ones are shorter in tokens: where languages may mix, mixing pays."""

REFLECTION_WORDS: dict[str, tuple[str, ...]] = {
    "wait": ("wait", "等等"),
    "check": ("check", "检查"),
    "no": ("no", "不对", "不行"),
}
"""Words of reflection that are counted over training (after R1 C.2), by kind, in both languages."""
REFLECTION = re.compile(
    "|".join(
        f"(?P<{kind}>{'|'.join(rf'(?<![a-z]){word}(?![a-z])' if word.isascii() else word for word in words)})"
        for kind, words in REFLECTION_WORDS.items()
    ),
    re.IGNORECASE,
)
"""Finds them, English ones as whole words; the group that matched names the kind."""


def word(name: str, voice: Voice) -> str:
    """The connecting word for a voice; the mixed voice takes the Chinese one, which is shorter."""
    return WORDS[name]["en" if voice == "en" else "zh"]


def apply(left: int, op: str, right: int) -> int:
    """Computes one step over the integers; division must come out even."""
    if op == "+":
        return left + right
    if op == "-":
        return left - right
    if op == "*":
        return left * right
    quotient, rest = divmod(left, right)
    assert rest == 0, f"{left}/{right} is not whole"
    return quotient


class Scribe:
    """Writes the steps of one solution.

    Args:
        rng: source of slips.
        style: whether steps are verified.
        voice: language of the words.
        slip_rate: probability that a step is written with a wrong result.
    """

    def __init__(self, rng: random.Random, style: Style, voice: Voice, slip_rate: float) -> None:
        self.rng = rng
        self.style = style
        self.voice = voice
        self.slip_rate = slip_rate
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """What has been written, without the last line's end."""
        return "".join(self._parts).rstrip("\n")

    def mark(self) -> int:
        """A place to `rewind` to."""
        return len(self._parts)

    def rewind(self, mark: int) -> None:
        """Unwrites everything since a mark."""
        del self._parts[mark:]

    def say(self, *names: str, text: str = "") -> None:
        """Writes connecting words by name, then raw text."""
        self._parts.extend(word(name, self.voice) for name in names)
        self._parts.append(text)

    def slip(self, value: int, op: str, right: int) -> int:
        """A plausible wrong result: off by one row of the table, by one, two or ten."""
        offset = right if op == "*" else 1 if op == "/" else self.rng.choice((1, 1, 2, 10))
        return value - offset if value > offset and self.rng.random() < 0.5 else value + offset

    def compute(self, left: int, op: str, right: int) -> int:
        """Writes ``left op right=value`` on a line and returns the value as written (after a check: as mended)."""
        true = apply(left, op, right)
        slipped = self.slip_rate > 0 and self.rng.random() < self.slip_rate
        value = self.slip(true, op, right) if slipped else true
        self._parts.append(f"{left}{op}{right}={value}")
        if self.style == "check":
            self._verify(left, op, right, value)
            if value != true:
                self._parts.append(f"{word('wait', self.voice)}\n{left}{op}{right}={true}")
                self._verify(left, op, right, true)
            self._parts.append(word("ok", self.voice))
            value = true
        self._parts.append("\n")
        return value

    def _verify(self, left: int, op: str, right: int, value: int) -> None:
        back = INVERSE[op]
        self._parts.append(f"{word('check', self.voice)}{value}{back}{right}={apply(value, back, right)}")
