"""A second laptop world, tried out: lists of labelled items that are gone through one line at a time.

Five families in four domains, open-ended in level, in English and Chinese. A document is a list of (text, weight)
pieces: the weight of its tokens in the loss, None for what nobody can foretell (operands, questions, guesses).
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass, field

from aha.text.templates import ZERO_HEAD, ZERO_TAIL
from aha.text.tokenizer import ANSWER, BOS, END_ANSWER, END_THINK, EOS, THINK

FAMILIES = ("cards", "pulse", "trace", "boxes", "rules")
SEARCH = ("boxes", "rules")
"""Families that try candidates; the others go through a list in order."""
LABELS = string.ascii_lowercase
WORDS = {
    "en": {
        "yes": " yes",
        "no": " no",
        "wait": "Wait",
        "same": " same",
        "differ": " differ",
        "guess": "Guess ",
        "so": "So ",
    },
    "zh": {"yes": "对", "no": "不对", "wait": "等等", "same": "一样", "differ": "不同", "guess": "猜", "so": "得"},
}  # fmt: skip
QUESTIONS = {
    "cards": {
        "en": ("Cards", ". Start with {s}, add {a} to {b}. Last digit?"),
        "zh": ("牌", "。从{s}起加{a}到{b}，个位？"),
    },
    "pulse": {
        "en": ("Pulses", ". Level {s}, pulses {a} to {b}. Which level?"),
        "zh": ("脉冲", "。能级{s}，脉冲{a}到{b}，哪级？"),
    },
    "trace": {
        "en": ("Code", ". x={s}, run {a} to {b}. Last digit of x?"),
        "zh": ("代码", "。x={s}，运行{a}到{b}，x个位？"),
    },
    "boxes": {"en": ("Boxes", ". Whose digits add to {s}?"), "zh": ("箱", "。哪个数字和为{s}？")},
    "rules": {"en": ("Rules", ". Which turns {s} into {t}?"), "zh": ("规则", "。哪个把{s}变成{t}？")},
}
Piece = tuple[str, float | None]


@dataclass
class Shares:
    """What the web is made of."""

    atoms: float = 0.2
    """Of all documents: facts, and lists that are copied out with single steps."""
    styles: dict[str, float] = field(
        default_factory=lambda: {
            "direct": 0.13, "bare": 0.05, "short": 0.38, "giveup": 0.07, "long": 0.12, "long_outside": 0.25,
        }
    )  # fmt: skip
    """How answers are given: relative weights."""
    wait: float = 0.5
    """Of long answers, those that go on with a second pass."""
    slip: float = 0.5
    """Of these, those whose first pass holds a mistake."""
    again: float = 0.15
    """Probability of one more pass after two that agree."""
    levels: tuple[int, ...] = (1, 2, 3, 4)
    longest: int = 14
    """Items of a list, at most."""
    chinese: float = 0.3
    plain: float = 0.5
    """Of questions, those on a page of several instead of under R1-Zero's template."""


def apply(op: str, value: int, operand: int) -> int:
    """One step modulo 10."""
    return (value + operand) % 10 if op == "+" else (value * operand) % 10


class Chain:
    """Cards to add up, pulses that swap two of five levels, lines of a program: a stretch of a list, in order."""

    def __init__(self, family: str, rng: random.Random, level: int, longest: int) -> None:
        self.family = family
        count = rng.randint(max(level, 2), max(level, longest))
        self.names = LABELS[:count]
        self.items = [self._item(rng) for _ in range(count)]
        self.stretch = self.ask(rng, level)
        self.start = self.any_state(rng)

    def _item(self, rng: random.Random) -> tuple[str | int, int]:
        if self.family == "cards":
            return "+", rng.randint(1, 9)
        if self.family == "trace":
            return ("+", rng.randint(1, 9)) if rng.random() < 0.5 else ("*", rng.choice((2, 3, 7, 9)))
        low, high = sorted(rng.sample(range(1, 6), 2))
        return low, high

    def any_state(self, rng: random.Random) -> int:
        """A value that the running state can have."""
        return rng.randint(1, 5) if self.family == "pulse" else rng.randint(0, 9)

    def ask(self, rng: random.Random, level: int) -> tuple[int, int]:
        """The first and the last item of a stretch of `level` items."""
        first = rng.randint(0, len(self.names) - min(level, len(self.names)))
        return first, first + min(level, len(self.names)) - 1

    def written(self, index: int) -> str:
        """An item without its label."""
        first, second = self.items[index]
        return str(second) if self.family == "cards" else f"{first}{second}"

    def step(self, index: int, state: int) -> int:
        """The state after an item."""
        first, second = self.items[index]
        if self.family == "pulse":
            return int({first: second, second: first}.get(state, state))
        return apply(str(first), state, second)

    def line(self, index: int, state: int, result: int) -> str:
        """One line of thinking: label, item, state before and after."""
        joint = "+" if self.family == "cards" else " "
        return f"{self.names[index]}{self.written(index)}{joint}{state}={result}\n"

    @property
    def answer(self) -> str:
        """The state at the end of the stretch."""
        state = self.start
        for index in range(self.stretch[0], self.stretch[1] + 1):
            state = self.step(index, state)
        return str(state)

    def guess(self, rng: random.Random) -> str:
        """An answer without work."""
        return str(self.any_state(rng))

    def lines(self, rng: random.Random, slip_at: int = -1) -> tuple[list[str], str]:
        """A whole pass, perhaps with one wrong result, and what it ends with."""
        state, found = self.start, []
        for number, index in enumerate(range(self.stretch[0], self.stretch[1] + 1)):
            result = self.step(index, state)
            while number == slip_at and result == self.step(index, state):
                result = self.any_state(rng)
            found.append(self.line(index, state, result))
            state = result
        return found, str(state)

    def atoms(self, rng: random.Random) -> list[Piece]:
        """The list again from some item on, some items with a step."""
        pieces: list[Piece] = []
        for index in range(rng.randrange(len(self.names)), len(self.names)):
            if rng.random() < 0.4:
                state = self.any_state(rng)
                text = self.line(index, state, self.step(index, state))
                at = text.rindex("=") - 1
                pieces += [(text[:at], 1), (text[at], None), (text[at + 1 :], 1)]
            else:
                pieces.append((f"{self.names[index]}{self.written(index)}\n", 1))
        return pieces

    def question(self, language: str) -> str:
        """What is asked, after the list."""
        first, last = self.stretch
        text = QUESTIONS[self.family][language][1]
        return text.format(s=self.start, a=self.names[first], b=self.names[last])


class Hunt:
    """Boxes whose digits add up, rules that turn one number into another: one candidate fits."""

    def __init__(self, family: str, rng: random.Random, level: int) -> None:
        self.family = family
        self.names = LABELS[: level + 1]
        self.start, self.target = rng.randint(1, 9), rng.randint(0, 9)
        self.right = rng.randrange(level + 1)
        self.items = [self._candidate(rng, fits=index == self.right) for index in range(level + 1)]

    def _candidate(self, rng: random.Random, fits: bool) -> tuple[str | int, ...]:
        while True:
            if self.family == "boxes":
                item: tuple[str | int, ...] = tuple(rng.randint(0, 9) for _ in range(3))
            else:
                item = (rng.choice("+*"), rng.randint(2, 9), rng.choice("+*"), rng.randint(2, 9))
            if (self._results(item)[1] == self.target) == fits:
                return item

    def _results(self, item: tuple[str | int, ...]) -> tuple[int, int]:
        """After the first and the second step of a check."""
        if self.family == "boxes":
            half = (int(item[0]) + int(item[1])) % 10
            return half, (half + int(item[2])) % 10
        half = apply(str(item[0]), self.start, int(item[1]))
        return half, apply(str(item[2]), half, int(item[3]))

    def written(self, index: int) -> str:
        """A candidate without its label."""
        return "".join(map(str, self.items[index]))

    @property
    def answer(self) -> str:
        """The label of the candidate that fits."""
        return self.names[self.right]

    def guess(self, rng: random.Random) -> str:
        """A candidate without a check."""
        return rng.choice(self.names)

    def check(self, index: int, language: str, slip: bool = False, backwards: bool = False) -> tuple[str, bool]:
        """One candidate tested, and the verdict; boxes can be added up from the other side."""
        item = self.items[index][::-1] if backwards and self.family == "boxes" else self.items[index]
        half, result = self._results(item)
        if slip:
            result = self.target if result != self.target else (result + 1 + index) % 10
        head = f"{item[0]}+{item[1]}={half}+{item[2]}=" if self.family == "boxes" else (
            f" {self.start}{item[0]}{item[1]}={half}{item[2]}{item[3]}="
        )  # fmt: skip
        fits = result == self.target
        return f"{self.names[index]}{head}{result}{WORDS[language]['yes' if fits else 'no']}\n", fits

    def lines(self, language: str, slip_at: int = -1, first: int = 0) -> tuple[list[str], str | None]:
        """Candidates in order until one fits."""
        found = []
        for index in range(first, len(self.names)):
            text, fits = self.check(index, language, slip=index == slip_at)
            found.append(text)
            if fits:
                return found, self.names[index]
        return found, None

    def atoms(self, rng: random.Random) -> list[Piece]:
        """Checks without verdicts, or the list again, from some candidate on."""
        checks = rng.random() < 0.6
        pieces: list[Piece] = []
        for index in range(rng.randrange(len(self.names)), len(self.names)):
            text = self.check(index, "en", backwards=rng.random() < 0.2)[0]
            copied = f"{self.names[index]}{self.written(index)}\n"
            pieces.append((text[: text.rindex("=") + 2] + "\n" if checks else copied, 1))
        return pieces

    def question(self, language: str) -> str:
        """What is asked, after the list."""
        start = self.target if self.family == "boxes" else self.start
        return QUESTIONS[self.family][language][1].format(s=start, t=self.target)


World = Chain | Hunt


def make(family: str, rng: random.Random, level: int, longest: int) -> World:
    """Draws a problem of a family and level."""
    return Hunt(family, rng, level) if family in SEARCH else Chain(family, rng, level, longest)


def items_of(world: World, language: str) -> str:
    """The list, each value before its label: the token before a label is then what it stands for."""
    items = "".join(f" {world.written(index)}{name}" for index, name in enumerate(world.names))
    return QUESTIONS[world.family][language][0] + items


def long_thinking(world: World, rng: random.Random, shares: Shares, language: str) -> tuple[str, str]:
    """A whole pass and perhaps further ones that confirm or repair; the thinking and what it ends with."""
    words, waits = WORDS[language], rng.random() < shares.wait
    slips = waits and rng.random() < shares.slip
    if isinstance(world, Hunt):
        return _hunted(world, rng, shares, language, rng.randrange(len(world.names)) if slips else -1, waits)
    length = world.stretch[1] - world.stretch[0] + 1
    lines, end = world.lines(rng, rng.randrange(length) if slips else -1)
    text, seen = "".join(lines), [end]
    while waits and len(seen) < 5:
        lines, end = world.lines(rng)
        agrees = end in seen
        text += f"{words['wait']}\n{''.join(lines)}{end}{words['same' if agrees else 'differ']}\n"
        seen.append(end)
        if agrees and rng.random() > shares.again:
            break
    return text, end


def _hunted(
    world: Hunt, rng: random.Random, shares: Shares, language: str, slip_at: int, waits: bool
) -> tuple[str, str]:
    lines, end = world.lines(language, slip_at)
    text = "".join(lines)
    for _ in range(4 if waits or end is None else 0):
        text += WORDS[language]["wait"] + "\n"
        if end is None:
            lines, end = world.lines(language)
        else:
            index = world.names.index(end)
            line, fits = world.check(index, language, backwards=True)
            lines = [line]
            if not fits:
                more, end = world.lines(language, first=index + 1)
                lines += more
        text += "".join(lines)
        if end is not None and rng.random() > shares.again:
            break
    return text, end or world.answer


def tagged(thinking: str, answer: str) -> str:
    """A reply in R1-Zero's form."""
    return f"{THINK}\n{thinking}{END_THINK}\n{ANSWER}{answer}{END_ANSWER}"


def reply(world: World, rng: random.Random, shares: Shares, language: str) -> list[Piece]:
    """An answer in one of the web's styles."""
    words, answer = WORDS[language], world.answer
    style = rng.choices(list(shares.styles), list(shares.styles.values()))[0]
    if style == "direct":
        return [(ANSWER, 1), (answer, None), (END_ANSWER, 1)]
    if style == "bare":
        return [(" ", 1), (answer, None)]
    if style in ("long", "long_outside"):
        thinking, end = long_thinking(world, rng, shares, language)
        return [(tagged(thinking, end) if style == "long" else f"\n{thinking}{words['so']}{end}", 1)]
    begun = ""
    if style == "giveup":
        lines = (world.lines(language) if isinstance(world, Hunt) else world.lines(rng))[0]
        kept = rng.randint(1, max(1, len(lines) - 1))
        if kept == len(lines):
            return [(tagged("".join(lines), answer), 1)]
        begun, answer = "".join(lines[:kept]), world.guess(rng)
    before, after = tagged(begun + words["guess"] + "\n", answer).split(words["guess"] + "\n")
    return [(before + words["guess"], 1), (answer, None), ("\n" + after, 1)]


def facts(rng: random.Random) -> list[Piece]:
    """Bare facts of one kind: what a swap, a sum or a product modulo 10 makes."""
    kind, pieces = rng.choice(("pulse", "+", "*")), []
    for _ in range(rng.randint(10, 25)):
        if kind == "pulse":
            low, high = sorted(rng.sample(range(1, 6), 2))
            state = rng.randint(1, 5)
            left, right = f"{low}{high} {state}", {low: high, high: low}.get(state, state)
        else:
            first, second = rng.randint(0, 9), rng.randint(0, 9)
            left, right = f"{first}{kind}{second}", apply(kind, first, second)
        pieces += [(left, None), (f"={right}\n", 1)]
    return pieces


def document(rng: random.Random, shares: Shares) -> list[Piece]:
    """One document of the web."""
    family, language = rng.choice(FAMILIES), "zh" if rng.random() < shares.chinese else "en"
    if rng.random() < shares.atoms:
        if rng.random() < 0.3:
            return [(BOS, None), *facts(rng), (EOS, 1)]
        world = make(family, rng, rng.randint(3, min(12, shares.longest)), shares.longest)
        pieces: list[Piece] = [(BOS, None), (items_of(world, language), None)]
        for _ in range(rng.randint(1, 3)):
            (text, weight), *rest = world.atoms(rng)
            pieces += [("\n" + text[0], None), (text[1:], weight), *rest]
        return [*pieces, (EOS, 1)]
    world = make(family, rng, rng.choice(shares.levels), shares.longest)
    head = items_of(world, language)
    if rng.random() >= shares.plain:
        question = f" {head}{world.question(language)}"
        return [(BOS + ZERO_HEAD, 1), (question, None), (ZERO_TAIL, 1), *reply(world, rng, shares, language), (EOS, 1)]
    pieces = [(BOS + head, None)]
    for number in range(rng.choices((1, 2, 3, 4, 5, 6), (3, 2, 2, 1, 1, 1))[0]):
        if number and isinstance(world, Chain):
            world.stretch, world.start = world.ask(rng, rng.choice(shares.levels)), world.any_state(rng)
        pieces += [(world.question(language) + "\n", None), *reply(world, rng, shares, language), ("\n", 1)]
        if isinstance(world, Hunt):
            break
    return [*pieces, (EOS, 1)]


class Problem:
    """A question with its answer, as it is asked under R1-Zero's template."""

    def __init__(self, family: str, level: int, rng: random.Random, longest: int = 14) -> None:
        self.family, self.level = family, level
        world = make(family, rng, level, longest)
        self.language = "zh" if rng.random() < 0.3 else "en"
        self.question = items_of(world, self.language) + world.question(self.language)
        self.answer = world.answer
